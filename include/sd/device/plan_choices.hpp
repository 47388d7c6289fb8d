// How convolutions are run, as a text: what a checkpoint keeps, so that a resumed run takes the same engines.
//
//     cuDNN 91002 on NVIDIA H100 80GB HBM3
//     0 5 256 56 56 64 56 56 64 3 3 64 1 1 1 1: 58 2=10 13=4
//     2 1 ...                                 : direct
//
// The first line is the library's, since its numbers mean nothing to another one. Then comes a plan a line: its key,
// the engine, the types and values of the engine's knobs; or that the library has none.
#pragma once

#include "sd/core/error.hpp"
#include "sd/device/plan_key.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

/// One of a library's ways to run a convolution.
struct EngineChoice {
    /// A setting of the engine: its type and its value.
    using Knob = std::pair<std::int64_t, std::int64_t>;

    std::int64_t engine = 0;
    std::vector<Knob> knobs = {};
    friend bool operator==(const EngineChoice&, const EngineChoice&) = default;
};

/// How each convolution is run; nothing where the library has no plan.
struct PlanChoices {
    std::string library;  ///< whose engines these are, on which device; one line
    std::map<PlanKey, std::optional<EngineChoice>> plans = {};
    friend bool operator==(const PlanChoices&, const PlanChoices&) = default;
};

/// The text above.
[[nodiscard]] inline std::string to_string(const PlanChoices& choices) {
    std::string result = choices.library + '\n';
    for (const auto& [key, choice] : choices.plans) {
        for (std::size_t i = 0; i < key.size(); ++i) result += text(i == 0 ? "" : " ", key[i]);
        result += choice ? text(": ", choice->engine) : ": direct";
        if (choice) {
            for (const auto& [type, value] : choice->knobs) result += text(' ', type, '=', value);
        }
        result += '\n';
    }
    return result;
}

/// Reads the numbers of one line.
class PlanLineReader {
public:
    PlanLineReader(std::string_view line, std::string where) : line_(line), rest_(line), where_(std::move(where)) {}

    /// Takes the word if it comes next.
    [[nodiscard]] bool takes(std::string_view word) {
        if (!rest_.starts_with(word)) return false;
        rest_.remove_prefix(word.size());
        return true;
    }
    void expect(std::string_view word) {
        if (!takes(word)) fail();
    }
    [[nodiscard]] std::int64_t number() {
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
        if (error != std::errc()) fail();
        rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
        return value;
    }
    [[nodiscard]] bool at_end() const { return rest_.empty(); }
    [[noreturn]] void fail() const {
        throw std::runtime_error(text(where_, ": got \"", line_, "\", expected a key of ", PlanKey().size(),
                                      " numbers, a colon, and an engine with its knobs or direct"));
    }

private:
    std::string_view line_, rest_;
    std::string where_;
};

/// The choices in a text; `source` names it in errors. Throws std::runtime_error for a text of another form.
[[nodiscard]] inline PlanChoices parse_plan_choices(std::string_view all, const std::string& source) {
    PlanChoices choices;
    std::size_t number = 0;
    while (!all.empty()) {
        const std::string_view line = all.substr(0, all.find('\n'));
        all.remove_prefix(std::min(line.size() + 1, all.size()));
        if (++number == 1) {
            choices.library = line;
            continue;
        }
        PlanLineReader reader(line, text(source, ": plans, line ", number));
        PlanKey key{};
        for (std::size_t i = 0; i < key.size(); ++i) {
            if (i > 0) reader.expect(" ");
            key[i] = static_cast<Index>(reader.number());
        }
        reader.expect(": ");
        std::optional<EngineChoice> choice;
        if (!reader.takes("direct")) {
            choice.emplace(EngineChoice{reader.number()});
            while (reader.takes(" ")) {
                const std::int64_t type = reader.number();
                reader.expect("=");
                choice->knobs.emplace_back(type, reader.number());
            }
        }
        if (!reader.at_end() || !choices.plans.emplace(key, std::move(choice)).second) reader.fail();
    }
    if (number == 0) throw std::runtime_error(text(source, ": plans: got nothing, expected the library's name first"));
    return choices;
}

}  // namespace cuda

SD_NAMESPACE_END
