// The networks of float.
#include "networks.hpp"

SD_COMPILED_NETWORKS(, float);
