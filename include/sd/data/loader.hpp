// Batches of a data set: shuffled, augmented, gathered in parallel.
#pragma once

#include "sd/core/batch_part.hpp"
#include "sd/core/number_text.hpp"
#include "sd/core/parallel.hpp"
#include "sd/core/settings.hpp"
#include "sd/core/tensor.hpp"
#include "sd/data/augmentation.hpp"
#include "sd/data/dataset.hpp"
#include "sd/data/shuffle.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of a DataLoader.
struct LoaderOptions {
    Index batch_size = 128;  ///< 1 or more, over all ranks
    bool shuffle = true;     ///< a new order every epoch; otherwise the data set's
    bool drop_last = false;  ///< leave out the last batch of an epoch if it is not full
    std::uint64_t seed = 0;  ///< of order and augmentation
    std::optional<Augmentation> augmentation = std::nullopt;  ///< none: images as they are
    Index rank = 0;   ///< of the process that loads, 0 to ranks - 1: it loads its part of each batch, see part_of_rank
    Index ranks = 1;  ///< processes that share each batch
};

/// One batch, or a rank's part of one.
template <class T>
struct Batch {
    Tensor<T> images;           ///< (N, H, W, C); N may be 0 where a batch has fewer samples than there are ranks
    std::vector<Index> labels;  ///< N classes
    Index first = 0;            ///< how many samples of the epoch come before these
    Index samples = 0;          ///< in the batch, over all ranks
};

/// Which samples a batch has, or a rank's part of one.
struct BatchSamples {
    std::vector<Index> samples;  ///< of the data set
    Index first = 0;             ///< how many samples of the epoch come before these
    Index count = 0;             ///< in the batch, over all ranks
};

template <Dataset D, class T>
class DataLoader;

/// Reads the batches of an epoch, a LoadedEpoch or a PrefetchedEpoch, one after the other.
template <class Epoch, class T>
class EpochIterator {
public:
    using value_type = Batch<T>;
    using difference_type = std::ptrdiff_t;  ///< input iterators have one

    /// At the epoch's current batch.
    explicit EpochIterator(Epoch& epoch) : epoch_(&epoch) {}

    /// The batch; it may be moved from.
    [[nodiscard]] Batch<T>& operator*() const { return *epoch_->current_; }
    /// The next batch. Throws what loading it threw; of a PrefetchedEpoch, the next call goes on with the batch after
    /// it.
    EpochIterator& operator++() {
        epoch_->advance();
        return *this;
    }
    void operator++(int) { ++*this; }

    /// True past the last batch.
    [[nodiscard]] bool operator==(std::default_sentinel_t) const { return !epoch_->current_.has_value(); }

private:
    Epoch* epoch_;
};

/// Batches of one epoch in their order, once through, each loaded when it is asked for.
template <Dataset D, class T>
class LoadedEpoch {
public:
    /// Reads one batch after the other.
    using Iterator = EpochIterator<LoadedEpoch, T>;

    LoadedEpoch(const LoadedEpoch&) = delete;
    LoadedEpoch& operator=(const LoadedEpoch&) = delete;

    /// Loads the first batch. To be called once.
    [[nodiscard]] Iterator begin() {
        advance();
        return Iterator(*this);
    }
    /// Past the last batch.
    [[nodiscard]] std::default_sentinel_t end() const { return {}; }

private:
    friend class DataLoader<D, T>;
    friend Iterator;
    LoadedEpoch(const DataLoader<D, T>& loader, Index epoch, Index first)
        : loader_(loader), epoch_(epoch), next_(first) {}

    void advance() {
        current_.reset();  // its memory serves the next one
        if (next_ < loader_.batches()) current_ = loader_.load(epoch_, next_++);
    }

    DataLoader<D, T> loader_;
    Index epoch_;
    Index next_;
    std::optional<Batch<T>> current_;
};

