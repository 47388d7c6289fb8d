#include <sd/mpi/session.hpp>

#include <iostream>
#include <vector>

int main(int argc, char** argv) {
    return sd::run_ranks(argc, argv, [](sd::Communicator& ranks) {
        std::vector<double> numbers{1, static_cast<double>(ranks.rank())};
        ranks.start_sum(std::span(numbers))->finish();
        if (ranks.rank() == 0) std::cout << numbers[0] << " ranks, sum " << numbers[1] << '\n';
        return 0;
    });
}
