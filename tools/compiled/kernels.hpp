// The fast kernels, compiled once for all of our own programs instead of once in each. Comes first in their units, by a
// flag; the units of this folder compile them.
#pragma once

#include "sd/sd.hpp"

#define SD_COMPILED_CONVOLUTIONS(linkage, T, A)                                                                        \
    linkage template Tensor<T> conv2d_forward<T>(const Pending<T>&, const Tensor<A>&, const Conv2dOptions&,            \
                                                 Moments<A>*);                                                         \
    linkage template Tensor<T> conv2d_batch_norm_forward<T>(const Pending<T>&, const Tensor<A>&, const Conv2dOptions&, \
                                                            const Tensor<A>&, const Tensor<A>&, Activation,            \
                                                            KeptWeights*);                                             \
    linkage template Tensor<T> conv2d_join_forward<T>(const Pending<T>&, const Tensor<A>&, const Conv2dOptions&,       \
                                                      const Tensor<A>&, const Tensor<A>&, const ResidualJoin<T>&,      \
                                                      KeptWeights*);                                                   \
    linkage template Tensor<T> conv2d_by_input<T>(const PendingGradient<T>&, const Tensor<A>&, const Conv2dOptions&,   \
                                                  const Shape&, const BatchNormPass<T>*, BatchNormSums<A>*);           \
    linkage template Tensor<T> conv2d_join_by_input<T>(const PendingGradient<T>&, const Tensor<A>&,                    \
                                                       const Conv2dOptions&, const Tensor<T>&);                        \
    linkage template Tensor<A> conv2d_by_weight<T>(const Pending<T>&, const PendingGradient<T>&, const Conv2dOptions&, \
                                                   const Shape&);                                                      \
    linkage template Tensor<T> linear_forward<T>(const Tensor<T>&, const Tensor<A>&, const Tensor<A>&, KeptWeights*);  \
    linkage template Tensor<T> linear_by_input<T>(const Tensor<T>&, const Tensor<A>&);                                 \
    linkage template Tensor<A> linear_by_weight<T>(const Tensor<T>&, const Tensor<T>&);                                \
    linkage template Tensor<A> linear_by_bias<T>(const Tensor<T>&)

// Of tensors that pass between layers.
#define SD_COMPILED_PASSES(linkage, T, A)                                                                              \
    linkage template Tensor<T> materialize<T>(const Pending<T>&);                                                      \
    linkage template Tensor<T> materialize<T>(const PendingGradient<T>&);                                              \
    linkage template Tensor<T> activation_forward<T>(const Tensor<T>&, Activation);                                    \
    linkage template Tensor<T> activation_by_input<T>(const Tensor<T>&, const Tensor<T>&, Activation);                 \
    linkage template Moments<A> batch_moments<T>(const Tensor<T>&);                                                    \
    linkage template BatchNormSums<A> batch_norm_sums<T>(const Tensor<T>&, const BatchNormPass<T>&);                   \
    linkage template Tensor<T> layer_norm_forward<T>(const Tensor<T>&, const Tensor<A>&, const Tensor<A>&, double,     \
                                                     LayerNormStatistics<A>*);                                         \
    linkage template LayerNormGradient<T> layer_norm_backward<T>(const Tensor<T>&, const Tensor<T>&, const Tensor<A>&, \
                                                                 const LayerNormStatistics<A>&);                       \
    linkage template Tensor<T> residual_join_forward<T>(const Pending<T>&, const Pending<T>&, BranchSamples, const A&, \
                                                        bool, join_output_t<T>*);                                      \
    linkage template ResidualJoinGradient<T> residual_join_backward<T>(const Tensor<T>&, const Tensor<T>&,             \
                                                                       BranchSamples, Index, const A&, bool,           \
                                                                       const BatchNormPass<T>*, BatchNormSums<A>*);    \
    linkage template Tensor<T> gather_samples<T>(const Tensor<T>&, std::span<const Index>);                            \
    linkage template Tensor<T> add_selected<T>(const Tensor<T>&, const Tensor<T>&, BranchSamples);                     \
    linkage template Tensor<T> max_pool2d_forward<T>(const Pending<T>&, const Pool2dOptions&);                         \
    linkage template Tensor<T> max_pool2d_by_input<T>(const Tensor<T>&, const Pending<T>&, const Pool2dOptions&);      \
    linkage template Tensor<T> avg_pool2d_forward<T>(const Tensor<T>&, const Pool2dOptions&);                          \
    linkage template Tensor<T> avg_pool2d_by_input<T>(const Tensor<T>&, const Pool2dOptions&, const Shape&);           \
    linkage template Tensor<T> global_avg_pool_forward<T>(const Pending<T>&);                                          \
    linkage template Tensor<T> global_avg_pool_by_input<T>(const Tensor<T>&, const Shape&);                            \
    linkage template GateSums<T> gate_sums<T>(const Tensor<T>&, const Pending<T>&, const BatchNormPass<T>*);           \
    linkage template BatchNormSums<A> batch_norm_sums<T>(const GateSums<T>&, const GateGradient<T>&,                   \
                                                         const Tensor<A>&);                                            \
    linkage template Tensor<T> mix_samples<T>(const Tensor<T>&, std::span<const Index>, double);                       \
    linkage template Tensor<T> paste_samples<T>(const Tensor<T>&, std::span<const Index>, const ImageBox&)

