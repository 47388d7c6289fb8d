// What deflated bytes can hold (RFC 1951): the compression of gzip and of PNG.
#pragma once

#include "sd/core/shape.hpp"

SD_NAMESPACE_BEGIN

namespace detail {

/// No deflated byte stands for more bytes than this: a match of 258 bytes takes at least 2 bits.
inline constexpr Index largest_deflate_ratio = 1032;

}  // namespace detail

SD_NAMESPACE_END
