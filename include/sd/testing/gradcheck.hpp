// gradcheck: is a layer's backward the derivative of its forward?
//
// With a random tensor r, L = sum over all elements of r y is a number, and the layer's backward(r) must be dL/dx and
// dL/dparameter. Two judges that know nothing of the backward pass say what these are:
//
//     finite differences   (L(v + h d) - L(v - h d)) / 2h in double, through the kernels that users run, at two step
//                          sizes h: where the two disagree there is a kink (ReLU, max pooling) within reach and the
//                          probe does not count; where they agree with each other, and not with backward, it is wrong
//     dual numbers         the same layer, built with Dual for its scalar, through the plain loops of reference/: exact
//                          to rounding
//
// Directions d are single entries, and all entries at once with random signs, so that no entry stays unseen.
#pragma once

#include "sd/core/philox.hpp"
#include "sd/cpu/pending.hpp"
#include "sd/nn/context.hpp"
#include "sd/nn/visit.hpp"
#include "sd/testing/dual.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iomanip>
#include <limits>
#include <ostream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

SD_NAMESPACE_BEGIN

namespace testing {

/// Settings of gradcheck().
struct GradcheckOptions {
    Context context = Context::train({.step = 0, .seed = 0});  ///< of every pass, so masks are the same in all
    std::uint64_t seed = 0;                                    ///< of the input, the projection and the directions
    Index entries = 64;                  ///< single entries probed of each tensor; smaller tensors whole
    Index directions = 8;                ///< random directions over all entries of each tensor
    double step = 1e-5;                  ///< h of the finite differences; the other one is 2h
    double difference_tolerance = 1e-7;  ///< largest error of finite differences over the largest entry
    double dual_tolerance = 1e-12;       ///< largest error of dual numbers over the largest entry
    double parameter_noise = 0.25;       ///< parameters move by up to this, so that ones and zeros hide nothing
};

/// What was found for one tensor: the input or a parameter.
struct GradcheckRow {
    /// "input" or the name of a parameter
    std::string tensor;
    Index probes = 0;             ///< entries and directions
    Index kinks = 0;              ///< probes that finite differences cannot judge
    double difference_error = 0;  ///< largest |backward - differences| / largest entry
    double dual_error = 0;        ///< largest |backward - dual| / largest entry
    std::string worst;            ///< the probe with the largest error: its entry, what backward gave, what is right
};

/// What gradcheck() found.
struct GradcheckReport {
    std::vector<GradcheckRow> rows;  ///< the input, then each parameter
    std::vector<std::string> failures;  ///< in words; empty if the layer passed

    /// Whether all is well.
    [[nodiscard]] bool passed() const { return failures.empty(); }
    /// The largest of all rows.
    [[nodiscard]] double difference_error() const {
        double worst = 0;
        for (const GradcheckRow& row : rows) worst = std::max(worst, row.difference_error);
        return worst;
    }
    /// The largest of all rows.
    [[nodiscard]] double dual_error() const {
        double worst = 0;
        for (const GradcheckRow& row : rows) worst = std::max(worst, row.dual_error);
        return worst;
    }

    /// Prints a table, then the failures.
    friend std::ostream& operator<<(std::ostream& stream, const GradcheckReport& report) {
        stream << std::left << std::setw(36) << "gradient by" << std::right << std::setw(8) << "probes" << std::setw(8)
               << "kinks" << std::setw(14) << "differences" << std::setw(14) << "dual"
               << "  worst\n";
        for (const GradcheckRow& row : report.rows) {
            stream << std::left << std::setw(36) << row.tensor << std::right << std::setw(8) << row.probes
                   << std::setw(8) << row.kinks << std::scientific << std::setprecision(1) << std::setw(14)
                   << row.difference_error << std::setw(14) << row.dual_error << std::defaultfloat << "  " << row.worst
                   << '\n';
        }
        for (const std::string& failure : report.failures) stream << "FAILED: " << failure << '\n';
        return stream;
    }
};

namespace detail {

/// Elements uniform in [low, high), a function of seed and stream.
inline Tensor<double> random_elements(const Shape& shape, std::uint64_t seed, std::uint32_t stream, double low,
                                      double high) {
    auto tensor = Tensor<double>::empty(shape);
    for (Index i = 0; i < tensor.size(); ++i) {
        const auto words = random_words(seed, Stream::synthetic, 0, stream, static_cast<std::uint32_t>(i));
        tensor.data()[i] = low + (high - low) * uniform_from(words[0]);
    }
    return tensor;
}

inline Tensor<Dual> to_dual(const Tensor<double>& x) {
    Tensor<Dual> result(x.shape());
    std::transform(x.begin(), x.end(), result.begin(), [](double value) { return Dual(value); });
    return result;
}

inline double dot(const Tensor<double>& a, const Tensor<double>& b) {
    double sum = 0;
    for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
    return sum;
}

inline bool same_elements(const Tensor<double>& a, const Tensor<double>& b) {
    return a.shape() == b.shape() && std::equal(a.begin(), a.end(), b.begin());
}

/// A direction of unit length in which a tensor is moved: one entry, or all of them with random signs.
struct Direction {
    Index entry = -1;  ///< -1: all
    std::uint64_t seed = 0;
    std::uint32_t stream = 0;
    Index size = 0;

