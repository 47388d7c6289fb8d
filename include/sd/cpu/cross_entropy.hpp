// The loss. It sees a thousandth of a network's numbers: the plain loops serve every scalar type.
#pragma once

#include "sd/reference/cross_entropy.hpp"

SD_NAMESPACE_BEGIN

using reference::cross_entropy;
using reference::cross_entropy_by_input;
using reference::cross_entropy_forward;

SD_NAMESPACE_END
