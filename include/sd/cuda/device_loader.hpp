// Batches on a device.
#pragma once

#include "sd/core/settings.hpp"
#include "sd/cuda/elementwise.hpp"
#include "sd/train/trainer_options.hpp"

#include <cstddef>
#include <iterator>
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
/// Images are float on the way there.
template <class T, class Device, BatchLoader Loader>
class DeviceLoader {
public:
    /// The batches of this loader.
    explicit DeviceLoader(Loader loader) : loader_(std::move(loader)) {}

    /// Those of the other loader that decide the batches, if it tells them.
    [[nodiscard]] SettingTexts settings() const { return settings_of(loader_); }
    /// Of an epoch.
    [[nodiscard]] Index batches() const { return loader_.batches(); }
    /// In an epoch's batches.
    [[nodiscard]] Index samples() const { return loader_.samples(); }
    /// Samples of every batch but perhaps an epoch's last.
    [[nodiscard]] Index batch_size() const { return loader_.batch_size(); }
    /// Labels are 0 to num_classes() - 1.
    [[nodiscard]] Index num_classes() const { return loader_.num_classes(); }

    /// Batches of one epoch in their order, once through, each brought to the device when it is asked for.
    class Epoch {
    public:
        /// From batch `first` on.
        Epoch(const Loader& loader, Index epoch, Index first) : range_(loader.epoch(epoch, first)) {}

        /// One batch after the other.
        class iterator {
        public:
            /// Of the loader's own batches.
            using Source = decltype(std::declval<Loader>().epoch(0, 0).begin());
            /// At a batch of the other loader.
            explicit iterator(Source source) : source_(std::move(source)) {}
            /// The batch, brought to the device by the first call.
            [[nodiscard]] DeviceBatch<T, Device>& operator*() {
                if (!batch_.images) {
                    auto& own = *source_;
                    batch_ = {converted<T>(to_device<Device>(own.images)), std::move(own.labels)};
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
            DeviceBatch<T, Device> batch_;
        };

        /// The first batch.
        [[nodiscard]] iterator begin() { return iterator(range_.begin()); }
        /// Past the last one.
        [[nodiscard]] auto end() { return range_.end(); }

    private:
        decltype(std::declval<const Loader&>().epoch(0, 0)) range_;
    };

    /// The batches of an epoch from batch `first` on.
    [[nodiscard]] Epoch epoch(Index epoch, Index first = 0) const { return Epoch(loader_, epoch, first); }

private:
    Loader loader_;
};

SD_NAMESPACE_END
