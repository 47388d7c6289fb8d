// Names under which surgery finds the residual branches of a network: the library's own and those that users register.
#pragma once

#include "sd/core/type_name.hpp"
#include "sd/stochastic_depth/options.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

SD_NAMESPACE_BEGIN

namespace detail {

/// Names of branch types, for the whole program.
class BranchNames {
public:
    static BranchNames& instance() {
        static BranchNames names;
        return names;
    }

    void add(TypeId type, const std::string& name) {
        const std::lock_guard lock(mutex_);
        for (const Entry& entry : entries_) {
            if (entry.type != type) continue;
            if (entry.name == name) return;
            refuse("register_branch", "name of a type that has one", text('"', name, '"'), text('"', entry.name, '"'));
        }
        auto place = entries_.begin();
        while (place != entries_.end() && place->name < name) ++place;
        entries_.insert(place, {type, name});
    }
    [[nodiscard]] std::string name_of(TypeId type) const {
        const std::lock_guard lock(mutex_);
        for (const Entry& entry : entries_) {
            if (entry.type == type) return entry.name;
        }
        return {};
    }
    [[nodiscard]] bool has(const std::string& name) const {
        const std::lock_guard lock(mutex_);
        for (const Entry& entry : entries_) {
            if (entry.name == name) return true;
        }
        return false;
    }
    /// "A, B, C" of the registered names, each once.
    [[nodiscard]] std::string list() const {
        const std::lock_guard lock(mutex_);
        std::string all;
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            if (i == 0 || entries_[i].name != entries_[i - 1].name) all += text(", ", entries_[i].name);
        }
        return all;
    }

private:
    struct Entry {
        TypeId type;
        std::string name;
    };
    mutable std::mutex mutex_;
    std::vector<Entry> entries_;  // sorted by name
};

}  // namespace detail

/// Makes blocks of a user's branch type known to apply_stochastic_depth under a name:
///
///     sd::register_branch<MyBranch<float>>("MyBlock");
///
/// Types of one template may share a name. A branch with a static member `layer_name`, or a member function
/// `branch_name()`, needs no registration in models that hold it. Throws std::invalid_argument for a name that is empty
/// or has a space, or if the type has another name.
template <class Branch>
void register_branch(const std::string& name) {
    detail::expect_name("register_branch", "name", name);
    if constexpr (requires { Branch::layer_name; }) {
        if (name != Branch::layer_name) {
            refuse("register_branch", "name", text('"', name, '"'),
                   text("the type's layer_name, ", Branch::layer_name));
        }
    }
    detail::BranchNames::instance().add(detail::type_id<Branch>(), name);
}

/// The name of a branch type: its layer_name, or the one it was registered under; empty if it has none.
template <class Branch>
[[nodiscard]] std::string branch_name() {
    if constexpr (requires { Branch::layer_name; }) {
        return std::string(Branch::layer_name);
    } else {
        return detail::BranchNames::instance().name_of(detail::type_id<Branch>());
    }
}

/// The name of a branch: what its member branch_name() says, for a type of branches of several names, or that of its type.
template <class Branch>
[[nodiscard]] std::string branch_name(const Branch& branch) {
    if constexpr (requires { branch.branch_name(); }) {
        return std::string(branch.branch_name());
    } else {
        return branch_name<Branch>();
    }
}

namespace detail {

/// The names of the library's branches.
inline constexpr std::array<std::string_view, 6> library_branches{"ResNetBottleneck",   "ResNetBasicBlock",
                                                                  "EfficientNetMBConv", "EfficientNetFusedMBConv",
                                                                  "ConvNeXtBlock",      "RegNetBlock"};

/// Whether a name is the library's or registered, whether or not the model at hand has such a block.
[[nodiscard]] inline bool is_branch_name(const std::string& name) {
    return std::find(library_branches.begin(), library_branches.end(), name) != library_branches.end() ||
           BranchNames::instance().has(name);
}

/// The names that is_branch_name knows, for messages.
[[nodiscard]] inline std::string branch_names() {
    std::string all;
    for (const std::string_view name : library_branches) all += text(all.empty() ? "" : ", ", name);
    return all + BranchNames::instance().list();
}

}  // namespace detail

SD_NAMESPACE_END
