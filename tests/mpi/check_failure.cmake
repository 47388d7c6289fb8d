# A job of which a rank fails ends, with that status, and says why.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE error)
if(NOT status EQUAL STATUS OR NOT "${output}${error}" MATCHES "${EXPECTED}")
  message(FATAL_ERROR "status ${status}, expected ${STATUS}; '${output}${error}', expected ${EXPECTED}")
endif()
