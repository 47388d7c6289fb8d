// Gradients summed over ranks, in buckets, while backward goes on.
//
//     backward:   fc  layer4 ....... layer3 ....... layer2 ....... stem
//     bucket 0:   [---sum------]
//     bucket 1:           [---sum------]
//     bucket 2:                          [---sum----------]         finish: wait for what is left
#pragma once

#include "sd/core/communicator.hpp"
#include "sd/core/parameter.hpp"
#include "sd/cpu/elementwise.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

/// Settings of a GradientSum.
struct GradientSumOptions {
    Index bucket_bytes = Index{25} << 20;  ///< gradients are sent in pieces of about this size; 1 or more

    /// Send a bucket as soon as backward has come past all of it, or all at the end. By default, where the ranks are on
    /// several machines: on one, whoever moves the messages does not compute.
    std::optional<bool> overlap = std::nullopt;
};

/// Replaces the gradients of some parameters by their sums over all ranks. Sums have the same bits for any bucket size,
/// with overlap and without.
///
/// Which parameters have a gradient must be the same on every rank; StochasticResidual sees to it. Parameters without
/// one are neither sent nor changed. Buckets follow the parameters from the last to the first, as backward does, and
/// are sent in that order. S. Li et al., "PyTorch distributed: experiences on accelerating data parallel training",
/// VLDB 2020, section 3.2.
template <class T, class Device = Cpu>
class GradientSum {
public:
    /// Communicator and parameters outlive this. Throws std::invalid_argument for a bucket size below 1.
    GradientSum(ParameterList<T, Device> parameters, Communicator& communicator, const GradientSumOptions& options = {})
        : communicator_(communicator),
          parameters_(std::move(parameters)),
          overlap_(options.overlap.value_or(!communicator.is_one_machine())) {
        if (options.bucket_bytes < 1) refuse("GradientSum", "bucket_bytes", options.bucket_bytes, "1 or more");
        if (communicator_.size() == 1) return;
        std::reverse(parameters_.begin(), parameters_.end());
        Index bytes = options.bucket_bytes;
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            if (bytes >= options.bucket_bytes) {
                buckets_.push_back({.first = i});
                bytes = 0;
            }
            bytes += parameters_[i]->value.size() * static_cast<Index>(sizeof(T));
            buckets_.back().last = i + 1;
        }
        passed_.assign(parameters_.size(), false);
        for (std::size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
            for (std::size_t i = buckets_[bucket].first; i < buckets_[bucket].last; ++i) {
                parameters_[i]->on_backward = [this, i, bucket] { backward_passed(i, bucket); };
            }
        }
    }
    GradientSum(const GradientSum&) = delete;
    GradientSum& operator=(const GradientSum&) = delete;
    ~GradientSum() {
        if (communicator_.size() == 1) return;
        for (const auto& parameter : parameters_) parameter->on_backward = nullptr;
    }

    /// Calls backward(), the last backward pass of a step, and sums the gradients that there are then. Throws what
    /// backward and the communicator throw, and std::logic_error if a parameter's gradient changes after its bucket was
    /// sent, which happens where one parameter serves two layers: such networks need overlap = false. After an
    /// exception the next call starts anew, if all ranks came as far.
    template <class Backward>
    void run(const Backward& backward) {
        if (communicator_.size() == 1) {
            backward();
            return;
        }
        if (overlap_) {
            std::fill(passed_.begin(), passed_.end(), false);
            for (Bucket& bucket : buckets_) bucket.waits_for = bucket.last - bucket.first;
            listening_ = true;
        }
        try {
            backward();
            listening_ = false;
            while (started_ < buckets_.size()) start(buckets_[started_++]);
            for (Bucket& bucket : buckets_) finish(bucket);
        } catch (...) {
            give_up();
            throw;
        }
        started_ = 0;
    }

private:
    /// Parameters [first, last) of the reversed list.
    struct Bucket {
        std::size_t first = 0, last = 0;
        std::size_t waits_for = 0;  ///< parameters that backward has not come past
        Tensor<T, Device> numbers = {};
        std::unique_ptr<PendingSum> sum = {};
    };

    void backward_passed(std::size_t i, std::size_t bucket) {
        if (!listening_) return;
        if (bucket < started_) {
            throw std::logic_error(text("GradientSum: ", parameters_[i]->name,
                                        ": got a second gradient after the first was sent, expected one a backward "
                                        "pass, or overlap = false"));
        }
        if (passed_[i]) return;
        passed_[i] = true;
        --buckets_[bucket].waits_for;
        for (std::size_t under_way = 0; under_way < started_; ++under_way) buckets_[under_way].sum->advance();
        while (started_ < buckets_.size() && buckets_[started_].waits_for == 0) start(buckets_[started_++]);
    }

    // Calls use(parameter, place in the bucket's numbers) for each gradient; returns the number of numbers.
    template <class Use>
    Index for_each_gradient(const Bucket& bucket, const Use& use) const {
        Index place = 0;
        for (std::size_t i = bucket.first; i < bucket.last; ++i) {
            Parameter<T, Device>& parameter = *parameters_[i];
            if (!parameter.has_grad) continue;
            use(parameter, place);
            place += parameter.grad.size();
        }
        return place;
    }

    void start(Bucket& bucket) {
        const Index count = for_each_gradient(bucket, [](const auto&, Index) {});
        bucket.numbers = Tensor<T, Device>::empty({count});
        for_each_gradient(bucket, [&](const Parameter<T, Device>& parameter, Index place) {
            copy_elements(parameter.grad, 0, parameter.grad.size(), bucket.numbers, place);
        });
        bucket.sum = communicator_.start_sum(std::span<T>(bucket.numbers.data(), static_cast<std::size_t>(count)));
    }

    void finish(Bucket& bucket) {
        bucket.sum->finish();
        bucket.sum.reset();
        for_each_gradient(bucket, [&](Parameter<T, Device>& parameter, Index place) {
            copy_elements(bucket.numbers, place, parameter.grad.size(), parameter.grad, 0);
        });
        bucket.numbers = {};
    }

    /// Lets go of the sums under way. To wait for them could be forever.
    void give_up() {
        listening_ = false;
        started_ = 0;
        for (Bucket& bucket : buckets_) {
            if (bucket.numbers) keep_for_ever(std::pair(std::move(bucket.sum), std::exchange(bucket.numbers, {})));
        }
    }

    Communicator& communicator_;
    ParameterList<T, Device> parameters_;  ///< from the last to the first
    std::vector<Bucket> buckets_;
    std::vector<bool> passed_;
    std::size_t started_ = 0;  ///< buckets
    bool overlap_;
    bool listening_ = false;
};

SD_NAMESPACE_END
