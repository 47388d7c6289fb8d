// Weights as others write them, made the tensors that a model has: other names, types of number and folded factors.
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/io/element_conversion.hpp"
#include "sd/io/safetensors.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of load_weights.
struct LoadOptions {
    /// Tensors whose names start with one of these, such as "fc.", are not read: the model keeps its own.
    std::vector<std::string> skip = {};
};

/// What load_weights did other than to copy.
struct LoadReport {
    Index loaded = 0;                             ///< tensors that came from the file
    std::vector<std::string> skipped = {};        ///< tensors of the model that LoadOptions::skip left alone
    std::vector<std::string> prefixes = {};       ///< dropped from names, such as "module."
    std::map<std::string, Index> converted = {};  ///< tensors converted, by the type in the file, such as "F16"
    std::vector<std::string> counts_filled = {};  ///< num_batches_tracked that the file lacks, now 0
    std::map<std::string, double> folded = {};    ///< factors that the file's tensors hold, see save_weights
    std::map<std::string, double> divided = {};   ///< factors of the model that tensors were divided by
    std::vector<std::string> lost = {};           ///< tensors that a factor of 0 has made 0

    /// A line for each thing done, the number of tensors first.
    friend std::ostream& operator<<(std::ostream& stream, const LoadReport& report) {
        stream << report.loaded << " tensors loaded\n";
        for (const std::string& prefix : report.prefixes) stream << "names: \"" << prefix << "\" dropped\n";
        for (const auto& [dtype, count] : report.converted)
            stream << count << " tensors converted from " << dtype << '\n';
        if (!report.counts_filled.empty()) {
            stream << report.counts_filled.size() << " missing num_batches_tracked set to 0\n";
        }
        if (!report.skipped.empty()) stream << report.skipped.size() << " tensors skipped: the model's own stay\n";
        if (!report.folded.empty()) {
            stream << "stochastic depth: the file has its factors of evaluation folded into " << report.folded.size()
                   << " tensors";
            if (!report.divided.empty()) stream << "; divided by the model's own in " << report.divided.size();
            stream << '\n';
        }
        return stream;
    }
};

namespace detail {

inline constexpr std::string_view folding_key = "stochastic_depth";
inline constexpr std::string_view folding_value = "folded";
inline constexpr std::string_view factor_prefix = "stochastic_depth.factor.";

inline constexpr std::string_view count_name = "num_batches_tracked";

/// Whether a tensor is a batch norm's count of batches.
inline bool is_batch_count(const std::string& name, const SafeTensorEntry& entry) {
    return entry.dtype == Dtype::i64 && entry.shape.empty() &&
           (name == count_name || name.ends_with("." + std::string(count_name)));
}

/// A name of PyTorch without the parts that its wrappers add, in any order and number: `_orig_mod` (torch.compile)
/// anywhere, `module` (DataParallel, AveragedModel) before all else, or `everywhere`. `dropped` collects them.
inline std::string unwrapped_name(const std::string& name, bool everywhere, std::vector<std::string>& dropped) {
    std::string result;
    for (std::size_t begin = 0; begin <= name.size();) {
        const std::size_t end = std::min(name.find('.', begin), name.size());
        const std::string part = name.substr(begin, end - begin);
        const bool is_last = end == name.size();
        if (!is_last && (part == "_orig_mod" || (part == "module" && (everywhere || result.empty())))) {
            if (std::find(dropped.begin(), dropped.end(), part + '.') == dropped.end()) dropped.push_back(part + '.');
        } else {
            result += is_last ? part : part + '.';
        }
        begin = end + 1;
    }
    return result;
}

/// Makes the tensors of a file those that a model has, `own`. What does not fit stays as it is, for
/// load_state_dict() to refuse.
class WeightAdapter {
public:
    WeightAdapter(const SafeTensors& own, const SafeTensors& file, const LoadOptions& options)
        : own_(own), file_(file), options_(options) {}

    /// `divisors`: factors of the model that tensors of a folded file are divided by, by name.
    SafeTensors adapt(const std::map<std::string, double>& divisors) {
        unwrap_names();
        check_skip();
        if (is_folded()) read_factors();
        SafeTensors adapted(file_.source());
        for (const std::string& name : own_.names()) add(adapted, name, divisors);
        for (const auto& [name, place] : names_) {
            if (!adapted.contains(name) && !skips(name)) adapted.add(name, file_.entry(place));
        }
        return adapted;
    }

    /// Whether the file was written with factors of stochastic depth folded in.
    [[nodiscard]] bool is_folded() const { return file_.metadata().contains(std::string(folding_key)); }

