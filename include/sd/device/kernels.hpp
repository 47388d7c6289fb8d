// All that a device runs, for any accelerator; no CUDA is needed to compile it.
#pragma once

#include "sd/device/batch_norm.hpp"
#include "sd/device/channels.hpp"
#include "sd/device/clip_norm.hpp"
#include "sd/device/conv2d.hpp"
#include "sd/device/cross_entropy.hpp"
#include "sd/device/device_loader.hpp"
#include "sd/device/elementwise.hpp"
#include "sd/device/global_pooling.hpp"
#include "sd/device/joint_statistics.hpp"
#include "sd/device/linear.hpp"
#include "sd/device/mixup.hpp"
#include "sd/device/pooling.hpp"
#include "sd/device/residual_join.hpp"
#include "sd/device/samples.hpp"
#include "sd/device/score.hpp"
#include "sd/device/update_parameters.hpp"
