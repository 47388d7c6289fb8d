// Where a run stands, how long it is, and when an interval comes round.
#pragma once

#include "sd/core/time.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

SD_NAMESPACE_BEGIN

/// How much of a run is done.
struct Timestamp {
    std::uint64_t epoch = 0;            ///< finished epochs
    std::uint64_t batch = 0;            ///< finished batches, that is, steps of the optimizer
    std::uint64_t sample = 0;           ///< samples of finished batches
    std::uint64_t batch_in_epoch = 0;   ///< finished batches of the epoch under way
    std::uint64_t sample_in_epoch = 0;  ///< their samples

    /// One more batch is finished, of so many samples.
    void to_next_batch(std::uint64_t samples) {
        ++batch;
        ++batch_in_epoch;
        sample += samples;
        sample_in_epoch += samples;
    }
    /// The epoch under way is finished.
    void to_next_epoch() {
        ++epoch;
        batch_in_epoch = 0;
        sample_in_epoch = 0;
    }

    /// The number of finished epochs, batches or samples. Throws std::invalid_argument for a duration, which only a
    /// run's length could tell.
    [[nodiscard]] std::uint64_t count(TimeUnit unit) const {
        switch (unit) {
            case TimeUnit::epoch:
                return epoch;
            case TimeUnit::batch:
                return batch;
            case TimeUnit::sample:
                return sample;
            case TimeUnit::duration:
                break;
        }
        refuse("Timestamp::count", "unit", to_string(unit), "ep, ba or sp");
    }

    friend bool operator==(const Timestamp&, const Timestamp&) = default;
};

/// How long a run is.
struct RunLength {
    std::uint64_t batches_per_epoch = 0;  ///< 1 or more
    std::uint64_t samples_per_epoch = 0;  ///< that these batches hold
    std::uint64_t batch_size = 0;         ///< samples of every batch but perhaps an epoch's last
    std::uint64_t total_batches = 0;      ///< of the whole run

    /// Epochs of the whole run, the last one perhaps not whole.
    [[nodiscard]] std::uint64_t total_epochs() const {
        return total_batches / batches_per_epoch + (total_batches % batches_per_epoch != 0 ? 1 : 0);
    }

    friend bool operator==(const RunLength&, const RunLength&) = default;
};

namespace detail {

/// The nearest whole number if x is that but for rounding: 0.07 of 100 batches is 7 batches.
inline double snapped(double x) {
    const double nearest = std::round(x);
    return std::abs(x - nearest) <= 4 * std::numeric_limits<double>::epsilon() * nearest ? nearest : x;
}

}  // namespace detail

/// How many batches a time takes from the start of a run, as a real number:
///
///     n ep    n batches_per_epoch
///     n ba    n
///     n sp    the batches after which n samples or more are finished
///     f dur   f total_batches, not rounded
///
/// Throws std::invalid_argument for a number of batches of 2^53 or more.
[[nodiscard]] inline double batches_of(const Time& time, const RunLength& run) {
    double batches = time.value();
    if (time.unit() == TimeUnit::epoch) {
        batches *= static_cast<double>(run.batches_per_epoch);
    } else if (time.unit() == TimeUnit::sample) {
        const std::uint64_t rest = time.count() % run.samples_per_epoch;
        batches =
            static_cast<double>(time.count() / run.samples_per_epoch) * static_cast<double>(run.batches_per_epoch) +
            static_cast<double>((rest + run.batch_size - 1) / run.batch_size);
    } else if (time.unit() == TimeUnit::duration) {
        batches = detail::snapped(batches * static_cast<double>(run.total_batches));
    }
    if (batches >= static_cast<double>(count_limit)) {
        refuse("batches_of", text("batches of ", time), batches, text("fewer than ", count_limit));
    }
    return batches;
}

/// The length of a run of that duration: whole epochs, batches, or batches until at least so many samples are finished.
/// Throws std::invalid_argument for a duration of 0 or in `dur`, an epoch or a batch of nothing, or 2^53 batches.
[[nodiscard]] inline RunLength run_length(const Time& max_duration, std::uint64_t batches_per_epoch,
                                          std::uint64_t samples_per_epoch, std::uint64_t batch_size) {
    if (max_duration.unit() == TimeUnit::duration || max_duration.value() == 0) {
        refuse("run_length", "max_duration", max_duration, "1 or more in ep, ba or sp");
    }
    if (batches_per_epoch == 0 || samples_per_epoch == 0 || batch_size == 0) {
        refuse("run_length", "an epoch",
               text(batches_per_epoch, " batches of ", batch_size, ", ", samples_per_epoch, " samples"),
               "1 or more of each");
    }
    RunLength run{batches_per_epoch, samples_per_epoch, batch_size, 0};
    run.total_batches = static_cast<std::uint64_t>(batches_of(max_duration, run));
    return run;
}

/// The fraction of the run that is done, in batches: 0 to 1.
[[nodiscard]] inline double elapsed_fraction(const Timestamp& timestamp, const RunLength& run) {
    return std::min(1.0, static_cast<double>(timestamp.batch) / static_cast<double>(run.total_batches));
}

/// True if a multiple of the interval was reached on the way from `before` to `after`: after to_next_batch() for ba, sp
/// and dur, after to_next_epoch() for ep. An interval shorter than a batch comes round at every batch.
/// Throws std::invalid_argument for an interval of 0.
[[nodiscard]] inline bool reaches_interval(const Time& interval, const Timestamp& before, const Timestamp& after,
                                           const RunLength& run) {
    if (interval.value() == 0) refuse("reaches_interval", "interval", interval, "more than 0");
    if (interval.unit() != TimeUnit::duration) {
        const TimeUnit unit = interval.unit();
        return before.count(unit) / interval.count() != after.count(unit) / interval.count();
    }
    const double batches = batches_of(interval, run);
    const auto multiples = [&](std::uint64_t batch) {
        return std::floor(detail::snapped(static_cast<double>(batch) / batches));
    };
    return multiples(before.batch) != multiples(after.batch);
}

SD_NAMESPACE_END