    [[nodiscard]] LoadReport& report() { return report_; }

private:
    void unwrap_names() {
        for (const std::string& name : file_.names()) {
            const std::string unwrapped = own_name(name);
            if (!names_.emplace(unwrapped, name).second) {
                refuse_file(file_.source(), text("tensor ", in_quotes(unwrapped)),
                            text(in_quotes(names_.at(unwrapped)), " and ", in_quotes(name)), "one of the two");
            }
        }
        // AveragedModel's count of updates, beside the weights of its `module`.
        if (!report_.prefixes.empty() && !own_.contains("n_averaged")) names_.erase("n_averaged");
    }

    /// What the model calls the tensor.
    std::string own_name(const std::string& name) {
        if (own_.contains(name)) return name;
        std::vector<std::string> dropped;
        const std::string bare = unwrapped_name(name, true, dropped);
        return unwrapped_name(name, own_.contains(bare), report_.prefixes);
    }

    void check_skip() const {
        for (const std::string& prefix : options_.skip) {
            const auto matches = [&](const std::string& name) { return !prefix.empty() && name.starts_with(prefix); };
            const bool in_model = std::any_of(own_.names().begin(), own_.names().end(), matches);
            const bool in_file =
                std::any_of(names_.begin(), names_.end(), [&](const auto& n) { return matches(n.first); });
            if (!in_model && !in_file) {
                refuse("load_weights", "skip", in_quotes(prefix), "the start of the name of a tensor, such as \"fc.\"");
            }
        }
    }

    [[nodiscard]] bool skips(const std::string& name) const {
        return std::any_of(options_.skip.begin(), options_.skip.end(),
                           [&](const std::string& prefix) { return name.starts_with(prefix); });
    }

    void read_factors() {
        const std::string& form = file_.metadata().at(std::string(folding_key));
        if (form != folding_value) {
            refuse_file(file_.source(), text("metadata ", in_quotes(std::string(folding_key))), in_quotes(form),
                        in_quotes(std::string(folding_value)));
        }
        for (const auto& [key, value] : file_.metadata()) {
            if (!key.starts_with(factor_prefix)) continue;
            const std::string name = key.substr(factor_prefix.size());
            const auto factor = parse_finite(value);
            if (!factor || *factor < 0 || *factor > 1 || !names_.contains(name)) {
                refuse_file(file_.source(), text("metadata ", in_quotes(key)), in_quotes(value),
                            "a factor of 0 to 1 of one of the tensors");
            }
            if (skips(name)) continue;
            report_.folded.emplace(name, *factor);
            if (*factor == 0) report_.lost.push_back(name);
        }
    }

    void add(SafeTensors& adapted, const std::string& name, const std::map<std::string, double>& divisors) {
        const SafeTensorEntry& own = own_.entry(name);
        const auto found = names_.find(name);
        if (skips(name)) {
            report_.skipped.push_back(name);
            adapted.add(name, own);
            return;
        }
        if (found == names_.end()) {
            if (!is_batch_count(name, own)) return;
            report_.counts_filled.push_back(name);
            adapted.add(name, SafeTensorEntry{Dtype::i64, {}, std::vector<std::byte>(sizeof(std::int64_t))});
            return;
        }
        ++report_.loaded;
        const SafeTensorEntry& stored = file_.entry(found->second);
        const auto divisor = divisors.find(name);
        const bool divides = divisor != divisors.end();
        if (stored.shape != own.shape || (stored.dtype == own.dtype && !divides)) {
            adapted.add(name, stored);
        } else if (is_floating(own.dtype) && is_floating(stored.dtype)) {
            if (stored.dtype != own.dtype) ++report_.converted[std::string(dtype_name(stored.dtype))];
            if (divides) report_.divided.emplace(name, divisor->second);
            adapted.add(name, scaled_as(own.dtype, stored, 1, divides ? divisor->second : 1, file_.source(), name));
        } else if (is_batch_count(name, own)) {
            adapted.add(name, as_count(stored));
        } else {
            adapted.add(name, stored);
        }
    }

    /// A count that was stored as another type, if it is a whole number.
    SafeTensorEntry as_count(const SafeTensorEntry& stored) {
        constexpr double largest = 9007199254740992.0;  // 2^53
        const auto number = number_at(stored, 0);
        if (!number || !(*number >= 0 && *number <= largest) || *number != std::floor(*number)) return stored;
        ++report_.converted[std::string(dtype_name(stored.dtype))];
        const auto count = static_cast<std::int64_t>(*number);
        SafeTensorEntry result{Dtype::i64, {}, std::vector<std::byte>(sizeof count)};
        std::memcpy(result.bytes.data(), &count, sizeof count);
        return result;
    }

    const SafeTensors& own_;
    const SafeTensors& file_;
    const LoadOptions& options_;
    std::map<std::string, std::string> names_;  ///< of the file's tensors, by the name without wrappers
    LoadReport report_;
};

}  // namespace detail

SD_NAMESPACE_END
