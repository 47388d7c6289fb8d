// Every kernel of the device, for any accelerator; no CUDA is needed to compile them.
#pragma once

#include "sd/cuda/batch_norm.hpp"
#include "sd/cuda/channels.hpp"
#include "sd/cuda/conv2d.hpp"
#include "sd/cuda/cross_entropy.hpp"
#include "sd/cuda/elementwise.hpp"
#include "sd/cuda/linear.hpp"
#include "sd/cuda/pooling.hpp"
#include "sd/cuda/residual_join.hpp"
#include "sd/cuda/sgd.hpp"
