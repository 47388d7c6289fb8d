// The machine that multiplies pairs of bfloat16, for a test.
#pragma once

#include "sd/cpu/tile_machines.hpp"

namespace sd_test {

/// Has a machine used, nullptr for floats, until the end of its scope.
class UseTileMachine {
public:
    explicit UseTileMachine(const sd::cpu::TileMachine* machine) : before_(sd::cpu::tile_machine()) {
        sd::cpu::set_tile_machine(machine);
    }
    ~UseTileMachine() { sd::cpu::set_tile_machine(before_); }
    UseTileMachine(const UseTileMachine&) = delete;
    UseTileMachine& operator=(const UseTileMachine&) = delete;

private:
    const sd::cpu::TileMachine* before_;
};

}  // namespace sd_test
