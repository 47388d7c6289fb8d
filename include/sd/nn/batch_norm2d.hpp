// The batch normalisation layer.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/parameter.hpp"
#include "sd/cpu/batch_norm.hpp"
#include "sd/nn/cache.hpp"
#include "sd/nn/fusion.hpp"
#include "sd/nn/joint_statistics.hpp"
#include "sd/nn/layer.hpp"
#include "sd/nn/visit.hpp"

SD_NAMESPACE_BEGIN

/// Settings of batch normalisation.
struct BatchNormOptions {
    double eps = 1e-5;      ///< added to the variance; positive
    double momentum = 0.1;  ///< share of the batch in the running statistics, 0 to 1
};

/// y = weight (z - mean) / sqrt(variance + eps) + bias, a channel (the last dimension) at a time.
///
/// In training mean and variance are the batch's (variance m2 / count), and the running statistics move towards them:
///
///     running_mean = (1 - momentum) running_mean + momentum mean
///     running_var  = (1 - momentum) running_var  + momentum m2 / (count - 1)
///
/// With one value a channel, y is bias and running_var stays. In evaluation the running statistics are used.
/// In a joint pass with synchronised batch norm, "the batch" is that of all ranks: each takes part in the exchange of
/// statistics, forward and backward, with whatever number of values it has, 0 included.
/// S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015; details as in PyTorch's BatchNorm2d.
template <class T, class Device = Cpu>
class BatchNorm2d {
    using A = accumulate_t<T>;

public:
    using value_type = T;
    using device_type = Device;

    /// Weight 1, bias 0, running mean 0 and variance 1. Throws std::invalid_argument for settings outside their ranges.
    explicit BatchNorm2d(Index channels, const BatchNormOptions& options = {})
        : options_(options), running_mean_(Shape{channels}), running_var_(Tensor<A, Device>::full({channels}, A(1))) {
        if (channels < 1) refuse("BatchNorm2d", "channels", channels, "1 or more");
        if (!is_in_range(options.eps, smallest_number<A>, largest_number<A>)) {
            refuse("BatchNorm2d", "eps", options.eps, "a positive number");
        }
        if (!is_in_range(options.momentum, 0, 1)) {
            refuse("BatchNorm2d", "momentum", options.momentum, "0 to 1");
        }
        weight_ = std::make_shared<Parameter<A, Device>>(Tensor<A, Device>::full({channels}, A(1)));
        bias_ = std::make_shared<Parameter<A, Device>>(Tensor<A, Device>(Shape{channels}));
    }
    BatchNorm2d(const BatchNorm2d&) = delete;
    /// Moves; parameters keep their addresses.
    BatchNorm2d(BatchNorm2d&&) = default;
    BatchNorm2d& operator=(BatchNorm2d&&) = default;
    ~BatchNorm2d() = default;

    /// y of the shape of z (..., C). Throws std::invalid_argument for another number of channels.
    [[nodiscard]] Tensor<T, Device> forward(const Tensor<T, Device>& z, const Context& context) {
        Moments<A, Device> moments;
        if (context.training()) moments = batch_moments(z);
        return materialize(pending(z, moments, Activation::none, context));
    }

    /// Adds the gradients of weight and bias and returns the gradient by z.
    [[nodiscard]] Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        return materialize(backward_pending({dy}));
    }

    /// Gives back what the last forward pass left for backward.
    void forget() { pass_.forget(); }

    /// Scale (C).
    [[nodiscard]] const ParameterPtr<A, Device>& weight() const { return weight_; }
    /// Shift (C).
    [[nodiscard]] const ParameterPtr<A, Device>& bias() const { return bias_; }
    /// Mean (C) for evaluation.
    [[nodiscard]] const Tensor<A, Device>& running_mean() const { return running_mean_; }
    /// Variance (C) for evaluation, unbiased.
    [[nodiscard]] const Tensor<A, Device>& running_var() const { return running_var_; }
    /// Training batches seen.
    [[nodiscard]] std::int64_t num_batches_tracked() const { return num_batches_tracked_; }

    /// Names weight, bias, running_mean, running_var and num_batches_tracked.
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visit_members(*this, visitor);
    }
    /// The same, read only.
    template <class Visitor>
    void visit(Visitor&& visitor) const {
        visit_members(*this, visitor);
    }

