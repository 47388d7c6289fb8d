// The networks of double.
#include "networks.hpp"

SD_COMPILED_NETWORKS(, double);
