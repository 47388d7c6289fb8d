// NCCL's communicator compiles and links; it runs where there are GPUs to share.
#include "sd/cuda/nccl.hpp"

#include <iostream>

int main() {
    try {
        sd::NcclCommunicator alone(sd::NcclCommunicator::identification(), 0, 1);
        auto numbers = sd::to_device<sd::Cuda>(sd::Tensor<float>(sd::Shape{3}, {1, 2, 3}));
        alone.start_sum(std::span(numbers.data(), 3))->finish();
        const auto own = sd::to_host(numbers);
        return own(0) == 1 && own(1) == 2 && own(2) == 3 && alone.is_one_machine() ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 2;
    }
}
