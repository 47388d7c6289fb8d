// The ranks that a test program on several processes runs on.
#pragma once

#include "sd/core/communicator.hpp"

namespace sd_test {

/// The communicator of all ranks, as long as tests run.
sd::Communicator& ranks();

}  // namespace sd_test
