// The gradients of every layer, branch, policy and loss on the device's kernels, without a device.
#include "cuda_emulator.hpp"

#include "sd/device/kernels.hpp"

#include "../tools/gradcheck_cases.hpp"

#include <doctest/doctest.h>

#include <string>

namespace {

using sd::Context;
using sd::Index;
using sd::Shape;
using sd::Tensor;
using sd_test::Emulator;

/// dx(i) = factor dy(i) for the first `size` elements, by a kernel with a mistake if asked for.
struct ScaleKernel {
    Index size;
    double factor;
    bool forgets_last_thread;
    const double* dy;
    double* dx;
    void operator()(Index i) const {
        const bool is_forgotten = forgets_last_thread && i == size - 1;
        dx[i] = is_forgotten ? 0 : factor * dy[i];
    }
};

/// y = 1.5 x, whose backward is a kernel of a device.
template <class T, class Device>
class Scale {
public:
    explicit Scale(bool forgets_last_thread) : forgets_last_thread_(forgets_last_thread) {}

    Tensor<T, Device> forward(const Tensor<T, Device>& x, const Context&) {
        auto y = x.clone();
        sd::scale_by(y, T(1.5));
        return y;
    }
    Tensor<T, Device> backward(const Tensor<T, Device>& dy) {
        auto dx = Tensor<T, Device>::empty(dy.shape());
        if constexpr (std::is_same_v<Device, Emulator>) {
            sd::cuda::launch_each<Device>(dy.size(),
                                          ScaleKernel{dy.size(), 1.5, forgets_last_thread_, dy.data(), dx.data()});
        }
        return dx;
    }
    template <class Visitor>
    void visit(Visitor&&) {}

private:
    bool forgets_last_thread_;
};

sd::testing::GradcheckReport check_scale(bool forgets_last_thread) {
    return sd::testing::gradcheck<Emulator>(
        [=]<class T, class Device>() { return Scale<T, Device>(forgets_last_thread); }, {11, 7, 5});
}

}  // namespace

TEST_CASE("device: gradients of all layers, branches and networks") {
    sd::set_warning_handler({});  // the networks here are small on purpose
    int cases = 0;
    gradcheck_cases::all([&](const std::string& name, const auto& factory, const Shape& x_shape,
                             const sd::testing::GradcheckOptions& options) {
        const auto report = sd::testing::gradcheck<Emulator>(factory, x_shape, options);
        CAPTURE(name);
        CAPTURE(report);
        CHECK(report.passed());
        ++cases;
    });
    CHECK(cases > 150);
}

TEST_CASE("device: a kernel's error in a single element is caught, and named") {
    CHECK(check_scale(false).passed());
    const auto report = check_scale(true);
    CHECK_FALSE(report.passed());
    CHECK(report.worst().where == "entry (10, 6, 4)");
    CHECK(report.difference_error() > 1e-3);
    CHECK(report.dual_error() > 1e-3);
}
