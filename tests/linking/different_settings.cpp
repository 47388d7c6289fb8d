// Each unit must have run the code of its own settings, whichever the linker met first.
#include "unit.hpp"

#include <iostream>
#include <set>

namespace {

int failures = 0;

void expect(const Report& got, const std::string& word, int threads, bool checks_bounds) {
    static std::set<std::string> names;
    const bool fused = got.settings.find("_fma_") != std::string::npos;
    const bool own = got.settings.find('_' + word + '_') != std::string::npos && names.insert(got.settings).second &&
                     got.tensor_type.find(got.settings) != std::string::npos &&
                     got.product == (fused ? 0x1p-24 : 0.0) && got.threads == threads &&
                     got.checks_bounds == checks_bounds;
    if (!own) ++failures;
    std::cout << (own ? "own code: " : "NOT ITS OWN CODE: ") << got.settings << ", type " << got.tensor_type
              << ", product " << got.product << ", threads " << got.threads << ", checks bounds " << got.checks_bounds
              << '\n';
}

}  // namespace

int main() {
    expect(plain(), "serial_unchecked", 1, false);
    expect(checked(), "serial_checked", 1, true);
#if defined(WITH_openmp)
    expect(openmp(), "openmp_unchecked", 3, false);
#endif
#if defined(WITH_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        expect(avx2(), "avx2_fma_serial_unchecked", 1, false);
    } else {
        std::cout << "this processor has no AVX2\n";
    }
#endif
    return failures;
}
