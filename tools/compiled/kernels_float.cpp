// The kernels of float.
#include "kernels.hpp"

SD_NAMESPACE_BEGIN
SD_COMPILED_KERNELS(, float, float);
SD_COMPILED_UPDATES(, float);
SD_COMPILED_REFERENCE(, float);
SD_NAMESPACE_END