#define SD_COMPILED_UPDATE(linkage, Rule, A) \
    linkage template void update_parameters<Rule::Update<A>, A>(std::span<ParameterUpdate<Rule::Update<A>, A>>)

// Of parameters and their gradients.
#define SD_COMPILED_UPDATES(linkage, A)                                                               \
    linkage template void add_to<A>(Tensor<A>&, const Tensor<A>&);                                    \
    linkage template void scale_by<A>(Tensor<A>&, const A&);                                          \
    linkage template void move_towards<A>(Tensor<A>&, const Tensor<A>&, const A&);                    \
    linkage template void copy_elements<A>(const Tensor<A>&, Index, Index, Tensor<A>&, Index);        \
    linkage template Tensor<A> normal_values<A>(const Shape&, std::uint64_t, std::uint32_t, double);  \
    linkage template Tensor<A> uniform_values<A>(const Shape&, std::uint64_t, std::uint32_t, double); \
    linkage template Tensor<double> clip_norm<A>(std::span<Tensor<A>>, double);                       \
    SD_COMPILED_UPDATE(linkage, SgdRule, A);                                                          \
    SD_COMPILED_UPDATE(linkage, AdamWRule, A);                                                        \
    SD_COMPILED_UPDATE(linkage, RmspropRule, A);                                                      \
    SD_COMPILED_UPDATE(linkage, RmspropTfRule, A)

// The loops that tests hold convolutions against.
#define SD_COMPILED_REFERENCE(linkage, A)                                                                              \
    linkage template Tensor<A> reference::conv2d_forward<A>(const Pending<A>&, const Tensor<A>&, const Conv2dOptions&, \
                                                            Moments<A>*);                                              \
    linkage template Tensor<A> reference::conv2d_by_input<A>(const PendingGradient<A>&, const Tensor<A>&,              \
                                                             const Conv2dOptions&, const Shape&,                       \
                                                             const BatchNormPass<A>*, BatchNormSums<A>*);              \
    linkage template Tensor<A> reference::conv2d_by_weight<A>(const Pending<A>&, const PendingGradient<A>&,            \
                                                              const Conv2dOptions&, const Shape&)

// All, of elements of type T with parameters, statistics and sums of A.
#define SD_COMPILED_KERNELS(linkage, T, A)   \
    SD_COMPILED_CONVOLUTIONS(linkage, T, A); \
    SD_COMPILED_PASSES(linkage, T, A)

SD_NAMESPACE_BEGIN
SD_COMPILED_KERNELS(extern, float, float);
SD_COMPILED_KERNELS(extern, double, double);
SD_COMPILED_KERNELS(extern, bfloat16, float);
SD_COMPILED_UPDATES(extern, float);
SD_COMPILED_UPDATES(extern, double);
SD_COMPILED_REFERENCE(extern, float);
SD_COMPILED_REFERENCE(extern, double);
SD_NAMESPACE_END
