// gradcheck passes layers that are right and catches errors that are planted, each by the message that fits it.
#include "sd/sd.hpp"
#include "sd/testing/gradcheck.hpp"

#include <doctest/doctest.h>

#include <sstream>
#include <string>

using sd::Context;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd::testing::gradcheck;
using sd::testing::GradcheckReport;

namespace {

bool mentions(const GradcheckReport& report, const std::string& words) {
    for (const std::string& failure : report.failures) {
        if (failure.find(words) != std::string::npos) return true;
    }
    return false;
}

// y = weight x, an element at a time, with a mistake if asked for.
enum class Mistake { none, sign, assigned, stale, one_entry, unwritten };

template <class T>
class Scale {
public:
    explicit Scale(Mistake mistake)
        : mistake_(mistake), weight_(std::make_shared<sd::Parameter<T>>(Tensor<T>::full({3}, T(1.5)))) {}

    Tensor<T> forward(const Tensor<T>& x, const Context&) {
        x_ = x;
        auto y = Tensor<T>::empty(x.shape());
        for (Index i = mistake_ == Mistake::unwritten ? 1 : 0; i < x.size(); ++i) {
            y.data()[i] = weight_->value(i % 3) * x.data()[i];
        }
        return y;
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        Tensor<T> dx(x_.shape());
        Tensor<T> dweight(Shape{3});
        for (Index i = 0; i < dy.size(); ++i) {
            dx.data()[i] = weight_->value(i % 3) * dy.data()[i];
            dweight(i % 3) += dy.data()[i] * x_.data()[i];
        }
        if (mistake_ == Mistake::sign) {
            for (T& entry : dx) entry = -entry;
        }
        if (mistake_ == Mistake::one_entry) dx.data()[200] += T(1e-6);
        if (mistake_ == Mistake::stale) x_ = dx;
        if (mistake_ == Mistake::assigned) weight_->zero_grad();
        weight_->add_grad(dweight);
        return dx;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("weight", weight_);
    }

private:
    Mistake mistake_;
    sd::ParameterPtr<T> weight_;
    Tensor<T> x_;
};

GradcheckReport check_scale(Mistake mistake) {
    return gradcheck([=]<class T>() { return Scale<T>(mistake); }, {11, 7, 3});
}

// Batch norm whose backward takes the batch's statistics for constants.
template <class T>
class BatchNormWithoutTerms {
public:
    Tensor<T> forward(const Tensor<T>& x, const Context& context) {
        Tensor<T> inverse_std(Shape{3});
        const sd::Moments<T> moments = sd::batch_moments(x);
        for (Index c = 0; c < 3; ++c) {
            using std::sqrt;
            inverse_std(c) = T(1) / sqrt(T(moments.m2(c) / T(static_cast<double>(moments.count)) + T(1e-5)));
        }
        mean_ = moments.mean;
        inverse_std_ = inverse_std;
        y_ = layer_.pending(x, moments, false, context);
        return sd::materialize(y_);
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        const auto sums = sd::batch_norm_sums(dy, y_, mean_, inverse_std_);
        layer_.weight()->add_grad(sums.dweight);
        layer_.bias()->add_grad(sums.dbias);
        return sd::batch_norm_by_input(dy, y_, mean_, inverse_std_, static_cast<const sd::BatchNormSums<T>*>(nullptr));
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        layer_.visit(visitor);
    }

private:
    sd::BatchNorm2d<T> layer_{3};
    Tensor<T> mean_, inverse_std_;
    sd::Pending<T> y_;
};

// The join of a block with a mask, whose backward forgets the mask or the shortcut.
template <class T>
class Join {
public:
    explicit Join(bool forget_mask, bool forget_shortcut)
        : forget_mask_(forget_mask), forget_shortcut_(forget_shortcut) {}
    Tensor<T> forward(const Tensor<T>& x, const Context&) {
        y_ = sd::residual_join_forward<T>(x, x, mask_, T(0.5), true);
        return y_;
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        const sd::BranchSamples mask = forget_mask_ ? sd::BranchSamples() : sd::BranchSamples(mask_);
        const auto gradient = sd::residual_join_backward<T>(dy, y_, mask, 3, T(0.5), true);
        return forget_shortcut_ ? gradient.dbranch : sd::add_selected<T>(gradient.dshortcut, gradient.dbranch, {});
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    bool forget_mask_, forget_shortcut_;
    std::vector<Index> mask_{0, -1, 2};
    Tensor<T> y_;
};

}  // namespace

TEST_CASE("a right layer passes") {
    const GradcheckReport report = check_scale(Mistake::none);
    CHECK(report.passed());
    REQUIRE(report.rows.size() == 2);
    CHECK(report.rows[0].tensor == "input");
    CHECK(report.rows[1].tensor == "weight");
    CHECK(report.rows[0].probes == 64 + 8);
    CHECK(report.dual_error() < 1e-14);
    CHECK(report.difference_error() < 1e-8);
    std::ostringstream table;
    table << report;
    CHECK(table.str().find("weight") != std::string::npos);
}

TEST_CASE("planted errors are caught") {
    CHECK(mentions(check_scale(Mistake::sign), "gradient by input"));
    CHECK(mentions(check_scale(Mistake::assigned), "the gradient by weight was not added"));
    CHECK(mentions(check_scale(Mistake::stale), "backward twice"));
    CHECK(mentions(check_scale(Mistake::unwritten), "forward: NaN"));

    const auto batch_norm = gradcheck([]<class T>() { return BatchNormWithoutTerms<T>(); }, {4, 3, 2, 3});
    CHECK(mentions(batch_norm, "gradient by input"));
    CHECK_FALSE(mentions(batch_norm, "gradient by weight"));

    CHECK(gradcheck([]<class T>() { return Join<T>(false, false); }, {3, 2, 2, 4}).passed());
    CHECK(mentions(gradcheck([]<class T>() { return Join<T>(true, false); }, {3, 2, 2, 4}), "gradient by input"));
    CHECK(mentions(gradcheck([]<class T>() { return Join<T>(false, true); }, {3, 2, 2, 4}), "gradient by input"));
}

TEST_CASE("an error in a single entry that no probe of its own meets is seen by the directions") {
    const GradcheckReport report = check_scale(Mistake::one_entry);
    CHECK(mentions(report, "gradient by input: a direction over all entries"));
}

TEST_CASE("a kink is not taken for an error") {
    // Values near 0 on purpose: some lie closer to the kink of ReLU than a step of 0.05.
    const GradcheckReport report =
        gradcheck([]<class T>() { return sd::Relu<T>(); }, {4, 5, 5, 2}, {.step = 0.05, .difference_tolerance = 1e-7});
    CHECK(report.passed());
    CHECK(report.rows[0].kinks > 0);
    const GradcheckReport hopeless = gradcheck([]<class T>() { return sd::Relu<T>(); }, {4, 5, 5, 2}, {.step = 10});
    CHECK(mentions(hopeless, "meet a kink"));
}

TEST_CASE("a branch without a gradient counts as zero gradient") {
    const auto report = gradcheck(
        []<class T>() {
            sd::Initializer initializer(1);
            sd::StochasticResidual<sd::BasicBlock<T>> block(
                sd::BasicBlock<T>({.in_channels = 3, .planes = 3}, initializer), sd::BlockPolicy{});
            block.set_mask(sd::Mask{0, 0});
            return block;
        },
        {2, 4, 4, 3});
    CHECK(report.passed());
    CHECK(report.rows.size() == 7);
}
