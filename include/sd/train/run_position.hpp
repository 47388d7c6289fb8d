// Where a run stands, as texts of a checkpoint, and back.
#pragma once

#include "sd/core/number_text.hpp"
#include "sd/io/checkpoint.hpp"
#include "sd/train/score.hpp"
#include "sd/core/timestamp.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <system_error>

SD_NAMESPACE_BEGIN

namespace detail {

// The evaluation of the timestamp, where a stop came before its end.
inline constexpr const char* evaluation_key = "evaluation";
inline constexpr const char* pending_evaluation = "pending";

/// The texts.
inline std::map<std::string, std::string> run_texts(const Timestamp& timestamp, const Score& epoch_score,
                                                    bool evaluation_is_pending) {
    std::map<std::string, std::string> texts{{"epoch", text(timestamp.epoch)},
                                             {"batch", text(timestamp.batch)},
                                             {"sample", text(timestamp.sample)},
                                             {"batch_in_epoch", text(timestamp.batch_in_epoch)},
                                             {"sample_in_epoch", text(timestamp.sample_in_epoch)},
                                             {"epoch_score.loss_sum", number_text(epoch_score.loss_sum)},
                                             {"epoch_score.correct", text(epoch_score.correct)},
                                             {"epoch_score.correct_in_top5", text(epoch_score.correct_in_top5)},
                                             {"epoch_score.samples", text(epoch_score.samples)}};
    if (evaluation_is_pending) texts[evaluation_key] = pending_evaluation;
    return texts;
}

/// Reads the numbers of a checkpoint's `run`.
class RunReader {
public:
    explicit RunReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

    [[nodiscard]] std::uint64_t count(const std::string& key) const {
        const std::string& value = text_of(key);
        std::uint64_t number = 0;
        const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
        if (error != std::errc() || end != value.data() + value.size() || number >= count_limit) {
            refuse_run(key, in_quotes(value), text("a whole number below ", count_limit));
        }
        return number;
    }
    [[nodiscard]] double number(const std::string& key) const {
        const std::optional<double> number = parse_finite(text_of(key));
        if (!number) refuse_run(key, in_quotes(text_of(key)), "a finite number");
        return *number;
    }

private:
    [[nodiscard]] const std::string& text_of(const std::string& key) const {
        const auto found = checkpoint_.run.find(key);
        if (found == checkpoint_.run.end()) refuse_run(key, "none", "a number");
        return found->second;
    }
    [[noreturn]] void refuse_run(const std::string& key, const std::string& got, const std::string& expected) const {
        refuse_file(checkpoint_.model.source(), "run." + key, got, expected);
    }

    const Checkpoint& checkpoint_;
};

inline Timestamp timestamp_of(const Checkpoint& checkpoint) {
    const RunReader run(checkpoint);
    return {.epoch = run.count("epoch"),
            .batch = run.count("batch"),
            .sample = run.count("sample"),
            .batch_in_epoch = run.count("batch_in_epoch"),
            .sample_in_epoch = run.count("sample_in_epoch")};
}

inline Score epoch_score_of(const Checkpoint& checkpoint) {
    const RunReader run(checkpoint);
    return {.loss_sum = run.number("epoch_score.loss_sum"),
            .correct = run.count("epoch_score.correct"),
            .correct_in_top5 = run.count("epoch_score.correct_in_top5"),
            .samples = run.count("epoch_score.samples")};
}

inline bool evaluation_is_pending(const Checkpoint& checkpoint) {
    const auto found = checkpoint.run.find(evaluation_key);
    if (found == checkpoint.run.end()) return false;
    if (found->second != pending_evaluation) {
        refuse_file(checkpoint.model.source(), text("run.", evaluation_key), in_quotes(found->second),
                    text(in_quotes(pending_evaluation), " or none"));
    }
    return true;
}

/// Refuses a timestamp that no run of that length passes.
inline void check_timestamp(const std::string& source, const Timestamp& timestamp, const RunLength& run) {
    const auto expect = [&](const char* key, std::uint64_t got, std::uint64_t expected) {
        if (got != expected) refuse_file(source, text("run.", key), got, expected);
    };
    if (timestamp.batch_in_epoch > run.batches_per_epoch) {
        refuse_file(source, "run.batch_in_epoch", timestamp.batch_in_epoch, text("0 to ", run.batches_per_epoch));
    }
    expect("batch", timestamp.batch, timestamp.epoch * run.batches_per_epoch + timestamp.batch_in_epoch);
    expect("sample_in_epoch", timestamp.sample_in_epoch,
           std::min(timestamp.batch_in_epoch * run.batch_size, run.samples_per_epoch));
    expect("sample", timestamp.sample, timestamp.epoch * run.samples_per_epoch + timestamp.sample_in_epoch);
}

}  // namespace detail

SD_NAMESPACE_END
