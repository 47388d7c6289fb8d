// Is said to use sets of instructions that no CPU has together, so it must end before anything of its own runs.
#include <cstdio>

namespace {

const int too_early = std::puts("runs on");

}  // namespace

int main() { return too_early < 0 ? 1 : 0; }
