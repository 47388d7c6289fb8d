// The kernels of bfloat16.
#include "kernels.hpp"

SD_NAMESPACE_BEGIN
SD_COMPILED_KERNELS(, bfloat16, float);
SD_NAMESPACE_END
