// What a residual branch must offer.
#pragma once

#include "sd/nn/layer.hpp"

SD_NAMESPACE_BEGIN

/// A residual branch F: any layer. One that is a Sequential joins the passes over memory of the block's addition. The last
/// layer that visit() names is taken for the one that F ends in, into which save_weights() folds a factor; where that is
/// not so, visit_output(visitor) names, in the same way, the parameters that F is proportional to.
template <class Branch>
concept ResidualBranch = Layer<Branch>;

SD_NAMESPACE_END
