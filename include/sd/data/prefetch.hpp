// Batches loaded ahead, by threads beside the one that trains. Where threads are a library of their own (glibc before
// 2.34), programs that use it are linked with -pthread, which -fopenmp brings along.
#pragma once

#include "sd/core/parallel.hpp"
#include "sd/data/loader.hpp"

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <iterator>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of a PrefetchLoader.
struct PrefetchOptions {
    Index workers = 2;  ///< threads that load, 1 to 1024
    Index ahead = 4;    ///< batches loaded or being loaded beyond the one in use, 1 to 65536
};

template <Dataset D, class T>
class PrefetchLoader;

/// The batches of one epoch in their order, once through. Workers load them ahead as long as this lives; it may go
/// before the last batch. To be used by one thread.
template <Dataset D, class T>
class PrefetchedEpoch {
public:
    /// Reads one batch after the other.
    using Iterator = EpochIterator<PrefetchedEpoch, T>;

    PrefetchedEpoch(const PrefetchedEpoch&) = delete;
    PrefetchedEpoch& operator=(const PrefetchedEpoch&) = delete;
    /// Waits for the batches that are being loaded; no other one is begun.
    ~PrefetchedEpoch() { stop(); }

    /// Waits for the first batch. To be called once.
    [[nodiscard]] Iterator begin() {
        advance();
        return Iterator(*this);
    }
    /// Past the last batch.
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

private:
    friend class PrefetchLoader<D, T>;
    friend Iterator;

    /// Starts the workers; the arguments have been checked.
    PrefetchedEpoch(const DataLoader<D, T>& loader, const PrefetchOptions& options, Index epoch, Index first)
        : loader_(loader),
          epoch_(epoch),
          slots_(static_cast<std::size_t>(std::min(options.ahead, loader.batches()))),
          begun_(first),
          taken_(first) {
        const Index workers = std::min(options.workers, static_cast<Index>(slots_.size()));
        workers_.reserve(static_cast<std::size_t>(workers));
        try {
            for (Index i = 0; i < workers; ++i) workers_.emplace_back([this] { work(); });
        } catch (...) {  // no more threads: those that run use what goes now
            stop();
            throw;
        }
    }

    /// Where a batch waits to be taken: batch i in slot i mod number of slots. Empty while it is not loaded.
    struct Slot {
        std::optional<Batch<T>> batch;
        std::exception_ptr error;  ///< instead of the batch

        [[nodiscard]] bool is_filled() const { return batch.has_value() || error != nullptr; }
    };

    [[nodiscard]] Slot& slot_of(Index batch) { return slots_[static_cast<std::size_t>(batch) % slots_.size()]; }

    /// Makes the next batch the current one, or none after the last.
    void advance() {
        current_.reset();
        if (taken_ == loader_.batches()) return;
        Slot slot;
        {
            std::unique_lock lock(mutex_);
            filled_.wait(lock, [this] { return slot_of(taken_).is_filled(); });
            slot = std::exchange(slot_of(taken_), Slot{});
            ++taken_;
        }
        emptied_.notify_one();
        if (slot.error) std::rethrow_exception(slot.error);
        current_ = std::move(slot.batch);
    }

    /// Waits for the workers, each of which loads no other batch than the one that it is at.
    void stop() {
        {
            const std::lock_guard lock(mutex_);
            stopped_ = true;
        }
        emptied_.notify_all();
        for (std::thread& worker : workers_) worker.join();
    }

    /// Loads the next batch that nobody has begun, as long as there is one and nobody says stop.
    void work() {
        const SerialScope serial;
        std::unique_lock lock(mutex_);
        while (begun_ < loader_.batches()) {
            emptied_.wait(lock, [this] { return stopped_ || begun_ - taken_ < static_cast<Index>(slots_.size()); });
            // Another worker may have taken the last one meanwhile.
            if (stopped_ || begun_ == loader_.batches()) return;
            const Index batch = begun_++;
            lock.unlock();
            Slot loaded;
            try {
                loaded.batch = loader_.load(epoch_, batch);
            } catch (...) {
                loaded.error = std::current_exception();
            }
            lock.lock();
            slot_of(batch) = std::move(loaded);
            filled_.notify_one();
        }
    }

    DataLoader<D, T> loader_;
    Index epoch_;
    std::optional<Batch<T>> current_;  // of the thread that iterates
    std::mutex mutex_;                 // of all that follows but for the workers
    std::condition_variable filled_;
    std::condition_variable emptied_;
    std::vector<Slot> slots_;
    Index begun_;           // batches that a worker has taken on, or that come before the first
    Index taken_;           // batches given out, or that come before the first
    bool stopped_ = false;  // no other batch is to be begun
    std::vector<std::thread> workers_;
};

/// Gives out the batches of a DataLoader in their order, loaded ahead of their use:
///
///     const PrefetchLoader loader(DataLoader(dataset), {.workers = 2, .ahead = 4});
///     for (const auto& batch : loader.epoch(0)) train(batch);
///
/// The batches are the DataLoader's, bit for bit, for any number of workers. Each worker loads a batch alone, without
/// the threads of parallel loops.
template <Dataset D, class T>
class PrefetchLoader {
public:
    /// Throws std::invalid_argument for options out of range.
    explicit PrefetchLoader(DataLoader<D, T> loader, const PrefetchOptions& options = {})
        : loader_(std::move(loader)), options_(options) {
        constexpr Index most_workers = 1024, most_ahead = 65536;
        if (options_.workers < 1 || options_.workers > most_workers) {
            refuse("PrefetchLoader", "workers", options_.workers, text("1 to ", most_workers));
        }
        if (options_.ahead < 1 || options_.ahead > most_ahead) {
            refuse("PrefetchLoader", "ahead", options_.ahead, text("1 to ", most_ahead));
        }
    }

    /// Where the batches come from.
    [[nodiscard]] const DataLoader<D, T>& loader() const { return loader_; }
    /// Those of that loader's settings that decide the batches.
    [[nodiscard]] SettingTexts settings() const { return loader_.settings(); }

    /// The number of batches in an epoch.
    [[nodiscard]] Index batches() const { return loader_.batches(); }
    /// The number of samples in an epoch's batches.
    [[nodiscard]] Index samples() const { return loader_.samples(); }
    /// The number of samples in every batch but perhaps an epoch's last.
    [[nodiscard]] Index batch_size() const { return loader_.batch_size(); }
    /// Labels are 0 to num_classes() - 1.
    [[nodiscard]] Index num_classes() const { return loader_.num_classes(); }

    /// Starts to load an epoch from batch `first` on, which may be batches(). The loader may go before the result;
    /// several epochs may be under way. Throws std::invalid_argument for a negative epoch or a first batch that is not
    /// there, std::system_error if no thread can be started. What loading a batch throws comes out where the batch
    /// would.
    [[nodiscard]] PrefetchedEpoch<D, T> epoch(Index epoch, Index first = 0) const {
        loader_.check_epoch("PrefetchLoader::epoch", epoch, first);
        return PrefetchedEpoch<D, T>(loader_, options_, epoch, first);
    }

private:
    DataLoader<D, T> loader_;
    PrefetchOptions options_;
};

SD_NAMESPACE_END
