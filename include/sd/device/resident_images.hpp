// A small data set's images, kept on a device: batches are gathered and augmented there.
#pragma once

#include "sd/device/staging.hpp"
#include "sd/data/loader.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace cuda {

/// Where an image of a batch comes from: image(h, w) = source(h + row, w + column), mirrored if flipped, 0 outside of
/// it and where it is erased.
struct ImagePlace {
    Index sample;       ///< of the data set
    Index row, column;  ///< of the crop, less the padding
    bool flip;
    ImageBox erased;
};

/// Crops, mirrors and erases samples of images (count, H, W, C), as augment() does.
template <class T>
struct GatherImages {
    Index height, width, channels;
    const T* images;
    const ImagePlace* places;
    T* batch;

    SD_HOST_DEVICE void operator()(Index i) const {
        const Index c = i % channels;
        const Index pixel = i / channels;
        const Index w = pixel % width;
        const Index h = pixel / width % height;
        const ImagePlace place = places[pixel / width / height];
        const Index row = h + place.row;
        const Index column = (place.flip ? width - 1 - w : w) + place.column;
        const bool is_seen = row >= 0 && row < height && column >= 0 && column < width && !place.erased.contains(h, w);
        batch[i] =
            is_seen ? images[((place.sample * height + row) * width + column) * channels + c] : T(accumulate_t<T>(0));
    }
};

/// All images of a data set on a device, as elements of type T, and the batches of a loader made of them.
template <class T, class Device, class Loader>
class ResidentImages {
public:
    /// How many bytes they take.
    [[nodiscard]] static std::size_t bytes_of(const Loader& loader) {
        const Shape image = loader.dataset().image_shape();
        return static_cast<std::size_t>(Index{loader.dataset().size()} * image.size()) * sizeof(T);
    }

    /// Brings the images of the loader's data set to the device, some at a time. Throws what reading them throws.
    explicit ResidentImages(Loader loader) : loader_(std::move(loader)) {
        constexpr Index chunk = 1024;
        const Shape image = loader_.dataset().image_shape();
        const Index count = loader_.dataset().size();
        Staging<float, Device> staging;
        images_ = Tensor<T, Device>::empty({count, image[0], image[1], image[2]});
        for (Index first = 0; first < count; first += chunk) {
            auto some = Tensor<float>::empty({std::min(chunk, count - first), image.size()});
            parallel_for(some.extent(0),
                         [&](Index n) { loader_.dataset().read(first + n, some.data() + n * image.size()); });
            copy_elements(staging.template bring<T>(some), 0, some.size(), images_, first * image.size());
        }
    }

    /// Images of a batch of an epoch, as DataLoader::load gives them, and their labels.
    [[nodiscard]] std::pair<Tensor<T, Device>, std::vector<Index>> load(Index epoch, Index batch) const {
        const BatchSamples of_batch = loader_.batch_samples(epoch, batch);
        const LoaderOptions& options = loader_.options();
        std::vector<ImagePlace> places;
        std::vector<Index> labels;
        for (const Index sample : of_batch.samples) {
            AugmentationDraw draw;
            Index padding = 0;
            if (options.augmentation) {
                draw = draw_augmentation(loader_.dataset().image_shape(), *options.augmentation, options.seed, epoch,
                                         sample);
                padding = options.augmentation->padding;
            }
            places.push_back({sample, draw.row - padding, draw.column - padding, draw.flip, draw.erased});
            labels.push_back(loader_.label_of(sample));
        }
        auto images = Tensor<T, Device>::empty(with_samples(images_.shape(), static_cast<Index>(places.size())));
        if (!places.empty()) {
            auto table = Tensor<ImagePlace, Device>::empty({static_cast<Index>(places.size())});
            table.write(places.data());
            launch_each<Device>(images.size(), GatherImages<T>{images.extent(1), images.extent(2), images.extent(3),
                                                               images_.data(), table.data(), images.data()});
        }
        return {std::move(images), std::move(labels)};
    }

private:
    Loader loader_;
    Tensor<T, Device> images_;
};

}  // namespace cuda

SD_NAMESPACE_END
