# What `cmake --install` and cpack write. Nothing of it depends on the machine, so all of it lies in include/ and
# share/.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(sd_cmake_dir ${CMAKE_INSTALL_DATADIR}/cmake/sd)

set_target_properties(sd_native PROPERTIES EXPORT_NAME native)
install(TARGETS sd sd_native EXPORT sdTargets INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT sdTargets NAMESPACE sd:: DESTINATION ${sd_cmake_dir})
install(DIRECTORY include/sd DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# Before 1.0 a minor version may change the interface.
write_basic_package_version_file(sdConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES cmake/sdConfig.cmake cmake/cuda.cmake ${CMAKE_CURRENT_BINARY_DIR}/sdConfigVersion.cmake
        DESTINATION ${sd_cmake_dir})

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
