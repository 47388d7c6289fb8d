// A policy and a shortcut as users write them.
#pragma once

#include <sd/sd.hpp>

#include <cstdint>
#include <string_view>

namespace sd_test {

/// Drops the branch of every sample whose place in the global batch, step and block add up to an odd number, and computes
/// the others alone. It has a setting of the library's and one of its own.
struct AlternatePolicy {
    static constexpr std::string_view method = "alternate";
    double drop_rate = 0.5;
    sd::Scaling scaling = sd::Scaling::inference;
    bool flipped = false;

    [[nodiscard]] sd::Mask draw(const sd::Context& context, std::uint32_t block, sd::Index samples) const {
        sd::Mask mask(static_cast<std::size_t>(samples));
        for (std::size_t n = 0; n < mask.size(); ++n) {
            mask[n] = (context.sample_offset() + n + context.step() + block + (flipped ? 1U : 0U)) % 2 == 0 ? 1 : 0;
        }
        return mask;
    }
    [[nodiscard]] sd::BranchRun runs(const sd::Mask& mask) const {
        for (const std::uint8_t kept : mask) {
            if (kept != 0) return sd::BranchRun::kept_samples;
        }
        return sd::BranchRun::nothing;
    }
    [[nodiscard]] double scale(bool training, const sd::Mask&) const { return training ? 1 : 1 - drop_rate; }
};

/// S(x) = x gain, one trained number per channel.
template <class T>
class GainShortcut {
public:
    explicit GainShortcut(sd::Index channels)
        : gain_(std::make_shared<sd::Parameter<T>>(sd::Tensor<T>::full({channels}, T(0.5)))) {}

    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context& context) {
        if (context.gradients()) x_ = x;
        sd::Tensor<T> y = x.clone();
        for (sd::Index i = 0; i < y.size(); ++i) y.data()[i] *= gain_->value.data()[i % gain_->value.size()];
        return y;
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) {
        sd::Tensor<T> dgain(gain_->value.shape());
        sd::Tensor<T> dx = dy.clone();
        for (sd::Index i = 0; i < dy.size(); ++i) {
            const sd::Index c = i % dgain.size();
            dgain.data()[c] += dy.data()[i] * x_.data()[i];
            dx.data()[i] *= gain_->value.data()[c];
        }
        gain_->add_grad(dgain);
        return dx;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("gain", gain_);
    }

private:
    sd::ParameterPtr<T> gain_;
    sd::Tensor<T> x_;
};

}  // namespace sd_test
