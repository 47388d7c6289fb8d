# A program given a bad value says so in one line and exits with status 2.
separate_arguments(arguments UNIX_COMMAND "${ARGUMENTS}")
execute_process(COMMAND ${PROGRAM} ${arguments} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error)
if(NOT status EQUAL 2 OR NOT output STREQUAL "" OR NOT error MATCHES "^[^\n]*${EXPECTED}[^\n]*\n$")
  message(FATAL_ERROR "${ARGUMENTS}: status ${status}, output '${output}', error '${error}'; expected ${EXPECTED}")
endif()
