// What hooks.cpp tells checks.cpp.
#pragma once

#include <cstddef>

namespace sd_test::checks {

enum class Access { read, write };

/// Some code of this thread is about to read or write.
void check(Access access, const void* address, std::size_t bytes);
/// It uses an address that is no multiple of the alignment of `type`.
void misaligned(const char* file, unsigned line, const char* type, std::size_t alignment, const void* address);
/// It uses an element that an array has not.
void outside_array(const char* file, unsigned line, const char* type, std::ptrdiff_t index);
/// It begins an atomic operation.
void atomic();

}  // namespace sd_test::checks
