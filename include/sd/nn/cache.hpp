// What a layer keeps from a forward pass for the backward pass.
#pragma once

#include "sd/nn/context.hpp"

#include <optional>
#include <stdexcept>
#include <utility>

SD_NAMESPACE_BEGIN

/// Handles and numbers that backward needs, of the last pass that kept gradients. A pass without gradients writes nothing
/// here, so that several threads may evaluate one model. Reading it leaves it there, so that backward can be called again.
template <class Contents>
class Cache {
public:
    /// Keeps the contents if the pass keeps gradients.
    void keep(const Context& context, Contents contents) {
        if (context.gradients()) contents_ = std::move(contents);
    }

    /// Forgets what was kept.
    void forget() { contents_.reset(); }

    /// Throws std::logic_error if no forward pass has kept anything since the last forget().
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
