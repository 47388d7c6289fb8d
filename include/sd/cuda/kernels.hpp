// All that a device runs, for any accelerator; no CUDA is needed to compile it.
#pragma once

#include "sd/cuda/batch_norm.hpp"
#include "sd/cuda/channels.hpp"
#include "sd/cuda/conv2d.hpp"
#include "sd/cuda/cross_entropy.hpp"
#include "sd/cuda/device_loader.hpp"
#include "sd/cuda/elementwise.hpp"
#include "sd/cuda/global_pooling.hpp"
#include "sd/cuda/joint_statistics.hpp"
#include "sd/cuda/linear.hpp"
#include "sd/cuda/mixup.hpp"
#include "sd/cuda/pooling.hpp"
#include "sd/cuda/residual_join.hpp"
#include "sd/cuda/samples.hpp"
#include "sd/cuda/score.hpp"
#include "sd/cuda/sgd.hpp"
