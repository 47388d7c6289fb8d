# run(command ...): runs it silently; a failure or anything on the error stream, warnings included, ends the test.
function(run)
  execute_process(COMMAND ${ARGV} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error)
  if(NOT status EQUAL 0 OR NOT error STREQUAL "")
    string(JOIN " " command ${ARGV})
    message(FATAL_ERROR "${command}: status ${status}\n${output}${error}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()
