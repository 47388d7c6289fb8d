// Compiled once for every set of settings; UNIT is its function's name.
#include "unit.hpp"

#include <sd/core/parallel.hpp>
#include <sd/cpu/conv2d.hpp>

#include <stdexcept>
#include <typeinfo>

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

namespace {

// (1 + e)^2 - (1 + 2 e) = e^2, but a float holds no e^2 = 2^-24 beside 1.
double product_of_kernel() {
    const float e = 0x1p-12F;
    const sd::Tensor<float> x({1, 1, 1, 2}, {1 + 2 * e, 1 + e});
    const sd::Tensor<float> weight({1, 2, 1, 1}, {-1, 1 + e});
    return static_cast<double>(*sd::conv2d_forward<float>(x, weight, {}).begin());
}

// An index beyond its extent that still names an element in memory.
bool checks_bounds() {
    sd::Tensor<float> x({2, 3});
    try {
        x(0, 4) = 1;
        return false;
    } catch (const std::out_of_range&) {
        return true;
    }
}

}  // namespace

Report UNIT() {
    sd::set_num_threads(3);
    return {TEXT(SD_ABI_NAMESPACE), typeid(sd::Tensor<float>).name(), product_of_kernel(), sd::num_threads(),
            checks_bounds()};
}
