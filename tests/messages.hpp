// What errors and warnings say.
#pragma once

#include "sd/core/warning.hpp"

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace sd_test {

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// The message of the error that the call throws, or "accepted".
template <class Error, class Call>
std::string error_of(const Call& call) {
    try {
        call();
    } catch (const Error& error) {
        return error.what();
    }
    return "accepted";
}

/// The message with which the call refuses its arguments, or "accepted".
template <class Call>
std::string message_of(const Call& call) {
    return error_of<std::invalid_argument>(call);
}

/// Keeps warnings, as long as it lives, instead of printing them.
struct Warnings {
    std::vector<std::string> messages;

    Warnings() = default;
    Warnings(const Warnings&) = delete;
    Warnings& operator=(const Warnings&) = delete;
    ~Warnings() { sd::set_warning_handler(std::move(before_)); }

private:
    sd::WarningHandler before_ =
        sd::set_warning_handler([this](const std::string& message) { messages.push_back(message); });
};

}  // namespace sd_test
