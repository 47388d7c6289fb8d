# Asks the preprocessor for the inline namespace's name with no option and with each of OPTIONS; all must differ.
cmake_minimum_required(VERSION 3.22)
file(WRITE ${BINARY}/name.cpp "#include <sd/core/config.hpp>\nname: SD_ABI_NAMESPACE\n")
set(names)
foreach(option "" ${OPTIONS})
  execute_process(COMMAND ${CXX} -std=c++20 ${BASE} ${option} -I${INCLUDE} -E -P ${BINARY}/name.cpp OUTPUT_VARIABLE name
                  COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX REPLACE ".*name: ([a-z0-9_]+)\n$" "\\1" name "${name}")
  message("${name} ${option}")
  if(NOT name MATCHES "^v[0-9]+_[0-9]+_[0-9]+_[a-z]" OR name IN_LIST names)
    message(FATAL_ERROR "inline namespace with '${option}': got '${name}', expected a name of its own")
  endif()
  list(APPEND names ${name})
endforeach()
