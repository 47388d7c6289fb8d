// A residual branch whose values and gradients are known.
#pragma once

#include "sd/core/parameter.hpp"
#include "sd/nn/context.hpp"

#include <memory>

namespace sd_test {

/// F(x) = weight x. It tells how often and on what it ran.
template <class T>
class ScaleBranch {
public:
    explicit ScaleBranch(T weight)
        : weight_(std::make_shared<sd::Parameter<T>>(sd::Tensor<T>(sd::Shape{1}, {weight}))) {}

    sd::Tensor<T> forward(const sd::Tensor<T>& x, const sd::Context&) {
        x_ = x.clone();
        ++runs;
        sd::Tensor<T> y = x.clone();
        for (T& value : y) value *= weight_->value(0);
        return y;
    }
    sd::Tensor<T> backward(const sd::Tensor<T>& dy) {
        sd::Tensor<T> dweight(sd::Shape{1});
        sd::Tensor<T> dx = dy.clone();
        for (sd::Index i = 0; i < dy.size(); ++i) dweight(0) += dy.data()[i] * x_.data()[i];
        for (T& value : dx) value *= weight_->value(0);
        weight_->add_grad(dweight);
        return dx;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("weight", weight_);
    }

    const sd::ParameterPtr<T>& weight() const { return weight_; }
    const sd::Tensor<T>& seen() const { return x_; }
    int runs = 0;

private:
    sd::ParameterPtr<T> weight_;
    sd::Tensor<T> x_;
};

}  // namespace sd_test
