# What our own programs need of others, found in one place so that everything that is missing is said in one line.

# Remembers that something is missing, and which of Debian's packages has it.
function(sd_miss name debian)
  set_property(GLOBAL APPEND PROPERTY sd_missing ${name})
  set_property(GLOBAL APPEND PROPERTY sd_missing_of_debian ${debian})
endfunction()

# find_package(name ...), and remembers if it is not there. A macro, since find_package sets variables.
macro(sd_find name debian)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    sd_miss(${name} ${debian})
  endif()
endmacro()

# Says that a test is left out for want of something large or rare. A build of all tests says where Debian has it, too:
# ./run then installs it.
function(sd_leave_out test what debian)
  set(packages)
  if(SD_ALL_TESTS)
    set(packages " (Debian: ${debian})")
  endif()
  message(STATUS "sd: without ${what} the test ${test} is left out${packages}")
endfunction()

# Ends the configuration if something was missing. ./run reads this line.
function(sd_report_missing)
  get_property(names GLOBAL PROPERTY sd_missing)
  get_property(packages GLOBAL PROPERTY sd_missing_of_debian)
  if(names)
    list(REMOVE_DUPLICATES names)
    list(REMOVE_DUPLICATES packages)
    list(JOIN names ", " names)
    list(JOIN packages " " packages)
    message(FATAL_ERROR " sd: missing: ${names} (Debian: ${packages})")  # a blank first: the line is not broken
  endif()
endfunction()