    [[nodiscard]] double at(Index i) const {
        if (entry >= 0) return i == entry ? 1 : 0;
        const auto words = random_words(seed, Stream::synthetic, 1, stream, static_cast<std::uint32_t>(i));
        return ((words[0] & 1U) != 0 ? 1 : -1) / std::sqrt(static_cast<double>(size));
    }
    [[nodiscard]] std::string name(const Shape& shape) const {
        if (entry < 0) return text("a direction over all entries");
        std::string indices;
        Index rest = entry;
        for (Index d = shape.rank() - 1; d >= 0; --d) {
            indices = text(rest % shape[d], indices.empty() ? "" : ", ", indices);
            rest /= shape[d];
        }
        return text("entry (", indices, ")");
    }
};

/// Single entries spread at random, then directions over all entries.
inline std::vector<Direction> directions_of(const Tensor<double>& tensor, std::uint32_t stream,
                                            const GradcheckOptions& options) {
    std::vector<Direction> result;
    const Index size = tensor.size();
    const bool whole = size <= options.entries;
    for (Index i = 0; i < std::min(size, options.entries); ++i) {
        const auto words = random_words(options.seed, Stream::synthetic, 2, stream, static_cast<std::uint32_t>(i));
        const Index entry = whole ? i : static_cast<Index>(uniform_below(words[0], static_cast<std::uint32_t>(size)));
        result.push_back({entry, options.seed, stream, size});
    }
    for (Index i = 0; i < (whole ? 0 : options.directions); ++i) {
        result.push_back({-1, options.seed, stream * 1000U + static_cast<std::uint32_t>(i) + 1U, size});
    }
    return result;
}

/// A layer with the handles that gradcheck moves: its input first, then its parameters.
template <class T, class Layer>
class Checked {
public:
    struct Variable {
        std::string name;
        Tensor<T>* value;
        Parameter<T>* parameter;  ///< nullptr for the input
    };

    Checked(Layer layer, Tensor<T> input, const Context& context)
        : layer_(std::move(layer)), x_(std::move(input)), context_(context) {
        variables_.push_back({"input", &x_, nullptr});
        for_each_parameter(layer_, [&](const std::string& name, auto& parameter) {
            variables_.push_back({name, &parameter->value, parameter.get()});
        });
    }
    Checked(const Checked&) = delete;
    Checked& operator=(const Checked&) = delete;

