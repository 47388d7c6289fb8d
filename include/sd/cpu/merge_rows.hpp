// Sums over rows, from those of chunks of rows: chunks are cut by the problem's size alone and merged in order, so sums
// have the same bits for any number of threads.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/core/tensor.hpp"

SD_NAMESPACE_BEGIN

namespace cpu {

/// The sums (columns) of partial sums (chunks, columns), in order and in double.
template <class T>
[[nodiscard]] Tensor<double> merged_rows(const Tensor<T>& partial) {
    const Index columns = partial.extent(1);
    Tensor<double> sums(Shape{columns});
    parallel_ranges(columns, 64, [&](Index first, Index last) {
        for (Index chunk = 0; chunk < partial.extent(0); ++chunk) {
            const T* part = partial.data() + chunk * columns;
            for (Index c = first; c < last; ++c) sums.data()[c] += static_cast<double>(part[c]);
        }
    });
    return sums;
}

}  // namespace cpu

SD_NAMESPACE_END
