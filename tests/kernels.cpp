// The kernels that kernels.hpp declares.
#define SD_TEST_KERNELS
#include "kernels.hpp"
