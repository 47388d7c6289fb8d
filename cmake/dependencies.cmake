# What sd::sd links. A target that is there already is taken: nothing is looked for in its place.
if(NOT TARGET Eigen3::Eigen)
  # Eigen 5 follows 3.4 and takes a request for 3.4 as one for another major version.
  find_package(Eigen3 3.4 QUIET NO_MODULE)
  if(NOT Eigen3_FOUND)
    find_package(Eigen3 5 QUIET NO_MODULE)
  endif()
endif()
set(sd_eigen_missing "got neither the target nor a package Eigen3 of version 3.4 or 5, expected one of them")
if(NOT TARGET OpenMP::OpenMP_CXX)
  find_package(OpenMP QUIET COMPONENTS CXX)
endif()
