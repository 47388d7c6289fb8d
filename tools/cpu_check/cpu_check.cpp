// A program that was built for a newer CPU says so, before any other code of its own runs. Compiled for every x86-64.
#include <cerrno>
#include <cpuid.h>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

extern const bool sd_built_for[];

namespace {

struct Registers {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
};

struct InstructionSet {
    const char* name;
    unsigned leaf;
    unsigned subleaf;
    unsigned Registers::*where;
    unsigned bit;
    unsigned state;
};

// Bits of XCR0: the state that the system keeps when it switches threads.
constexpr unsigned ymm = 0x06;
constexpr unsigned zmm = 0xe6;

constexpr InstructionSet instruction_sets[] = {
#define SD_SET(macro, name, leaf, subleaf, register, bit, state) \
    {name, leaf, subleaf, &Registers::register, bit, state},
#include "instruction_sets.inc"
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
    Registers result;
    if (__get_cpuid_count(leaf, subleaf, &result.eax, &result.ebx, &result.ecx, &result.edx) == 0) return {};
    return result;
}

unsigned kept_state() {
    if ((cpuid(1, 0).ecx & bit_OSXSAVE) == 0) return 0;
    unsigned low = 0;
    unsigned high = 0;
    // volatile: not before the test above, where the instruction may be unknown
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

void print(const char* text) {
    // nothing is to be done if even this fails
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) std::_Exit(1);
}

// Before constructors of C++ objects, which may use the newer instructions. 101 is the first that programs may have.
__attribute__((constructor(101))) void check_cpu() {
    bool fits = true;
    unsigned index = 0;
    for (const InstructionSet& set : instruction_sets) {
        if (!sd_built_for[index++]) continue;
        const bool has = (cpuid(set.leaf, set.subleaf).*set.where >> set.bit & 1U) != 0;
        if (has && (kept_state() & set.state) == set.state) continue;
        if (fits) print(program_invocation_short_name);
        print(fits ? ": built for a newer CPU: this one has no " : ", ");
        print(set.name);
        fits = false;
    }
    if (fits) return;
    print("; ./run builds for this CPU, cmake -DSD_NATIVE=OFF for all\n");
    std::_Exit(1);
}

}  // namespace

// What the linker is asked for, so that it takes this file from its library.
extern "C" void sd_cpu_check();
extern "C" void sd_cpu_check() {}
