// sd_gradcheck: checks the gradients of every layer, branch, policy and loss of the library.
#include "device.hpp"
#include "gradcheck_cases.hpp"

#include <iomanip>
#include <iostream>

int main() {
    sd::set_warning_handler({});  // the networks here are small on purpose
    std::cout << "judges: finite differences of what the " << tools::device_name << "'s kernels compute in double,\n"
              << "and dual numbers, which run through the plain loops on the processor\n";
    int passed = 0;
    int failed = 0;
    std::cout << std::left << std::setw(72) << "gradients of" << std::right << std::setw(18) << "finite difference"
              << std::setw(10) << "dual" << '\n';
    gradcheck_cases::all([&](const std::string& name, const auto& factory, const sd::Shape& x_shape,
                             const sd::testing::GradcheckOptions& options) {
        try {
            const auto report = sd::testing::gradcheck<tools::Device>(factory, x_shape, options);
            ++(report.passed() ? passed : failed);
            std::cout << std::left << std::setw(72) << name << std::right << std::scientific << std::setprecision(1)
                      << std::setw(18) << report.difference_error() << std::setw(10) << report.dual_error() << '\n';
            if (!report.passed()) std::cout << report;
        } catch (const std::exception& error) {
            ++failed;
            std::cout << "FAILED: " << name << ": " << error.what() << '\n';
        }
    });
    std::cout << passed << " passed, " << failed << " failed" << std::endl;
    return failed == 0 && passed > 0 ? 0 : 1;
}
