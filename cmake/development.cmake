# What our own tests, tools and examples are built with; nothing of it reaches a user's build.
add_library(sd_development INTERFACE)
target_link_libraries(sd_development INTERFACE sd::sd)
target_compile_options(sd_development INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wshadow)
# GCC 12 takes the undefined vectors of its own AVX-512 intrinsics for mistakes (https://gcc.gnu.org/PR105593).
target_compile_options(
  sd_development
  INTERFACE $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-maybe-uninitialized>)
if(SD_WARNINGS_AS_ERRORS)
  target_compile_options(sd_development INTERFACE -Werror)
endif()
if(SD_NATIVE)
  target_link_libraries(sd_development INTERFACE sd::native)
endif()
