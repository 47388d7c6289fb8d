// gradcheck passes layers that are right and catches errors that are planted, each by the message that fits it.
#include "sd/sd.hpp"
#include "sd/testing/gradcheck.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>

namespace test_gradcheck {

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
enum class Mistake {
    none,
    sign,       // of the gradient by input
    assigned,   // the gradient by weight, instead of added
    stale,      // backward spoils what it needs for a second one
    one_entry,  // a small error in the gradient by input at (9, 3, 2)
    one_not_a_number,
    unwritten,       // output that is never written
    own_state,       // an output that depends on how many passes there were
    into_input,      // forward in place
    into_upstream,   // backward in place
    constant,        // a gradient by input that does not come from the upstream one alone
    double_forward,  // forward of double, and of double alone, is off at entry (9, 3, 2) of the input
};

template <class T>
class Scale {
public:
    explicit Scale(Mistake mistake)
        : mistake_(mistake), weight_(std::make_shared<sd::Parameter<T>>(Tensor<T>::full({3}, T(1.5)))) {}

    Tensor<T> forward(const Tensor<T>& x, const Context&) {
        x_ = x;
        ++passes_;
        auto y = mistake_ == Mistake::into_input ? x : Tensor<T>::empty(x.shape());
        for (Index i = mistake_ == Mistake::unwritten ? 1 : 0; i < x.size(); ++i) {
            y.data()[i] = weight_->value(i % 3) * x.data()[i];
        }
        if (mistake_ == Mistake::own_state) y.data()[0] += T(passes_);
        if (mistake_ == Mistake::double_forward && std::is_same_v<T, double>) y.data()[place] += x.data()[place];
        return y;
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        Tensor<T> dx = mistake_ == Mistake::into_upstream ? dy : Tensor<T>(x_.shape());
        Tensor<T> dweight(Shape{3});
        for (Index i = 0; i < dy.size(); ++i) {
            dweight(i % 3) += dy.data()[i] * x_.data()[i];
            dx.data()[i] = weight_->value(i % 3) * dy.data()[i];
        }
        if (mistake_ == Mistake::sign) {
            for (T& entry : dx) entry = -entry;
        }
        if (mistake_ == Mistake::one_entry) dx.data()[place] += T(1e-6) * dy.data()[place];
        if (mistake_ == Mistake::one_not_a_number) dx.data()[place] = T(std::nan(""));
        if (mistake_ == Mistake::constant) dx.data()[0] += T(1);
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
    static constexpr Index place = (9 * 7 + 3) * 3 + 2;

    Mistake mistake_;
    sd::ParameterPtr<T> weight_;
    Tensor<T> x_;
    double passes_ = 0;
};

GradcheckReport check_scale(Mistake mistake) {
    return gradcheck([=]<class T>() { return Scale<T>(mistake); }, {11, 7, 3});
}

// Batch norm whose backward lacks the term of the mean, that of the variance, or both.
template <class T>
class BatchNormWithoutTerms {
public:
    BatchNormWithoutTerms(bool has_mean_term, bool has_variance_term)
        : has_mean_term_(has_mean_term), has_variance_term_(has_variance_term) {}
    Tensor<T> forward(const Tensor<T>& x, const Context&) {
        const sd::Moments<T> moments = sd::batch_moments(x);
        const auto factors = sd::batch_norm_factors(moments.mean, moments.m2, moments.count, layer_.weight()->value,
                                                    layer_.bias()->value, 1e-5);
        pass_ = {{x, factors.scale, factors.shift, sd::Activation::none}, moments.mean, factors.inverse_std, true};
        return sd::materialize(pass_.y);
    }
    Tensor<T> backward(const Tensor<T>& dy) {
        sd::BatchNormSums<T> sums = sd::batch_norm_sums(dy, pass_);
        layer_.weight()->add_grad(sums.dweight);
        layer_.bias()->add_grad(sums.dbias);
        if (!has_mean_term_) sums.dbias = Tensor<T>(Shape{3});
        if (!has_variance_term_) sums.dweight = Tensor<T>(Shape{3});
        return sd::materialize(sd::batch_norm_by_input(dy, pass_, sums));
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        layer_.visit(visitor);
    }

private:
    bool has_mean_term_, has_variance_term_;
    sd::BatchNorm2d<T> layer_{3};
    sd::BatchNormPass<T> pass_;
};

GradcheckReport check_batch_norm(bool has_mean_term, bool has_variance_term) {
    return gradcheck([=]<class T>() { return BatchNormWithoutTerms<T>(has_mean_term, has_variance_term); },
                     {4, 3, 2, 3});
}

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

TEST_CASE("a right layer passes, and the report has its table and its worst entry") {
    const GradcheckReport report = check_scale(Mistake::none);
    CHECK(report.passed());
    REQUIRE(report.rows.size() == 2);
    CHECK(report.rows[0].tensor == "input");
    CHECK(report.rows[1].tensor == "weight");
    CHECK(report.rows[0].probes == 64 + 8);
    CHECK(report.rows[1].probes == 3);
    CHECK(report.dual_error() < 1e-14);
    CHECK(report.difference_error() < 1e-8);
    CHECK(report.worst().error() == std::max(report.dual_error(), report.difference_error()));
    std::ostringstream table;
    table << report;
    for (const char* words : {"finite difference", "dual", "weight", "worst: gradient by ", "entry ("}) {
        CHECK_MESSAGE(table.str().find(words) != std::string::npos, words);
    }
    CHECK(table.str().find("FAILED") == std::string::npos);
}

TEST_CASE("planted errors are caught, each by the words that fit it") {
    CHECK(mentions(check_scale(Mistake::sign), "gradient by input"));
    CHECK(mentions(check_scale(Mistake::assigned), "the gradient by weight was not added"));
    CHECK(mentions(check_scale(Mistake::stale), "backward twice"));
    CHECK(mentions(check_scale(Mistake::unwritten), "forward: NaN"));
    CHECK(mentions(check_scale(Mistake::own_state), "forward twice"));
    CHECK(mentions(check_scale(Mistake::into_input), "wrote into its input"));
    CHECK(mentions(check_scale(Mistake::into_upstream), "wrote into the upstream gradient"));
    CHECK(mentions(check_scale(Mistake::constant), "zero upstream: the gradient by input"));
    CHECK_FALSE(mentions(check_scale(Mistake::constant), "zero upstream: the gradient by weight"));
}

TEST_CASE("a batch norm that forgets one of its two terms is caught") {
    CHECK(check_batch_norm(true, true).passed());
    for (const auto& [has_mean_term, has_variance_term] : {std::pair{false, true}, {true, false}, {false, false}}) {
        CAPTURE(has_mean_term);
        CAPTURE(has_variance_term);
        const GradcheckReport report = check_batch_norm(has_mean_term, has_variance_term);
        CHECK(mentions(report, "gradient by input"));
        CHECK_FALSE(mentions(report, "gradient by weight"));
        CHECK_FALSE(mentions(report, "gradient by bias"));
    }
}

TEST_CASE("a join that forgets the mask or the shortcut in its backward is caught") {
    CHECK(gradcheck([]<class T>() { return Join<T>(false, false); }, {3, 2, 2, 4}).passed());
    CHECK(mentions(gradcheck([]<class T>() { return Join<T>(true, false); }, {3, 2, 2, 4}), "gradient by input"));
    CHECK(mentions(gradcheck([]<class T>() { return Join<T>(false, true); }, {3, 2, 2, 4}), "gradient by input"));
}

TEST_CASE("an error in a single entry that no probe of its own meets is found by the directions, and named") {
    for (const Mistake mistake : {Mistake::one_entry, Mistake::one_not_a_number}) {
        const GradcheckReport report = check_scale(mistake);
        CHECK(report.worst().where == "entry (9, 3, 2)");
        CHECK(mentions(report, "gradient by input: entry (9, 3, 2): backward gave "));
    }
}

TEST_CASE("an error of the fast kernels alone is caught by finite differences, and named") {
    const GradcheckReport report = check_scale(Mistake::double_forward);
    CHECK(report.dual_error() < 1e-12);
    CHECK(report.difference_error() > 1e-3);  // of a direction that the entry is one 231st of
    CHECK(mentions(report, "gradient by input: entry (9, 3, 2)"));
    CHECK(mentions(report, "by finite differences"));
    CHECK(mentions(report, "dual numbers, through the plain loops, give another output"));
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

}  // namespace test_gradcheck
