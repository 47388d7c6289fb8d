// Images with more or fewer channels: a copy, for which the plain loops are as fast as any.
#pragma once

#include "sd/reference/channels.hpp"

SD_NAMESPACE_BEGIN

using reference::with_channels;

SD_NAMESPACE_END
