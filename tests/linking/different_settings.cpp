// Each unit must have run the code of its own settings, whichever the linker met first.
#include "unit.hpp"

#include <iostream>
#include <set>

namespace {

int failures = 0;

// `deviations` is what the unit's namespace has beyond a plain build's name.
void expect(const Report& got, const std::string& deviations, int threads, bool checks_bounds) {
    static std::set<std::string> names;
#if defined(__aarch64__)
    const bool fused = true;
#else
    const bool fused = deviations.find("_fma") != std::string::npos;
#endif
    const bool own = got.settings == PLAIN_NAME + deviations && names.insert(got.settings).second &&
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
    expect(serial(), "_serial", 1, false);
    expect(checked(), "_serial_checked", 1, true);
#if defined(WITH_plain)
    expect(plain(), "", 3, false);
#endif
#if defined(WITH_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        expect(avx2(), "_avx2_fma_serial", 1, false);
    } else {
        std::cout << "this CPU has no AVX2\n";
    }
#endif
    return failures;
}
