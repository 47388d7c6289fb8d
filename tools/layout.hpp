// Images in PyTorch's layout and in ours.
#pragma once

#include "sd/core/tensor.hpp"

namespace tools {

/// (N, C, H, W) to (N, H, W, C), or back with `to_nchw`.
template <class T>
sd::Tensor<T> permute(const sd::Tensor<T>& x, bool to_nchw) {
    const sd::Index n = x.extent(0);
    const sd::Index h = to_nchw ? x.extent(1) : x.extent(2);
    const sd::Index w = to_nchw ? x.extent(2) : x.extent(3);
    const sd::Index c = to_nchw ? x.extent(3) : x.extent(1);
    auto y = sd::Tensor<T>::empty(to_nchw ? sd::Shape{n, c, h, w} : sd::Shape{n, h, w, c});
    for (sd::Index i = 0; i < n; ++i) {
        for (sd::Index j = 0; j < c; ++j) {
            for (sd::Index p = 0; p < h * w; ++p) {
                const sd::Index nchw = (i * c + j) * h * w + p;
                const sd::Index nhwc = (i * h * w + p) * c + j;
                if (to_nchw) {
                    y.data()[nchw] = x.data()[nhwc];
                } else {
                    y.data()[nhwc] = x.data()[nchw];
                }
            }
        }
    }
    return y;
}

template <class T>
sd::Tensor<T> to_nhwc(const sd::Tensor<T>& x) {
    return permute(x, false);
}
template <class T>
sd::Tensor<T> to_nchw(const sd::Tensor<T>& x) {
    return permute(x, true);
}

}  // namespace tools
