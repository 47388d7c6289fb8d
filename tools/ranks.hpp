// A program on one process or on several.
#pragma once

#include "sd/core/communicator.hpp"
#include "sd/core/warning.hpp"

#if SD_TOOLS_MPI
#include "sd/mpi/session.hpp"
#endif

#include <algorithm>
#include <iostream>
#include <string_view>

namespace tools {

/// Whether --ranks is among the arguments: the process is then one of those that mpirun started.
inline bool asks_for_ranks(int argc, char** argv) {
    return std::any_of(argv, argv + argc, [](std::string_view argument) {
        return argument == "--ranks" || argument.starts_with("--ranks=");
    });
}

/// Calls body(communicator), on the ranks of the job if --ranks is among the arguments, and returns the exit status
/// that it returns. Rank 0 alone prints and warns.
template <class Body>
int on_ranks([[maybe_unused]] int argc, [[maybe_unused]] char** argv, const Body& body) {
#if SD_TOOLS_MPI
    if (asks_for_ranks(argc, argv)) {
        return sd::run_ranks(argc, argv, [&](sd::Communicator& ranks) {
            if (ranks.rank() != 0) {
                std::cout.setstate(std::ios::failbit);
                sd::set_warning_handler({});
            }
            return body(ranks);
        });
    }
#endif
    sd::Communicator alone;
    return body(alone);
}

}  // namespace tools
