// The same bits for any number of threads.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/tensor.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace sd_test {

/// All bits, NaN and the sign of zero included.
template <class T>
bool same_bits(const std::vector<sd::Tensor<T>>& a, const std::vector<sd::Tensor<T>>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const sd::Tensor<T>& one, const sd::Tensor<T>& other) {
        return one.shape() == other.shape() &&
               std::memcmp(one.data(), other.data(), static_cast<std::size_t>(one.size()) * sizeof(T)) == 0;
    });
}

/// results() is what kernels give, in memory that held NaN before.
template <class Results>
void check_threads(const Results& results) {
    const int threads = sd::num_threads();
    sd::set_num_threads(1);
    const auto expected = results();
    for (const int count : {2, 3, 7}) {
        CAPTURE(count);
        sd::set_num_threads(count);
        sd::poison_pool();
        CHECK(same_bits(results(), expected));
    }
    sd::set_num_threads(threads);
}

}  // namespace sd_test
