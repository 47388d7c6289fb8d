# Exports a library that links sd::sd and uses it in a third project, with and without OpenMP: THREADS. The library is
# installed, then used without the tree it was built in; after that it is used where it was built.
cmake_minimum_required(VERSION 3.22)
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
set(build ${BINARY}/export_${THREADS})
file(REMOVE_RECURSE ${build})
set(disable_openmp OFF)
if(THREADS STREQUAL serial)
  set(disable_openmp ON)
endif()
set(settings -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_CXX_FLAGS=-O0 -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=${disable_openmp}
             --no-warn-unused-cli)

# use(name sd_dir targets): builds and runs the third project.
function(use name sd_dir targets)
  run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/third -B ${build}/${name} ${settings} -Dsd_DIR=${sd_dir}
      -DTARGETS=${targets})
  run(${CMAKE_COMMAND} --build ${build}/${name})
  run(${build}/${name}/third)
  if(NOT output STREQUAL "6 elements\n")
    message(FATAL_ERROR "the third project prints: ${output}")
  endif()
endfunction()

foreach(install OFF ON)
  set(parent ${build}/parent_${install})
  run(${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR}/parent -B ${parent} ${settings} -DSOURCE=${SOURCE}
      "-DEIGEN=${EIGEN}" -DLIBRARY_FIRST=${install} -DSD_INSTALL=${install})
  run(${CMAKE_COMMAND} --build ${parent})
  run(${CMAKE_COMMAND} --install ${parent} --prefix ${build}/prefix_${install})
endforeach()
# By default the library alone is installed; sd comes from elsewhere. With SD_INSTALL it comes along.
if(EXISTS ${build}/prefix_OFF/include/sd)
  message(FATAL_ERROR "sd is installed unasked")
endif()
use(tree ${build}/parent_OFF/library ${build}/parent_OFF/elementsTargets.cmake)
file(RENAME ${build}/parent_OFF ${build}/gone_OFF)
file(RENAME ${build}/parent_ON ${build}/gone_ON)
use(alone ${BINARY}/installed/share/cmake/sd ${build}/prefix_OFF/share/elements/elementsTargets.cmake)
use(together ${build}/prefix_ON/share/cmake/sd ${build}/prefix_ON/share/elements/elementsTargets.cmake)
