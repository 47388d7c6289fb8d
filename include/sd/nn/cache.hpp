// What a layer keeps from a forward pass for the backward pass.
#pragma once

#include "sd/nn/context.hpp"

#include <optional>
#include <stdexcept>
#include <utility>

SD_NAMESPACE_BEGIN

/// Handles and numbers that backward needs; empty after a pass that kept no gradients. Reading it leaves it there, so
/// that backward can be called again.
template <class Contents>
class Cache {
public:
    /// Keeps the contents if the pass keeps gradients, else forgets what was kept.
    void keep(const Context& context, Contents contents) {
        if (context.gradients()) {
            contents_ = std::move(contents);
        } else {
            contents_.reset();
        }
    }

    /// Forgets what was kept.
    void forget() { contents_.reset(); }

    /// Throws std::logic_error if the last forward pass kept nothing.
    [[nodiscard]] const Contents& get(const char* layer) const {
        if (!contents_) {
            throw std::logic_error(text(layer,
                                        ": backward: got no forward pass that keeps gradients, expected "
                                        "Context::train or Context::eval({.gradients = true}) before it"));
        }
        return *contents_;
    }

private:
    std::optional<Contents> contents_;
};

SD_NAMESPACE_END
