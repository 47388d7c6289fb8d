// A data set some of whose labels are wrong, as those of real collections are.
#pragma once

#include "sd/data/dataset.hpp"
#include "sd/data/shuffle.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace tools {

/// A data set's images with a share of wrong labels: round(share size) samples, drawn without replacement, have one of
/// the other classes, each with the same chance. Which samples and which classes depends on the seed alone.
template <sd::Dataset D>
class NoisyLabels {
public:
    /// Throws std::invalid_argument for no data set, a share outside 0 to 1, or a share above 0 of a single class.
    NoisyLabels(std::shared_ptr<const D> dataset, double share, std::uint64_t seed) : dataset_(std::move(dataset)) {
        if (!dataset_) sd::refuse("NoisyLabels", "data set", "a null pointer", "a data set");
        if (!(share >= 0 && share <= 1)) sd::refuse("NoisyLabels", "share of wrong labels", share, "0 to 1");
        const sd::Index classes = dataset_->num_classes();
        if (share > 0 && classes < 2) sd::refuse("NoisyLabels", "number of classes", classes, "2 or more");
        for (sd::Index i = 0; i < size(); ++i) labels_.push_back(dataset_->label(i));
        const auto order = sd::random_permutation(size(), seed, sd::Stream::synthetic, order_step);
        const auto wrong = static_cast<std::size_t>(std::llround(share * static_cast<double>(size())));
        for (std::size_t k = 0; k < wrong; ++k) {
            const auto index = static_cast<std::uint32_t>(k);
            const std::uint32_t word = sd::random_words(seed, sd::Stream::synthetic, class_step, 0, index)[0];
            const std::uint32_t away = 1 + sd::uniform_below(word, static_cast<std::uint32_t>(classes - 1));
            sd::Index& label = labels_[static_cast<std::size_t>(order[k])];
            label = (label + away) % classes;
        }
    }

    [[nodiscard]] sd::Index size() const { return dataset_->size(); }
    [[nodiscard]] sd::Index num_classes() const { return dataset_->num_classes(); }
    [[nodiscard]] sd::Shape image_shape() const { return dataset_->image_shape(); }
    void read(sd::Index i, float* image) const { dataset_->read(i, image); }
    [[nodiscard]] sd::Index label(sd::Index i) const { return labels_.at(static_cast<std::size_t>(i)); }

private:
    // Synthetic image i draws from step i of the same stream: these two lie past every image.
    static constexpr std::uint64_t order_step = std::uint64_t{1} << 55;
    static constexpr std::uint64_t class_step = order_step + 1;

    std::shared_ptr<const D> dataset_;
    std::vector<sd::Index> labels_;
};

}  // namespace tools
