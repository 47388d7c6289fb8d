// The kernels of double.
#include "kernels.hpp"

SD_NAMESPACE_BEGIN
SD_COMPILED_KERNELS(, double, double);
SD_COMPILED_UPDATES(, double);
SD_COMPILED_REFERENCE(, double);
SD_NAMESPACE_END
