# Builds a program for a GPU against the installed component sd::cuda, and runs it: with a GPU or without one.
cmake_minimum_required(VERSION 3.22)
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set(build ${BINARY}/cuda)
file(REMOVE_RECURSE ${build})
run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/cuda -B ${build} -DCMAKE_CXX_COMPILER=${CXX}
    -DCMAKE_CUDA_COMPILER=${NVCC} -DCMAKE_CUDA_HOST_COMPILER=${CXX} -DCMAKE_CUDA_ARCHITECTURES=${ARCHITECTURES}
    -DCONSUMER_VERSION=${VERSION} -DCMAKE_PREFIX_PATH=${BINARY}/installed)
run(${CMAKE_COMMAND} --build ${build})
execute_process(COMMAND ${build}/consumer OUTPUT_VARIABLE output)
if(NOT output MATCHES "^(relu: 0 2 0 4|sd::Cuda: devices: got .*, expected an NVIDIA GPU and its driver)\n$")
  message(FATAL_ERROR "the consumer prints: ${output}")
endif()