/// Gives out the batches of a data set. Every batch is a pure function of (data set, options, epoch, number of the
/// batch): batches may be loaded in any order and any number of times, by any number of threads. Copies share the data
/// set.
template <Dataset D, class T = float>
class DataLoader {
public:
    /// Throws std::invalid_argument for no data set, images that are not (H, W, C), or settings out of range.
    explicit DataLoader(std::shared_ptr<const D> dataset, const LoaderOptions& options = {})
        : dataset_(std::move(dataset)), options_(options), last_order_(std::make_shared<LastOrder>()) {
        if (!dataset_) refuse("DataLoader", "data set", "a null pointer", "a data set");
        expect_rank("DataLoader", "an image", Shape(dataset_->image_shape()), 3);
        if (options_.batch_size < 1) refuse("DataLoader", "batch_size", options_.batch_size, "1 or more");
        if (options_.augmentation) detail::check_augmentation(*options_.augmentation);
        if (options_.ranks < 1) refuse("DataLoader", "ranks", options_.ranks, "1 or more");
        if (options_.rank < 0 || options_.rank >= options_.ranks) {
            refuse("DataLoader", "rank", options_.rank, text("0 to ", options_.ranks - 1));
        }
    }

    /// The data set.
    [[nodiscard]] const D& dataset() const { return *dataset_; }
    /// The settings.
    [[nodiscard]] const LoaderOptions& options() const { return options_; }

    /// What decides, beside batch_size(), which samples a batch has and how they look, on any number of ranks.
    [[nodiscard]] SettingTexts settings() const {
        const Augmentation augmentation = options_.augmentation.value_or(Augmentation{0, false});
        const auto yes_or_no = [](bool value) { return value ? "true" : "false"; };
        return {{"dataset_size", text(dataset_->size())},
                {"shuffle", yes_or_no(options_.shuffle)},
                {"drop_last", yes_or_no(options_.drop_last)},
                {"seed", text(options_.seed)},
                {"padding", text(augmentation.padding)},
                {"horizontal_flip", yes_or_no(augmentation.horizontal_flip)},
                {"random_erasing", detail::number_text(augmentation.random_erasing)}};
    }

    /// The number of samples in every batch but perhaps an epoch's last.
    [[nodiscard]] Index batch_size() const { return options_.batch_size; }
    /// Labels are 0 to num_classes() - 1.
    [[nodiscard]] Index num_classes() const { return dataset_->num_classes(); }
    /// The number of samples in an epoch's batches.
    [[nodiscard]] Index samples() const {
        return options_.drop_last ? batches() * options_.batch_size : Index{dataset_->size()};
    }
    /// The number of batches in an epoch: size / batch_size, rounded up, or down with drop_last.
    [[nodiscard]] Index batches() const {
        const Index size = dataset_->size();
        return size / options_.batch_size + (!options_.drop_last && size % options_.batch_size != 0 ? 1 : 0);
    }

    /// The samples of batch 0 to batches() - 1 of an epoch, in the batch's order; of several ranks, those of this one.
    /// Throws std::invalid_argument for a negative epoch or a batch that is not there.
    [[nodiscard]] BatchSamples batch_samples(Index epoch, Index batch_index) const {
        if (epoch < 0) refuse("DataLoader::load", "epoch", epoch, "0 or more");
        if (batch_index < 0 || batch_index >= batches()) {
            refuse("DataLoader::load", "batch", batch_index, text("0 to ", batches() - 1));
        }
        const Index batch_first = batch_index * options_.batch_size;
        const Index count = std::min(options_.batch_size, Index{dataset_->size()} - batch_first);
        const BatchPart part = part_of_rank(count, options_.rank, options_.ranks);
        BatchSamples batch{std::vector<Index>(static_cast<std::size_t>(part.count)), batch_first + part.first, count};
        const std::shared_ptr<const std::vector<Index>> order = options_.shuffle ? order_of(epoch) : nullptr;
        for (Index n = 0; n < part.count; ++n) {
            const Index place = batch.first + n;
            batch.samples[static_cast<std::size_t>(n)] = order ? (*order)[static_cast<std::size_t>(place)] : place;
        }
        return batch;
    }

    /// The class of a sample of the data set. Throws std::invalid_argument for a label that is not a class.
    [[nodiscard]] Index label_of(Index sample) const {
        const Index label = dataset_->label(sample);
        if (label < 0 || label >= dataset_->num_classes()) {
            refuse("DataLoader", text("label of sample ", sample), label, text("0 to ", dataset_->num_classes() - 1));
        }
        return label;
    }

