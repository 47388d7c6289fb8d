// Batches on a device.
#pragma once

#include "sd/cuda/staging.hpp"
#include "sd/train/trainer_options.hpp"

#include <cstddef>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A batch whose images are on a device.
template <class T, class Device>
struct DeviceBatch {
    Tensor<T, Device> images;   ///< (N, H, W, C)
    std::vector<Index> labels;  ///< N
};

/// Gives out the batches of another loader with their images on the device, as elements of type T.
///
///     sd::Trainer trainer(model, optimizer, sd::DeviceLoader<sd::bfloat16, sd::Cuda, Loader>(loader), options);
///
/// Images keep their own type on the way there, through two buffers of pinned memory in turn: the way of one batch goes on
/// beside the work on the batch before. Copies of a loader share the buffers; one thread at a time uses them.
template <class T, class Device, BatchLoader Loader>
class DeviceLoader {
public:
    /// The batches of this loader.
    explicit DeviceLoader(Loader loader) : loader_(std::move(loader)), staging_(std::make_shared<Staging>()) {}

    /// Of an epoch.
    [[nodiscard]] Index batches() const { return loader_.batches(); }
    /// In an epoch's batches.
    [[nodiscard]] Index samples() const { return loader_.samples(); }
    /// Samples of every batch but perhaps an epoch's last.
    [[nodiscard]] Index batch_size() const { return loader_.batch_size(); }
    /// Labels are 0 to num_classes() - 1.
    [[nodiscard]] Index num_classes() const { return loader_.num_classes(); }

    /// How images get to the device.
    using Staging = cuda::Staging<
        typename std::remove_cvref_t<decltype((*std::declval<const Loader&>().epoch(0, 0).begin()).images)>::value_type,
        Device>;

    /// Batches of one epoch in their order, once through, each brought to the device when it is asked for.
    class Epoch {
    public:
        /// From batch `first` on.
        Epoch(const Loader& loader, std::shared_ptr<Staging> staging, Index epoch, Index first)
            : staging_(std::move(staging)), range_(loader.epoch(epoch, first)) {}

        /// One batch after the other.
        class iterator {
        public:
            /// Of the loader's own batches.
            using Source = decltype(std::declval<Loader>().epoch(0, 0).begin());
            /// At a batch of the other loader.
            iterator(Source source, Staging& staging) : source_(std::move(source)), staging_(&staging) {}
            /// The batch, brought to the device by the first call.
            [[nodiscard]] DeviceBatch<T, Device>& operator*() {
                if (!batch_.images) {
                    auto& own = *source_;
                    batch_ = {staging_->template bring<T>(own.images), std::move(own.labels)};
                }
                return batch_;
            }
            /// To the next batch.
            iterator& operator++() {
                batch_ = {};
                ++source_;
                return *this;
            }
            /// Whether no batch is left.
            template <class End>
            friend bool operator!=(const iterator& a, const End& end) {
                return a.source_ != end;
            }

        private:
            Source source_;
            Staging* staging_;  ///< the epoch's
            DeviceBatch<T, Device> batch_;
        };

        /// The first batch.
        [[nodiscard]] iterator begin() { return iterator(range_.begin(), *staging_); }
        /// Past the last one.
        [[nodiscard]] auto end() { return range_.end(); }

    private:
        std::shared_ptr<Staging> staging_;
        decltype(std::declval<const Loader&>().epoch(0, 0)) range_;
    };

    /// The batches of an epoch from batch `first` on.
    [[nodiscard]] Epoch epoch(Index epoch, Index first = 0) const { return Epoch(loader_, staging_, epoch, first); }

private:
    Loader loader_;
    std::shared_ptr<Staging> staging_;
};

SD_NAMESPACE_END
