# The library's targets, in its own tree and installed; its headers are in sd_include_dir. No flag reaches a user's
# build.
if(NOT TARGET sd::sd)
  add_library(sd::sd INTERFACE IMPORTED)
  target_include_directories(sd::sd INTERFACE ${sd_include_dir})
  target_compile_features(sd::sd INTERFACE cxx_std_20)
  target_link_libraries(sd::sd INTERFACE Eigen3::Eigen)
  if(TARGET OpenMP::OpenMP_CXX)
    target_link_libraries(sd::sd INTERFACE OpenMP::OpenMP_CXX)
  endif()

  # Opt-in: code for the machine that compiles it.
  add_library(sd::native INTERFACE IMPORTED)
  target_compile_options(sd::native INTERFACE -march=native)
endif()