    /// Batch 0 to batches() - 1 of an epoch: images (N, H, W, C) with N = batch_size, in the last batch maybe fewer; of
    /// several ranks, each loads its part of the same batch.
    /// Throws std::invalid_argument for a negative epoch, a batch that is not there, or a label that is not a class;
    /// rethrows what the data set throws.
    [[nodiscard]] Batch<T> load(Index epoch, Index batch_index) const {
        const BatchSamples of_batch = batch_samples(epoch, batch_index);
        const auto count = static_cast<Index>(of_batch.samples.size());
        const Shape shape = dataset_->image_shape();
        Batch<T> batch{Tensor<T>::empty({count, shape[0], shape[1], shape[2]}),
                       std::vector<Index>(static_cast<std::size_t>(count)), of_batch.first, of_batch.count};
        // Images are read into the first buffer and augmented into the second; the last one in use is the batch itself,
        // if it holds floats.
        const Shape buffer_shape{count, shape.size()};
        constexpr bool is_float = std::is_same_v<T, float>;
        const bool augments = options_.augmentation.has_value();
        Tensor<float> plain = is_float && !augments ? Tensor<float>() : Tensor<float>::empty(buffer_shape);
        Tensor<float> augmented = is_float || !augments ? Tensor<float>() : Tensor<float>::empty(buffer_shape);
        if constexpr (is_float) (augments ? augmented : plain) = batch.images;
        float* const plain_data = plain.data();
        float* const augmented_data = augmented.data();
        [[maybe_unused]] T* const image_data = batch.images.data();
        parallel_for(count, [&](Index n) {
            const Index sample = of_batch.samples[static_cast<std::size_t>(n)];
            const Index offset = n * shape.size();
            batch.labels[static_cast<std::size_t>(n)] = label_of(sample);
            dataset_->read(sample, plain_data + offset);
            if (augments) {
                augment(plain_data + offset, shape, *options_.augmentation, options_.seed, epoch, sample,
                        augmented_data + offset);
            }
            if constexpr (!is_float) {
                const float* result = (augments ? augmented_data : plain_data) + offset;
                std::transform(result, result + shape.size(), image_data + offset,
                               [](float value) { return T(value); });
            }
        });
        return batch;
    }

    /// The batches of an epoch from number `first` on, which may be batches(), to go through once; the loader may go
    /// before them. Throws std::invalid_argument for a negative epoch or a first batch that is not there.
    [[nodiscard]] LoadedEpoch<D, T> epoch(Index epoch, Index first = 0) const {
        check_epoch("DataLoader::epoch", epoch, first);
        return LoadedEpoch<D, T>(*this, epoch, first);
    }

    /// Throws std::invalid_argument for a negative epoch or a first batch outside 0 to batches(), naming the caller.
    void check_epoch(const char* where, Index epoch, Index first) const {
        if (epoch < 0) refuse(where, "epoch", epoch, "0 or more");
        if (first < 0 || first > batches()) refuse(where, "first batch", first, text("0 to ", batches()));
    }

private:
    /// The order of the epoch that was asked for last.
    struct LastOrder {
        std::mutex mutex;
        Index epoch = -1;
        std::shared_ptr<const std::vector<Index>> order;
    };

    [[nodiscard]] std::shared_ptr<const std::vector<Index>> order_of(Index epoch) const {
        const std::lock_guard lock(last_order_->mutex);
        if (last_order_->epoch != epoch) {
            last_order_->order =
                std::make_shared<const std::vector<Index>>(shuffled_order(dataset_->size(), options_.seed, epoch));
            last_order_->epoch = epoch;
        }
        return last_order_->order;
    }

    std::shared_ptr<const D> dataset_;
    LoaderOptions options_;
    std::shared_ptr<LastOrder> last_order_;
};

template <class D>
DataLoader(std::shared_ptr<D>, LoaderOptions) -> DataLoader<std::remove_const_t<D>>;
template <class D>
DataLoader(std::shared_ptr<D>) -> DataLoader<std::remove_const_t<D>>;

SD_NAMESPACE_END
