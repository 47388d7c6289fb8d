# What find_package(sd) does, once sd_include_dir says where the headers are.
include(${CMAKE_CURRENT_LIST_DIR}/dependencies.cmake)
if(NOT TARGET Eigen3::Eigen)
  set(sd_FOUND FALSE)
  set(sd_NOT_FOUND_MESSAGE "Eigen3::Eigen: ${sd_eigen_missing}")
  return()
endif()
include(${CMAKE_CURRENT_LIST_DIR}/targets.cmake)

# sd::mpi, if asked for: find_package(sd COMPONENTS mpi).
set(sd_mpi_FOUND FALSE)
if("mpi" IN_LIST sd_FIND_COMPONENTS)
  find_package(MPI QUIET COMPONENTS CXX)
  if(MPI_CXX_FOUND)
    set(sd_mpi_FOUND TRUE)
    include(${CMAKE_CURRENT_LIST_DIR}/mpi.cmake)
  endif()
endif()

# sd::cuda, if asked for: find_package(sd COMPONENTS cuda).
set(sd_cuda_FOUND FALSE)
if("cuda" IN_LIST sd_FIND_COMPONENTS)
  include(${CMAKE_CURRENT_LIST_DIR}/cuda.cmake)
endif()
include(FindPackageHandleStandardArgs)
set(sd_CONFIG ${CMAKE_CURRENT_LIST_FILE})
find_package_handle_standard_args(sd CONFIG_MODE HANDLE_COMPONENTS)
