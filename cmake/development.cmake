# Warnings of our own builds; nothing of this file reaches a user's build.
add_library(sd_warnings INTERFACE)
target_compile_features(sd_warnings INTERFACE cxx_std_20)
target_compile_options(sd_warnings INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# GCC 12 takes the undefined vectors of its own AVX-512 intrinsics for mistakes (https://gcc.gnu.org/PR105593).
target_compile_options(
  sd_warnings
  INTERFACE
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-maybe-uninitialized;-Wno-uninitialized>)
if(SD_WARNINGS_AS_ERRORS)
  target_compile_options(sd_warnings INTERFACE -Werror)
endif()

# What our own tests, tools and examples are built with.
add_library(sd_development INTERFACE)
# Warnings are for the library's headers too.
set_target_properties(sd::sd PROPERTIES IMPORTED_NO_SYSTEM ON)
target_link_libraries(sd_development INTERFACE sd::sd sd_warnings)

# Starts our own programs on several processes, more than there may be cores, as root too, which containers are. By
# environment, as in ./run: Open MPI 4 and 5 and MPICH have different options.
set(sd_mpi_environment
    ${CMAKE_COMMAND} -E env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1
    PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
    PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none OMP_NUM_THREADS=1)
set(sd_mpirun ${sd_mpi_environment} ${MPIEXEC_EXECUTABLE})
if(SD_NATIVE)
  target_link_libraries(sd_development INTERFACE sd::native)
  # -march=native is another thing on another CPU: what it stands for is a part of the flags, so that a build folder that
  # comes to another CPU compiles all anew.
  execute_process(COMMAND ${CMAKE_CXX_COMPILER} -march=native -dM -E -x c++ /dev/null OUTPUT_VARIABLE sd_cpu_macros
                  ERROR_QUIET)
  string(MD5 sd_cpu "${sd_cpu_macros}")
  string(SUBSTRING ${sd_cpu} 0 8 sd_cpu)
  target_compile_definitions(sd_development INTERFACE SD_BUILT_FOR_CPU=0x${sd_cpu})
endif()

# Programs that say what a CPU lacks, see tools/cpu_check. Linked by name: of a library's files the linker takes only
# those that something asks for.
if(CMAKE_SYSTEM_NAME STREQUAL Linux AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64)$")
  set(sd_cpu_check ${PROJECT_SOURCE_DIR}/tools/cpu_check)
  add_library(sd_built_for OBJECT ${sd_cpu_check}/built_for.cpp)
  add_library(sd_cpu_check STATIC ${sd_cpu_check}/cpu_check.cpp $<TARGET_OBJECTS:sd_built_for>)
  target_compile_features(sd_cpu_check PRIVATE cxx_std_20)
  target_compile_options(sd_cpu_check PRIVATE -march=x86-64 -mtune=generic -mno-avx)
  if(SD_NATIVE)
    target_compile_options(sd_built_for PRIVATE -march=native)
  endif()
  target_link_libraries(sd_development INTERFACE sd_cpu_check)
  target_link_options(sd_development
                      INTERFACE $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:LINKER:-u,sd_cpu_check>)
endif()

# What `./run test` leaves to `./run test --all`: targets that are not built unless SD_ALL_TESTS is set, and tests, which
# have the label "long".
function(sd_long_targets)
  if(NOT SD_ALL_TESTS)
    set_target_properties(${ARGN} PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
endfunction()
function(sd_long_tests)
  set_tests_properties(${ARGN} PROPERTIES LABELS long)
endfunction()

# Leaves tests of the short tier as they are written, without optimisation; a build of all tests optimises them as users do.
function(sd_leave_unoptimised)
  if(NOT SD_ALL_TESTS)
    foreach(target ${ARGN})
      target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O0>)
    endforeach()
  endif()
endfunction()

# Lets one of our own programs take the fast kernels from the library sd_kernels instead of compiling them again, which
# is most of its time: sd_share_kernels(target [TEST]). Its own code is optimised little, that of a test of the short tier
# not at all, and the headers are compiled once, too. A build of all tests does without the latter: there GCC 12 warns of
# its own headers, so the warning is off, and a missing #include is not seen.
set(sd_kernels ${PROJECT_SOURCE_DIR}/tools/compiled/kernels.hpp)
function(sd_share_kernels target)
  set(level -O1)
  if("TEST" IN_LIST ARGN AND NOT SD_ALL_TESTS)
    set(level -O0)
  endif()
  target_link_libraries(${target} PRIVATE sd_kernels)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:${level}>)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL GNU OR SD_ALL_TESTS)
    target_compile_options(${target} PRIVATE "SHELL:-include ${sd_kernels}")
    return()
  endif()
  set(precompiled sd_precompiled${level})
  if(NOT TARGET ${precompiled})
    file(GENERATE OUTPUT ${PROJECT_BINARY_DIR}/${precompiled}.cpp CONTENT "")
    add_library(${precompiled} OBJECT ${PROJECT_BINARY_DIR}/${precompiled}.cpp)
    target_link_libraries(${precompiled} PRIVATE sd_development)
    target_compile_options(${precompiled} PRIVATE $<$<CONFIG:Release>:${level}>)
    target_precompile_headers(${precompiled} PRIVATE ${sd_kernels}
                              ${PROJECT_SOURCE_DIR}/include/sd/training.hpp)
  endif()
  target_precompile_headers(${target} REUSE_FROM ${precompiled})
  target_compile_options(${target} PRIVATE -Wno-stringop-overflow)
endfunction()
