// The networks of bfloat16.
#include "networks.hpp"

SD_COMPILED_NETWORKS(, sd::bfloat16);
