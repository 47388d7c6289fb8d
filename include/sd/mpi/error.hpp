// Calls of MPI, checked.
#pragma once

#include "sd/core/error.hpp"

#include <array>
#include <cstddef>
#include <mpi.h>
#include <stdexcept>
#include <string>

SD_NAMESPACE_BEGIN

namespace mpi {

/// Throws std::runtime_error with MPI's own words unless a call of MPI succeeded.
inline void check(int status, const char* call) {
    if (status == MPI_SUCCESS) return;
    std::array<char, MPI_MAX_ERROR_STRING> message{};
    int length = 0;
    MPI_Error_string(status, message.data(), &length);
    throw std::runtime_error(text(call, ": ", std::string(message.data(), static_cast<std::size_t>(length))));
}

}  // namespace mpi

SD_NAMESPACE_END
