// The benchmarks, a file a subject. Registering one allocates nothing: operands are made when it runs. A T is what
// tensors are stored in, float or bfloat16; the names of the latter begin as `conv2d_bf16/`.
#pragma once

#include "workload.hpp"

#include <vector>

namespace bench {

/// `fma_peak` and `copy`: the two ceilings of every kernel.
void register_machine();
/// `tile_peak`: the ceiling of products of bfloat16, if the processor has a machine for them.
void register_tile_peak();
/// `conv2d/{forward,by_input,by_weight}/<HxCixCoxKxS>`.
template <class T>
void register_conv2d();
/// `depthwise/{forward,by_input,by_weight}/<HxCxKxS>`.
void register_depthwise();
/// `residual_join/{forward,backward}/<NxHxWxC>`.
void register_residual_join();

/// `train_step/<model>/<method>/batch:N/size:S`.
template <class T>
std::vector<NamedWorkload> train_steps();
/// `block_step/{bottleneck,composed}/<NxHxWxC>`.
std::vector<NamedWorkload> block_steps();
/// `eval/<model>/batch:N/size:S`.
template <class T>
std::vector<NamedWorkload> evals();

}  // namespace bench
