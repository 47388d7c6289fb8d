include(CMakeFindDependencyMacro)
find_package(Eigen3 3.4 QUIET NO_MODULE)
if(NOT Eigen3_FOUND)
  find_dependency(Eigen3 5 NO_MODULE)
endif()
# sd::sd links OpenMP where it is found and does without it elsewhere.
find_package(OpenMP QUIET COMPONENTS CXX)
include(${CMAKE_CURRENT_LIST_DIR}/sdTargets.cmake)
