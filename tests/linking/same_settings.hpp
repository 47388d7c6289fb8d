// What a unit tells another unit of the same settings.
#pragma once

#include <sd/sd.hpp>

struct Seen {
    void (*function)(int);  ///< an inline function of the library
    sd::Tensor<float> y;    ///< a block's output
};

inline Seen look() {
    sd::Initializer initializer(42);
    sd::StochasticResidual<sd::BasicBlock<float>, sd::SamplePolicy> block(
        sd::BasicBlock<float>({.in_channels = 4, .planes = 4}, initializer), {.drop_rate = 0.5});
    const auto x = sd::Tensor<float>::full({2, 3, 3, 4}, 1.0F);
    return {&sd::set_num_threads, block.forward(x, sd::Context::train({.step = 0, .seed = 42}))};
}

Seen look_from_other_unit();
