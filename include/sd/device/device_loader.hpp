// Batches on a device.
#pragma once

#include "sd/core/settings.hpp"
#include "sd/device/resident_images.hpp"
#include "sd/device/staging.hpp"
#include "sd/train/trainer_options.hpp"

#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// A batch whose images are on a device.
template <class T, class Device>
struct DeviceBatch {
    Tensor<T, Device> images;   ///< (N, H, W, C)
    std::vector<Index> labels;  ///< N
};

/// Settings of a DeviceLoader.
struct DeviceLoaderOptions {
    /// Data sets of at most this many bytes on the device are kept there, and batches gathered and augmented there;
    /// only of a DataLoader or a PrefetchLoader, which then loads nothing.
    std::size_t resident_bytes = std::size_t{1} << 30;
};

namespace cuda {

/// The DataLoader that a loader of batches is or has.
template <class Loader>
[[nodiscard]] const auto& data_loader_of(const Loader& loader) {
    if constexpr (requires { loader.loader(); }) {
        return loader.loader();
    } else {
        return loader;
    }
}

}  // namespace cuda

/// Gives out the batches of another loader with their images on the device, as elements of type T.
///
///     sd::Trainer trainer(model, optimizer, sd::DeviceLoader<sd::bfloat16, sd::Cuda, Loader>(loader), options);
///
/// A small data set is brought to the device by the first epoch and stays there. The images of others keep their own
/// type on the way there, through two buffers of pinned memory in turn: the way of one batch goes on beside the work on
/// the batch before. The batches are the same. Copies of a loader share data set and buffers; one thread at a time uses
/// them.
template <class T, class Device, BatchLoader Loader>
class DeviceLoader {
    using Source = decltype(cuda::data_loader_of(std::declval<const Loader&>()));
    using Images = std::remove_cvref_t<decltype((*std::declval<const Loader&>().epoch(0, 0).begin()).images)>;
    static constexpr bool may_reside = requires(Source source) {
        source.batch_samples(0, 0);
        source.dataset();
    };

    struct None {};
    /// What copies share.
    struct Shared {
        cuda::Staging<typename Images::value_type, Device> staging;
        std::conditional_t<may_reside, std::optional<cuda::ResidentImages<T, Device, std::remove_cvref_t<Source>>>,
                           None>
            resident;
    };

public:
    /// The batches of this loader.
    explicit DeviceLoader(Loader loader, const DeviceLoaderOptions& options = {})
        : loader_(std::move(loader)), options_(options), shared_(std::make_shared<Shared>()) {}

    /// Those of the other loader that decide the batches, if it tells them.
    [[nodiscard]] SettingTexts settings() const { return detail::settings_of(loader_); }
    /// Of an epoch.
    [[nodiscard]] Index batches() const { return loader_.batches(); }
    /// In an epoch's batches.
    [[nodiscard]] Index samples() const { return loader_.samples(); }
    /// Samples of every batch but perhaps an epoch's last.
    [[nodiscard]] Index batch_size() const { return loader_.batch_size(); }
    /// Labels are 0 to num_classes() - 1.
    [[nodiscard]] Index num_classes() const { return loader_.num_classes(); }
    /// Whether the data set is kept on the device.
    [[nodiscard]] bool is_resident() const {
        if constexpr (may_reside) {
            using Resident = typename decltype(shared_->resident)::value_type;
            return Resident::bytes_of(cuda::data_loader_of(loader_)) <= options_.resident_bytes;
        } else {
            return false;
        }
    }

    /// Batches of one epoch in their order, once through, each brought to the device when it is asked for.
    class Epoch {
    public:
        Epoch(const Epoch&) = delete;
        Epoch& operator=(const Epoch&) = delete;

        /// One batch after the other.
        class iterator {
        public:
            /// At the epoch's current batch.
            explicit iterator(Epoch& epoch) : epoch_(&epoch) {}
            /// The batch, brought to the device by the first call.
            [[nodiscard]] DeviceBatch<T, Device>& operator*() { return epoch_->current(); }
            /// To the next batch.
            iterator& operator++() {
                epoch_->advance();
                return *this;
            }
            /// Whether no batch is left.
            [[nodiscard]] bool operator==(std::default_sentinel_t) const { return epoch_->next_ == epoch_->batches_; }

        private:
            Epoch* epoch_;
        };

        /// The first batch.
        [[nodiscard]] iterator begin() {
            if (range_ != nullptr) source_.emplace(range_->begin());
            return iterator(*this);
        }
        /// Past the last one.
        [[nodiscard]] std::default_sentinel_t end() const { return {}; }

    private:
        friend DeviceLoader;
        using Range = decltype(std::declval<const Loader&>().epoch(0, 0));

        Epoch(const DeviceLoader& loader, Index epoch, Index first)
            : shared_(loader.shared_), epoch_(epoch), next_(first), batches_(loader.batches()) {
            if (loader.is_resident()) {
                loader.bring_images();
            } else {
                range_.reset(new Range(loader.loader_.epoch(epoch, first)));
            }
        }

        DeviceBatch<T, Device>& current() {
            if (batch_.images) return batch_;
            if (source_) {
                auto& own = **source_;
                batch_ = {shared_->staging.template bring<T>(own.images), std::move(own.labels)};
            } else if constexpr (may_reside) {
                auto [images, labels] = shared_->resident->load(epoch_, next_);
                batch_ = {std::move(images), std::move(labels)};
            }
            return batch_;
        }
        void advance() {
            batch_ = {};
            ++next_;
            if (source_) ++*source_;
        }

        std::shared_ptr<Shared> shared_;
        Index epoch_;
        Index next_;                    ///< the current batch
        Index batches_;                 ///< of the epoch
        std::unique_ptr<Range> range_;  ///< of the other loader, if the data set is not on the device
        std::optional<decltype(std::declval<Range&>().begin())> source_;
        DeviceBatch<T, Device> batch_;
    };

    /// The batches of an epoch from batch `first` on; the loader may go before them.
    [[nodiscard]] Epoch epoch(Index epoch, Index first = 0) const { return Epoch(*this, epoch, first); }

private:
    void bring_images() const {
        if constexpr (may_reside) {
            if (!shared_->resident) shared_->resident.emplace(cuda::data_loader_of(loader_));
        }
    }

    Loader loader_;
    DeviceLoaderOptions options_;
    std::shared_ptr<Shared> shared_;
};

SD_NAMESPACE_END
