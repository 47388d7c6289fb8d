# A build folder that comes to another CPU compiles all anew: its flags change, and with the same CPU they do not.
file(REMOVE_RECURSE ${BINARY})
file(WRITE ${BINARY}/compiler "#!/bin/sh
case \"$*\" in *-march=native*-dM*) cat ${BINARY}/cpu ;; *) exec ${CXX} \"$@\" ;; esac
")
file(CHMOD ${BINARY}/compiler PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)

function(flags_for cpu result)
  file(WRITE ${BINARY}/cpu "#define ${cpu} 1\n")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY}/build -G "Unix Makefiles" -DCMAKE_CXX_COMPILER=${BINARY}/compiler
            -DSD_PARTS= -DSD_CUDA=OFF RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "configuring: ${output}")
  endif()
  file(READ ${BINARY}/build/tools/CMakeFiles/sd_train.dir/flags.make flags)
  set(${result} "${flags}" PARENT_SCOPE)
endfunction()

flags_for(__OLD__ before)
flags_for(__OLD__ again)
flags_for(__NEW__ after)
if(NOT again STREQUAL before OR after STREQUAL before)
  message(FATAL_ERROR "flags before, again and on another CPU:\n${before}\n${again}\n${after}")
endif()
