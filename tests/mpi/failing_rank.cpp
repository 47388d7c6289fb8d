// A job of which rank 2 fails in the way that the argument names, while the others wait for it.
#include "sd/mpi/session.hpp"

#include <csignal>
#include <cstdlib>
#include <string>
#include <vector>

int main(int argc, char** argv) {
    const std::string how = argc > 1 ? argv[1] : "";
    return sd::run_ranks(argc, argv, [&](sd::Communicator& ranks) {
        if (ranks.rank() == 2) {
            if (how == "throw") throw std::runtime_error("this rank fails");
            if (how == "throw_number") throw 5;
            if (how == "exit") std::exit(7);
            if (how == "signal") std::raise(SIGSEGV);
        }
        std::vector<float> numbers(1000);
        ranks.start_sum(std::span(numbers))->finish();
        return 0;
    });
}
