// The fast kernels, compiled once for all tests and examples instead of once in each. Comes first in their units, by a
// flag; tests/kernels.cpp defines SD_TEST_KERNELS as nothing and compiles them.
#pragma once

#include "sd/sd.hpp"

#if !defined(SD_TEST_KERNELS)
#define SD_TEST_KERNELS extern
#endif

#define SD_TEST_KERNELS_OF(T)                                                                                          \
    SD_TEST_KERNELS template Tensor<T> conv2d_forward<T>(const Pending<T>&, const Tensor<T>&, const Conv2dOptions&,    \
                                                         Moments<T>*);                                                 \
    SD_TEST_KERNELS template Tensor<T> conv2d_batch_norm_forward<T>(                                                   \
        const Pending<T>&, const Tensor<T>&, const Conv2dOptions&, const Tensor<T>&, const Tensor<T>&, Activation);    \
    SD_TEST_KERNELS template Tensor<T> conv2d_join_forward<T>(const Pending<T>&, const Tensor<T>&,                     \
                                                              const Conv2dOptions&, const Tensor<T>&,                  \
                                                              const Tensor<T>&, const ResidualJoin<T>&);               \
    SD_TEST_KERNELS template Tensor<T> conv2d_by_input<T>(const PendingGradient<T>&, const Tensor<T>&,                 \
                                                          const Conv2dOptions&, const Shape&, const BatchNormPass<T>*, \
                                                          BatchNormSums<T>*);                                          \
    SD_TEST_KERNELS template Tensor<T> conv2d_by_weight<T>(const Pending<T>&, const PendingGradient<T>&,               \
                                                           const Conv2dOptions&, const Shape&);                        \
    SD_TEST_KERNELS template Moments<T> batch_moments<T>(const Tensor<T>&);                                            \
    SD_TEST_KERNELS template BatchNormSums<T> batch_norm_sums<T>(const Tensor<T>&, const BatchNormPass<T>&);           \
    SD_TEST_KERNELS template Tensor<T> residual_join_forward<T>(const Pending<T>&, const Pending<T>&, BranchSamples,   \
                                                                const T&, bool, join_output_t<T>*);                    \
    SD_TEST_KERNELS template ResidualJoinGradient<T> residual_join_backward<T>(                                        \
        const Tensor<T>&, const Tensor<T>&, BranchSamples, Index, const T&, bool, const BatchNormPass<T>*,             \
        BatchNormSums<T>*);                                                                                            \
    SD_TEST_KERNELS template Tensor<T> gather_samples<T>(const Tensor<T>&, std::span<const Index>);                    \
    SD_TEST_KERNELS template Tensor<T> add_selected<T>(const Tensor<T>&, const Tensor<T>&, BranchSamples);             \
    SD_TEST_KERNELS template Tensor<T> linear_forward<T>(const Tensor<T>&, const Tensor<T>&, const Tensor<T>&);        \
    SD_TEST_KERNELS template Tensor<T> linear_by_input<T>(const Tensor<T>&, const Tensor<T>&);                         \
    SD_TEST_KERNELS template Tensor<T> linear_by_weight<T>(const Tensor<T>&, const Tensor<T>&);                        \
    SD_TEST_KERNELS template Tensor<T> linear_by_bias<T>(const Tensor<T>&);                                            \
    SD_TEST_KERNELS template Tensor<T> max_pool2d_forward<T>(const Pending<T>&, const Pool2dOptions&);                 \
    SD_TEST_KERNELS template Tensor<T> max_pool2d_by_input<T>(const Tensor<T>&, const Pending<T>&,                     \
                                                              const Pool2dOptions&);                                   \
    SD_TEST_KERNELS template Tensor<T> avg_pool2d_forward<T>(const Tensor<T>&, const Pool2dOptions&);                  \
    SD_TEST_KERNELS template Tensor<T> avg_pool2d_by_input<T>(const Tensor<T>&, const Pool2dOptions&, const Shape&);   \
    SD_TEST_KERNELS template Tensor<T> global_avg_pool_forward<T>(const Pending<T>&);                                  \
    SD_TEST_KERNELS template GateSums<T> gate_sums<T>(const Tensor<T>&, const Pending<T>&, const BatchNormPass<T>*);   \
    SD_TEST_KERNELS template BatchNormSums<T> batch_norm_sums<T>(const GateSums<T>&, const GateGradient<T>&,           \
                                                                 const Tensor<T>&);                                    \
    SD_TEST_KERNELS template Tensor<T> global_avg_pool_by_input<T>(const Tensor<T>&, const Shape&)

SD_NAMESPACE_BEGIN
SD_TEST_KERNELS_OF(float);
SD_TEST_KERNELS_OF(double);
SD_NAMESPACE_END
