// What every fuzz target does: a reader either reads its bytes or refuses them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

namespace sd_test {

/// Calls read(bytes). It may throw std::runtime_error, with which files are refused; anything else ends the program.
template <class Read>
void reads_or_refuses(const std::uint8_t* data, std::size_t size, const Read& read) {
    try {
        (void)read(std::as_bytes(std::span(data, size)));
    } catch (const std::runtime_error&) {
    }
}

}  // namespace sd_test