    Layer& layer() { return layer_; }
    std::vector<Variable>& variables() { return variables_; }
    Tensor<T> forward() { return materialize(Pending<T>(layer_.forward(x_, context_))); }
    Tensor<T> backward(const Tensor<T>& dy) { return layer_.backward(dy); }

private:
    Layer layer_;
    Tensor<T> x_;
    Context context_;
    std::vector<Variable> variables_;
};

/// Copies parameters and buffers from one layer to its twin of another scalar type.
template <class From, class To>
void copy_state(From& from, To& to) {
    std::vector<Tensor<double>> tensors;
    std::vector<std::int64_t> counts;
    const auto take = [&]<class Buffer>(Buffer& buffer) {
        if constexpr (std::is_same_v<Buffer, std::int64_t>) {
            counts.push_back(buffer);
        } else {
            tensors.push_back(buffer.clone());
        }
    };
    for_each_state(
        from, [&](const std::string&, auto& parameter) { take(parameter->value); },
        [&](const std::string&, auto& buffer) { take(buffer); });
    std::size_t tensor = 0;
    std::size_t count = 0;
    const auto give = [&]<class Buffer>(Buffer& buffer) {
        if constexpr (std::is_same_v<Buffer, std::int64_t>) {
            buffer = counts.at(count++);
        } else {
            buffer = to_dual(tensors.at(tensor++));
        }
    };
    for_each_state(
        to, [&](const std::string&, auto& parameter) { give(parameter->value); },
        [&](const std::string&, auto& buffer) { give(buffer); });
}

/// Forgets all gradients and leaves NaN where they were: a backward that adds to what it should set shows.
template <class Layer>
void forget_gradients(Layer& layer) {
    for_each_parameter(layer, [](const std::string&, auto& parameter) {
        if (parameter->grad) parameter->grad.fill(std::numeric_limits<double>::quiet_NaN());
        parameter->zero_grad();
    });
}

/// The gradients after one backward: by the input, then by each parameter; zeros where none was received.
template <class Layer>
std::vector<Tensor<double>> gradients(Checked<double, Layer>& checked, const Tensor<double>& dy) {
    poison_pool();
    std::vector<Tensor<double>> result{checked.backward(dy).clone()};
    for (auto& variable : checked.variables()) {
        if (variable.parameter == nullptr) continue;
        result.push_back(variable.parameter->has_grad ? variable.parameter->grad.clone()
                                                      : Tensor<double>(variable.value->shape()));
    }
    return result;
}

/// Directional derivatives by central differences with step h.
template <class Layer>
double difference(Checked<double, Layer>& checked, Tensor<double>& value, const Direction& direction,
                  const Tensor<double>& dy, double h) {
    const Tensor<double> before = value.clone();
    const auto loss_at = [&](double distance) {
        for (Index i = 0; i < value.size(); ++i) value.data()[i] = before.data()[i] + distance * direction.at(i);
        return dot(dy, checked.forward());
    };
    const double slope = (loss_at(h) - loss_at(-h)) / (2 * h);
    std::copy(before.begin(), before.end(), value.begin());
    return slope;
}

/// Directional derivatives by dual numbers, Dual::directions at a time.
template <class Layer>
std::vector<double> dual_derivatives(Checked<Dual, Layer>& checked, Tensor<Dual>& value,
                                     const std::vector<Direction>& directions, const Tensor<double>& dy) {
    std::vector<double> result;
    for (std::size_t first = 0; first < directions.size(); first += Dual::directions) {
        const std::size_t count = std::min(Dual::directions, directions.size() - first);
        for (Index i = 0; i < value.size(); ++i) {
            for (std::size_t k = 0; k < count; ++k) value.data()[i].slope[k] = directions[first + k].at(i);
        }
        const Tensor<Dual> y = checked.forward();
        for (std::size_t k = 0; k < count; ++k) {
            double sum = 0;
            for (Index i = 0; i < y.size(); ++i) sum += dy.data()[i] * y.data()[i].slope[k];
            result.push_back(sum);
        }
        for (Index i = 0; i < value.size(); ++i) value.data()[i].slope = {};  // last: y may be the input itself
    }
    return result;
}

/// Compares one tensor's gradient with both judges.
template <class DoubleLayer, class DualLayer>
GradcheckRow check_tensor(Checked<double, DoubleLayer>& checked, Checked<Dual, DualLayer>& twin, std::size_t index,
                          const Tensor<double>& gradient, const Tensor<double>& dy, const GradcheckOptions& options) {
    Tensor<double>& value = *checked.variables()[index].value;
    const std::vector<Direction> directions = directions_of(value, static_cast<std::uint32_t>(index), options);
    const std::vector<double> exact = dual_derivatives(twin, *twin.variables()[index].value, directions, dy);

    GradcheckRow row;
    row.tensor = checked.variables()[index].name;
    double largest = 1e-3;
    for (const double entry : gradient) largest = std::max(largest, std::abs(entry));
    for (const double entry : exact) largest = std::max(largest, std::abs(entry));
    double worst = -1;
    for (std::size_t i = 0; i < directions.size(); ++i) {
        double ours = 0;
        for (Index j = 0; j < gradient.size(); ++j) ours += gradient.data()[j] * directions[i].at(j);
        const double near = difference(checked, value, directions[i], dy, options.step);
        const double far = difference(checked, value, directions[i], dy, 2 * options.step);
        ++row.probes;
        const double dual_error = std::abs(ours - exact[i]) / largest;
        double difference_error = std::abs(ours - near) / largest;
        if (std::abs(near - far) / largest > options.difference_tolerance) {
            ++row.kinks;
            difference_error = 0;
        }
        const auto raise = [](double& error, double to) { error = error >= to ? error : to; };  // NaN stays
        raise(row.dual_error, std::isnan(dual_error) ? HUGE_VAL : dual_error);
        raise(row.difference_error, std::isnan(difference_error) ? HUGE_VAL : difference_error);
        if (std::max(row.dual_error, row.difference_error) > worst) {
            worst = std::max(row.dual_error, row.difference_error);
            row.worst = text(directions[i].name(value.shape()), ": ", ours, ", right is ", exact[i]);
        }
    }
    return row;
}

}  // namespace detail

/// Checks the gradients of a layer by its input and by each of its parameters, see the head of this file, and that
///
///     - no value is read that was not written: memory that passes may reuse holds NaN, and so do old gradients
///     - a second backward gives the same gradient by the input, and adds the same gradients again
///     - a zero upstream gradient gives zeros
///
/// factory() makes the layer: a template lambda, []<class T>() { return MyBranch<T>(64); }, called with double and
/// with Dual. The layer has forward(x, context), backward(dy) and visit(visitor). x_shape is the shape of its input,
/// which is drawn from U(-1, 1). In evaluation (options.context), one training pass first gives buffers values.
/// Returns what was found; report.passed() says whether all is well. Throws what the layer throws.
template <class Factory>
[[nodiscard]] GradcheckReport gradcheck(const Factory& factory, const Shape& x_shape,
                                        const GradcheckOptions& options = {}) {
    using DoubleLayer = decltype(factory.template operator()<double>());
    using DualLayer = decltype(factory.template operator()<Dual>());
    const Tensor<double> x = detail::random_elements(x_shape, options.seed, 1, -1, 1);
    const Context context = options.context.training() ? options.context : Context::eval({.gradients = true});

    detail::Checked<double, DoubleLayer> checked(factory.template operator()<double>(), x.clone(), context);
    std::uint32_t stream = 2;
    for (auto& variable : checked.variables()) {
        if (variable.parameter == nullptr) continue;
        const double noise = options.parameter_noise;
        const auto moves = detail::random_elements(variable.value->shape(), options.seed, ++stream, -noise, noise);
        for (Index i = 0; i < moves.size(); ++i) variable.value->data()[i] += moves.data()[i];
    }
    if (!context.training()) {
        (void)Pending<double>(checked.layer().forward(x, Context::train({.step = 0, .seed = options.seed})));
    }
    detail::Checked<Dual, DualLayer> twin(factory.template operator()<Dual>(), detail::to_dual(x), context);
    detail::copy_state(checked.layer(), twin.layer());

    GradcheckReport report;
    const auto require = [&](bool holds, const std::string& what) {
        if (!holds) report.failures.push_back(what);
    };

    poison_pool();
    const Tensor<double> y = checked.forward();
    require(std::none_of(y.begin(), y.end(), [](double v) { return std::isnan(v); }),
            "forward: NaN in the output, so memory was read that had not been written");
    const Tensor<double> dy = detail::random_elements(y.shape(), options.seed, 2, -1, 1);

    detail::forget_gradients(checked.layer());
    const auto once = detail::gradients(checked, dy);
    const auto twice = detail::gradients(checked, dy);
    require(detail::same_elements(once[0], twice[0]), "backward twice: another gradient by the input");
    for (std::size_t i = 1; i < once.size(); ++i) {
        Tensor<double> doubled = once[i].clone();
        for (double& entry : doubled) entry *= 2;
        require(detail::same_elements(doubled, twice[i]),
                text("backward twice: the gradient by ", checked.variables()[i].name, " was not added to the first"));
    }
    (void)checked.forward();
    detail::forget_gradients(checked.layer());
    const auto zeros = detail::gradients(checked, Tensor<double>(dy.shape()));
    for (std::size_t i = 0; i < zeros.size(); ++i) {
        require(std::all_of(zeros[i].begin(), zeros[i].end(), [](double entry) { return entry == 0; }),
                text("zero upstream: the gradient by ", checked.variables()[i].name, " is not zero"));
    }

    for (std::size_t i = 0; i < once.size(); ++i) {
        report.rows.push_back(detail::check_tensor(checked, twin, i, once[i], dy, options));
        const GradcheckRow& row = report.rows.back();
        require(row.dual_error <= options.dual_tolerance, text("gradient by ", row.tensor, ": ", row.worst));
        require(row.difference_error <= options.difference_tolerance,
                text("gradient by ", row.tensor, " against finite differences: ", row.worst));
        require(2 * row.kinks <= row.probes || row.probes == 0,
                text("gradient by ", row.tensor, ": ", row.kinks, " of ", row.probes,
                     " probes meet a kink; take another seed or a smaller step"));
    }
    return report;
}

}  // namespace testing

SD_NAMESPACE_END
