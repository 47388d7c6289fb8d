# The component sd::cuda: what units that nvcc compiles need to include sd/cuda/cuda.hpp. Needs CUDA 13 and cuDNN 9; the
# language CUDA is the user's to enable. Sets sd_cuda_FOUND.
set(sd_cuda_FOUND FALSE)
find_package(CUDAToolkit 13 QUIET)
find_path(SD_CUDNN_INCLUDE_DIR cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(SD_CUDNN_LIBRARY cudnn HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
find_library(SD_CUDNN_GRAPH_LIBRARY cudnn_graph HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
find_library(SD_CUBLASLT_LIBRARY cublasLt HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
mark_as_advanced(SD_CUDNN_INCLUDE_DIR SD_CUDNN_LIBRARY SD_CUDNN_GRAPH_LIBRARY SD_CUBLASLT_LIBRARY)
if(CUDAToolkit_FOUND AND SD_CUDNN_INCLUDE_DIR AND SD_CUDNN_LIBRARY AND SD_CUDNN_GRAPH_LIBRARY AND SD_CUBLASLT_LIBRARY)
  set(sd_cuda_FOUND TRUE)
  if(NOT TARGET sd::cuda)
    add_library(sd::cuda INTERFACE IMPORTED)
    target_link_libraries(sd::cuda INTERFACE sd::sd CUDA::cudart ${SD_CUDNN_LIBRARY} ${SD_CUDNN_GRAPH_LIBRARY}
                                             ${SD_CUBLASLT_LIBRARY})
    target_include_directories(sd::cuda SYSTEM INTERFACE ${SD_CUDNN_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
    # Eigen's own kernels are not used on the device.
    target_compile_definitions(sd::cuda INTERFACE EIGEN_NO_CUDA)
    # C++20 by flag, since CMake 3.25 does not know that CUDA 13 has it. Functions of std::array on the device; the
    # processor's kernels have pragmas of GCC's, which nvcc does not know.
    target_compile_options(
      sd::cuda INTERFACE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20>
                         $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr>
                         $<$<COMPILE_LANGUAGE:CUDA>:-diag-suppress=1675>)
  endif()
endif()
