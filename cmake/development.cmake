# What our own tests, tools and examples are built with; nothing of it reaches a user's build.
add_library(sd_development INTERFACE)
# Warnings are for the library's headers too.
set_target_properties(sd::sd PROPERTIES IMPORTED_NO_SYSTEM ON)
target_link_libraries(sd_development INTERFACE sd::sd)
target_compile_options(sd_development INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# GCC 12 takes the undefined vectors of its own AVX-512 intrinsics for mistakes (https://gcc.gnu.org/PR105593).
target_compile_options(
  sd_development
  INTERFACE $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-maybe-uninitialized>)
# Starts our own programs on several processes: as root too, which containers are, and on no core of their own, since
# there may be fewer cores than processes.
set(sd_mpirun ${CMAKE_COMMAND} -E env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1
              ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none)
if(SD_WARNINGS_AS_ERRORS)
  target_compile_options(sd_development INTERFACE -Werror)
endif()
if(SD_NATIVE)
  target_link_libraries(sd_development INTERFACE sd::native)
endif()
