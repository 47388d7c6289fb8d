# Builds the consumer against the installed library and runs it on three processes.
include(${CMAKE_CURRENT_LIST_DIR}/../consumers/run.cmake)
file(REMOVE_RECURSE ${BINARY})
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/consumer -B ${BINARY} -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_PREFIX_PATH=${INSTALLED} "-DCMAKE_CXX_FLAGS=-O0 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror")
run(${CMAKE_COMMAND} --build ${BINARY})
run(${MPIRUN} -n 3 ${BINARY}/consumer)
if(NOT output STREQUAL "3 ranks, sum 3\n")
  message(FATAL_ERROR "the consumer prints: ${output}")
endif()