private:
    friend class detail::Fusion;

    template <class Self, class Visitor>
    static void visit_members(Self& self, Visitor& visitor) {
        visitor("weight", self.weight_);
        visitor("bias", self.bias_);
        visitor("running_mean", self.running_mean_);
        visitor("running_var", self.running_var_);
        visitor("num_batches_tracked", self.num_batches_tracked_);
    }

    struct Pass {
        BatchNormPass<T, Device> own;
        Communicator* communicator;  ///< of the ranks that the statistics come from, or null
        Index count;                 ///< values a channel that they come from
    };

    // Batch norm and the activation that follows as a pending tensor on z. `own` are z's statistics, needed in training.
    Pending<T, Device> pending(const Tensor<T, Device>& z, const Moments<A, Device>& own, Activation activation,
                               const Context& context) {
        Communicator* const communicator = context.batch_norm_communicator();
        const Moments<A, Device> moments = communicator == nullptr ? own : merged_over_ranks(own, *communicator);
        const Index channels = running_mean_.size();
        expect_shape("BatchNorm2d", "input", Shape{z.extent(z.rank() - 1)}, {channels});
        const bool training = context.training();
        BatchNormPass<T, Device> pass;
        pass.batch_statistics = training;
        pass.mean = training ? moments.mean.clone() : running_mean_.clone();
        const BatchNormFactors<A, Device> factors =
            training ? this->factors(moments.mean, moments.m2, std::max<Index>(moments.count, 1))
                     : this->factors(running_mean_, running_var_, 1);
        pass.inverse_std = factors.inverse_std;
        pass.y = Pending<T, Device>(z, factors.scale, factors.shift, activation);
        if (training) {
            ++num_batches_tracked_;
            update_running_statistics(running_mean_, running_var_, moments, options_.momentum);
        }
        const Pending<T, Device> y = pass.y;
        pass_.keep(context, {std::move(pass), communicator, moments.count});
        return y;
    }

    // Scale and shift (C) of evaluation, y = scale z + shift, to be folded into the convolution that makes z; if that has
    // a bias, of z without it.
    struct Affine {
        Tensor<A, Device> scale;
        Tensor<A, Device> shift;
    };
    Affine folded(const ParameterPtr<A, Device>& bias_of_z) const {
        const BatchNormFactors<A, Device> factors = this->factors(running_mean_, running_var_, 1);
        if (!bias_of_z) return {factors.scale, factors.shift};
        const Tensor<A, Device>& bias = bias_of_z->value;
        return {factors.scale, materialize(Pending<A, Device>(bias, factors.scale, factors.shift, Activation::none))};
    }

    // What the last forward pass left for backward.
    const BatchNormPass<T, Device>& pass() const { return pass_.get("BatchNorm2d").own; }

    // Adds the gradients of weight and bias and returns the gradient by z, pending. Sums that nobody gathered are
    // gathered here.
    PendingGradient<T, Device> backward_pending(const detail::FusedGradient<T, Device>& dy) {
        const Pass& pass = pass_.get("BatchNorm2d");
        BatchNormPass<T, Device> own = pass.own;
        BatchNormSums<A, Device> sums = dy.sums;
        if (!sums.dbias) sums = batch_norm_sums(dy.dy, own);
        if (sums.of_written) own.y.activation = Activation::none;  // dy has it applied
        weight_->add_grad(sums.dweight);
        bias_->add_grad(sums.dbias);
        if (pass.communicator != nullptr) {
            // The kernel divides by the number of this rank's values what is to be divided by that of all ranks'.
            const auto values = static_cast<double>(dy.dy.size() / running_mean_.size());
            const double share = values / static_cast<double>(std::max<Index>(pass.count, 1));
            sums = summed_over_ranks(sums, *pass.communicator, share);
        }
        return batch_norm_by_input(dy.dy, own, sums).through(dy.gate);
    }

    BatchNormFactors<A, Device> factors(const Tensor<A, Device>& mean, const Tensor<A, Device>& squares,
                                        Index count) const {
        return batch_norm_factors(mean, squares, count, weight_->value, bias_->value, options_.eps);
    }

    BatchNormOptions options_;
    ParameterPtr<A, Device> weight_;
    ParameterPtr<A, Device> bias_;
    Tensor<A, Device> running_mean_;
    Tensor<A, Device> running_var_;
    std::int64_t num_batches_tracked_ = 0;
    Cache<Pass> pass_;
};

SD_NAMESPACE_END
