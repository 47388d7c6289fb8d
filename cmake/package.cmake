# What `cmake --install` and cpack write. Nothing of it depends on the machine, so all of it lies in include/ and
# share/.
include(GNUInstallDirs)

set(sd_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/sd)
set(sd_include_dir ${CMAKE_INSTALL_INCLUDEDIR})
set(sd_config_dir "\${CMAKE_CURRENT_LIST_DIR}")
configure_package_config_file(
  cmake/sdConfig.cmake.in package/sdConfig.cmake INSTALL_DESTINATION ${sd_cmake_dir} PATH_VARS sd_include_dir
  NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/package/sdConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/sdConfigVersion.cmake
              cmake/config.cmake cmake/cuda.cmake cmake/dependencies.cmake cmake/mpi.cmake cmake/targets.cmake
        DESTINATION ${sd_cmake_dir})
install(DIRECTORY include/sd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Not the folder of the project around this one.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/sd)

# Relative to the file itself, so that an installed tree can be moved.
file(RELATIVE_PATH sd_include_dir ${CMAKE_INSTALL_FULL_DATADIR}/pkgconfig ${CMAKE_INSTALL_FULL_INCLUDEDIR})
configure_file(cmake/sd.pc.in sd.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/sd.pc DESTINATION ${CMAKE_INSTALL_DATADIR}/pkgconfig)

if(NOT PROJECT_IS_TOP_LEVEL)
  return()
endif()
set(CPACK_GENERATOR DEB)
set(CPACK_VERBATIM_VARIABLES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_PACKAGE_NAME sd-dev)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_DESCRIPTION
    "Trains and runs residual networks whose blocks are skipped at random while
training, for the whole batch or for single samples. Every gradient is written
by hand; runs with one seed give the same bits for any number of threads.
Headers for C++20 that need Eigen alone and use OpenMP if it is there.")
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libeigen3-dev (>= 3.4)")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "g++ | clang")
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "The sd developers")
# Debian looks for the licence under the package's name.
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/sd-dev RENAME copyright COMPONENT debian
        EXCLUDE_FROM_ALL)
set(CPACK_INSTALL_CMAKE_PROJECTS "${CMAKE_BINARY_DIR};sd;ALL;/;${CMAKE_BINARY_DIR};sd;debian;/")
include(CPack)
