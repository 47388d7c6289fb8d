# A parity case of what the library does not have fails, is named, and is counted as such.
execute_process(COMMAND ${PROGRAM} ${CMAKE_CURRENT_LIST_DIR}/data/parity_unknown RESULT_VARIABLE status
                OUTPUT_VARIABLE output)
string(CONCAT expected "FAIL family  not in the library: family family_of_nobody\n"
              "FAIL op  not in the library: op op_of_nobody\n" "0 passed, 2 failed, 2 of them not in the library\n")
if(NOT status EQUAL 1 OR NOT output STREQUAL expected)
  message(FATAL_ERROR "status ${status}, output '${output}'; expected status 1 and '${expected}'")
endif()
