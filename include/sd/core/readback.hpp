// Numbers on their way from a device to the CPU.
#pragma once

#include "sd/core/tensor.hpp"

#include <span>
#include <utility>

SD_NAMESPACE_BEGIN

/// A copy of a device's tensor in the CPU's memory, started when it is made, in the order of everything else that
/// was started on the device; get() waits for it. Movable; it may go before the copy is finished. Every device has its
/// own.
template <class T, class Device>
class Readback;

/// The CPU's numbers are where they are needed.
template <class T>
class Readback<T, Cpu> {
public:
    /// Of these numbers.
    explicit Readback(Tensor<T> numbers) : numbers_(std::move(numbers)) {}
    /// The numbers, valid as long as this is.
    [[nodiscard]] std::span<const T> get() { return {numbers_.data(), static_cast<std::size_t>(numbers_.size())}; }

private:
    Tensor<T> numbers_;
};

SD_NAMESPACE_END
