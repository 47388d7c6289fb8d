// What takes the place of a user's type that a static_assert has refused, so that its words are all that compilers say.
#pragma once

#include "sd/nn/identity_shortcut.hpp"

#include <concepts>
#include <type_traits>

SD_NAMESPACE_BEGIN

namespace detail {

/// A harmless type that is made of anything.
template <class Harmless>
struct StandIn : Harmless {
    StandIn() = default;
    template <class Given>
    requires(!std::derived_from<std::remove_cvref_t<Given>, StandIn>)  //
        StandIn(Given&&) {}                                            // NOLINT(google-explicit-constructor)
};

/// The type, or a harmless one if it is refused.
template <bool is_right, class Given, class Harmless>
using or_stand_in_t = std::conditional_t<is_right, Given, StandIn<Harmless>>;

template <class Given>
constexpr auto layer_or_stand_in() {
    if constexpr (requires { typename layer_tensor_t<Given>; }) {
        using Harmless = IdentityShortcut<layer_value_t<Given>, layer_device_t<Given>>;
        return std::type_identity<or_stand_in_t<Layer<Given>, Given, Harmless>>();
    } else {
        return std::type_identity<StandIn<IdentityShortcut<float>>>();
    }
}
/// The layer, or a harmless one of its scalar type and device if it is none.
template <class Given>
using layer_or_stand_in_t = typename decltype(layer_or_stand_in<Given>())::type;

}  // namespace detail

SD_NAMESPACE_END
