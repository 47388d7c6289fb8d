// Each unit must have run the code of its own settings, whichever the linker met first.
#include "unit.hpp"

#include <iostream>

namespace {

int failures = 0;

void expect(const Report& got, const std::string& word, double product, int threads, bool checks_bounds) {
    const bool own = got.settings.find('_' + word) != std::string::npos &&
                     got.tensor_type.find(got.settings) != std::string::npos && got.product == product &&
                     got.threads == threads && got.checks_bounds == checks_bounds;
    if (!own) ++failures;
    std::cout << (own ? "own code: " : "NOT ITS OWN CODE: ") << got.settings << ", type " << got.tensor_type
              << ", product " << got.product << ", threads " << got.threads << ", checks bounds " << got.checks_bounds
              << '\n';
}

}  // namespace

int main() {
    expect(plain(), "base_serial_unchecked", 0, 1, false);
    expect(checked(), "base_serial_checked", 0, 1, true);
#if defined(WITH_openmp)
    expect(openmp(), "base_openmp_unchecked", 0, 3, false);
#endif
#if defined(WITH_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        expect(avx2(), "avx2_serial_unchecked", 0x1p-24, 1, false);
    } else {
        std::cout << "this processor has no AVX2\n";
    }
#endif
    return failures;
}
