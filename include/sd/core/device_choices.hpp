// What a device decides by itself in the course of a run, and must decide alike after a resume.
#pragma once

#include "sd/core/config.hpp"

#include <string>

SD_NAMESPACE_BEGIN

/// What a device has chosen in this process so far, such as a library's way to run a convolution, in the form of a text
/// that a checkpoint keeps. The CPU chooses nothing; a device that does has its own.
template <class Device>
struct DeviceChoices {
    static constexpr bool are_made = false;  ///< whether there is anything to keep

    /// Those made so far.
    [[nodiscard]] static DeviceChoices so_far() { return {}; }
    /// From the text of a checkpoint, which `source` names in errors. Throws std::runtime_error for any other text.
    [[nodiscard]] static DeviceChoices parse(const std::string& /*text*/, const std::string& /*source*/) { return {}; }
    /// The text of a checkpoint.
    [[nodiscard]] std::string text() const { return {}; }
    /// Chooses so from now on, wherever the choice has not been made yet; warns if it cannot be made.
    void use() const {}
};

SD_NAMESPACE_END
