# Installs the library as a packager does, and moves the tree.
include(${CMAKE_CURRENT_LIST_DIR}/run.cmake)
file(REMOVE_RECURSE ${BINARY}/library ${BINARY}/staged ${BINARY}/installed)
run(${CMAKE_COMMAND} -S ${SOURCE} -B ${BINARY}/library -DCMAKE_CXX_COMPILER=${CXX} -DSD_DEVELOPMENT=OFF
    -DCMAKE_INSTALL_PREFIX=${BINARY}/staged)
run(${CMAKE_COMMAND} --install ${BINARY}/library)
file(RENAME ${BINARY}/staged ${BINARY}/installed)
