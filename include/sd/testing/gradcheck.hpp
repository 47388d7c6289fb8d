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
// A device's layer is judged by both too: L comes from its own kernels, and dual numbers are the CPU's.
//
// Directions d are single entries, and all entries at once with random signs, so that no entry stays unseen.
#pragma once

#include "sd/core/finite.hpp"
#include "sd/core/philox.hpp"
#include "sd/core/storage.hpp"
#include "sd/testing/gradcheck_judges.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

SD_NAMESPACE_BEGIN

namespace testing {

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

inline bool same_elements(const Tensor<double>& a, const Tensor<double>& b) {
    return a.shape() == b.shape() && std::equal(a.begin(), a.end(), b.begin());
}

/// Whether a forward pass in dual numbers gave the same values.
inline bool same_values(const Tensor<double>& y, const Tensor<Dual>& twin, double tolerance) {
    if (!(y.shape() == twin.shape())) return false;
    double largest = 1;
    for (const double value : y) largest = std::max(largest, std::abs(value));
    return std::equal(y.begin(), y.end(), twin.begin(),
                      [&](double a, const Dual& b) { return std::abs(a - b.value) <= tolerance * largest; });
}

/// Moves every parameter by up to `noise`.
template <class Device>
void move_parameters(Checked<double, Device>& checked, std::uint64_t seed, double noise) {
    std::uint32_t stream = 2;
    for (auto& variable : checked.variables()) {
        if (variable.parameter == nullptr) continue;
        Tensor<double> moved = random_elements(variable.value->shape(), seed, ++stream, -noise, noise);
        add_to(moved, to_host(*variable.value));
        variable.value->write(moved.data());
    }
}

/// What holds of any backward, right or wrong in its formula. Returns the gradients, the input's first.
template <class Device, class Require>
std::vector<Tensor<double>> check_protocol(Checked<double, Device>& checked, const Tensor<double>& x,
                                           const Tensor<double>& dy, const Require& require) {
    const Tensor<double, Device> upstream = to_device<Device>(dy.clone());
    forget_gradients(checked);
    const auto once = gradients(checked, upstream);
    const auto twice = gradients(checked, upstream);
    require(same_elements(once[0], twice[0]), "backward twice: another gradient by the input");
    for (std::size_t i = 1; i < once.size(); ++i) {
        Tensor<double> doubled = once[i].clone();
        for (double& entry : doubled) entry *= 2;
        require(same_elements(doubled, twice[i]),
                text("backward twice: the gradient by ", checked.variables()[i].name, " was not added to the first"));
    }
    require(same_elements(to_host(*checked.variables()[0].value), x), "the layer wrote into its input");
    require(same_elements(to_host(upstream), dy), "backward wrote into the upstream gradient");

    (void)checked.forward();
    forget_gradients(checked);
    const auto zeros = gradients(checked, Tensor<double, Device>(dy.shape()));
    for (std::size_t i = 0; i < zeros.size(); ++i) {
        require(std::all_of(zeros[i].begin(), zeros[i].end(), [](double entry) { return entry == 0; }),
                text("zero upstream: the gradient by ", checked.variables()[i].name, " is not zero"));
    }
    return once;
}

/// gradcheck() of a layer and its twin, of which only the first has its parameters.
template <class Device>
GradcheckReport check_layer(Checked<double, Device>& checked, Checked<Dual>& twin, const Tensor<double>& x,
                            const Context& context, const GradcheckOptions& options) {
    move_parameters(checked, options.seed, options.parameter_noise);
    if (!context.training()) {
        (void)checked.forward(to_device<Device>(x), Context::train({.step = 0, .seed = options.seed}));
    }
    copy_state(checked, twin);

    GradcheckReport report;
    const auto require = [&](bool holds, const std::string& what) {
        if (!holds) report.failures.push_back(what);
    };

    poison_pool(Device());
    const Tensor<double> y = checked.forward().clone();
    require(all_finite(std::span<const double>(y)),
            "forward: NaN or infinity in the output; memory may have been read that had not been written");
    require(same_elements(y, checked.forward()), "forward twice: another output");
    require(same_values(y, twin.forward(), options.dual_tolerance),
            "forward: dual numbers, through the plain loops, give another output");

    const Tensor<double> dy = random_elements(y.shape(), options.seed, 2, -1, 1);
    const auto gradients = check_protocol(checked, x, dy, require);
    for (std::size_t i = 0; i < gradients.size(); ++i) {
        report.rows.push_back(check_tensor(checked, twin, i, gradients[i], dy, options));
        const GradcheckRow& row = report.rows.back();
        require(row.dual_error <= options.dual_tolerance, row.summary());
        require(row.difference_error <= options.difference_tolerance, row.summary() + ", by finite differences");
        require(2 * row.kinks <= row.probes || row.probes == 0,
                text("gradient by ", row.tensor, ": ", row.kinks, " of ", row.probes,
                     " probes meet a kink; take another seed or a smaller step"));
    }
    return report;
}

/// The factory's layer of T on the device.
template <class T, class Device, class Factory>
auto made(const Factory& factory) {
    if constexpr (requires { factory.template operator()<T, Device>(); }) {
        return factory.template operator()<T, Device>();
    } else {
        static_assert(std::is_same_v<Device, Cpu>, "gradcheck on a device: the factory is []<class T, class Device>()");
        return factory.template operator()<T>();
    }
}

}  // namespace detail

/// Checks the gradients of a layer by its input and by each of its parameters, see the head of this file, and that
///
///     - no value is read that was not written: memory that passes may reuse holds NaN, and so do old gradients
///     - a second forward gives the same output, so masks are a function of the context, and dual numbers give it too
///     - a second backward gives the same gradient by the input, and adds the same gradients again
///     - neither pass writes into what it was given
///     - a zero upstream gradient gives zeros
///
/// factory() makes the layer: a template lambda, `[]<class T>() { return MyBranch<T>(64); }`, called with double and
/// with Dual; for another device than the CPU `[]<class T, class Device>() { return MyBranch<T, Device>(64); }`,
/// called with double and the device, and with Dual and Cpu. The layer has forward(x, context), backward(dy) and
/// visit(visitor). x_shape is the shape of its input, which is drawn from U(-1, 1). In evaluation (options.context),
/// one training pass first gives buffers values. Returns what was found; report.passed() says whether all is well.
/// Throws what the layer throws.
template <class Device = Cpu, class Factory>
[[nodiscard]] GradcheckReport gradcheck(const Factory& factory, const Shape& x_shape,
                                        const GradcheckOptions& options = {}) {
    using DoubleLayer = decltype(detail::made<double, Device>(factory));
    using DualLayer = decltype(detail::made<Dual, Cpu>(factory));
    const Tensor<double> x = detail::random_elements(x_shape, options.seed, 1, -1, 1);
    const Context context = options.context.training() ? options.context : Context::eval({.gradients = true});
    detail::CheckedLayer<double, DoubleLayer, Device> checked(detail::made<double, Device>(factory), x.clone(),
                                                              context);
    detail::CheckedLayer<Dual, DualLayer, Cpu> twin(detail::made<Dual, Cpu>(factory), detail::to_dual(x), context);
    return detail::check_layer(checked, twin, x, context, options);
}

}  // namespace testing

SD_NAMESPACE_END
