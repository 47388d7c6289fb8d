// A residual block with a policy that has no scale.
#include <sd/sd.hpp>

#include <cstddef>
#include <cstdint>

struct Policy {
    double drop_rate = 0.5;
    sd::Mask draw(const sd::Context&, std::uint32_t, sd::Index samples) const {
        return sd::Mask(static_cast<std::size_t>(samples), 1);
    }
    sd::BranchRun runs(const sd::Mask&) const { return sd::BranchRun::all_samples; }
#ifdef SD_RIGHT
    double scale(bool, const sd::Mask&) const { return 1; }
#endif
};

int main() {
    sd::StochasticResidual<sd::Relu<float>, Policy> block{sd::Relu<float>(), {.drop_rate = 0.2}};
    const auto y = block.forward(sd::Tensor<float>({1, 2, 2, 3}), sd::Context::train({.step = 0, .seed = 1}));
    (void)block.backward(y);
}
