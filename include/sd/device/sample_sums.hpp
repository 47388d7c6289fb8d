// Sums over the pixels of each sample's channel: a block of threads takes some channels of a sample, each thread some of
// its pixels, and the threads of a channel are summed in order.
#pragma once

#include "sd/device/pending.hpp"

SD_NAMESPACE_BEGIN

namespace cuda {

/// What a thread sums: `parts` numbers for each of `width` channels.
template <class T, int width, int parts>
struct SampleSums {
    using A = accumulate_t<T>;
    struct Shared {
        A part[parts][width][block_threads];
    };
    A part[parts][width];

    /// Zeros.
    SD_HOST_DEVICE SampleSums() {
        for (int k = 0; k < parts; ++k) {
            for (int i = 0; i < width; ++i) part[k][i] = A(0);
        }
    }
    /// The sums of all threads of the block that have the channels of thread `index`.
    SD_HOST_DEVICE SampleSums(const Sweep& sweep, int index, const Shared& shared) : SampleSums() {
        for (int other = 0; other < sweep.rows_at_once; ++other) {
            for (int k = 0; k < parts; ++k) {
                for (int i = 0; i < width; ++i) part[k][i] += shared.part[k][i][index + other * sweep.lanes];
            }
        }
    }
    SD_HOST_DEVICE void share(int index, Shared& shared) const {
        for (int k = 0; k < parts; ++k) {
            for (int i = 0; i < width; ++i) shared.part[k][i][index] = part[k][i];
        }
    }
};

/// Starts Kernel<T, width>{sweep, arguments...} over the pixels of images (N, H, W, C) such that a block of rows is a
/// sample.
template <Accelerator Device, class T, template <class, int> class Kernel, class... Arguments>
void launch_by_sample(const Shape& images, const Arguments&... arguments) {
    with_width<T>(images[3], [&](auto width) {
        Sweep sweep(rows_of(images), images[3], width);
        sweep.rows_of_block = images[1] * images[2];
        sweep.row_blocks = images[0];
        launch<Device>(Kernel<T, width()>{sweep, arguments...}, sweep.blocks());
    });
}

}  // namespace cuda

SD_NAMESPACE_END
