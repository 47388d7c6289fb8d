// The contract of devices, kept by the CPU and by the emulator; and what does not keep it is no device.
#include "cuda_emulator.hpp"

#include "sd/device/kernels.hpp"
#include "sd/sd.hpp"

#include <tuple>

namespace {
using ContractDevices = std::tuple<sd::Cpu, sd_test::Emulator>;
}

#include "device_contract_cases.hpp"

namespace {

// Devices that lack one thing each.
struct SaysNothing {};
struct HasNoMemory {
    static constexpr bool in_cpu_memory = false, runs_beside_cpu = false, replays_steps = false;
};
template <bool beside_cpu, bool replays>
struct HasMemory {
    static constexpr bool in_cpu_memory = false, runs_beside_cpu = beside_cpu, replays_steps = replays;
    friend void poison_pool(HasMemory) {}
};

}  // namespace

SD_NAMESPACE_BEGIN
template <class T, bool beside_cpu, bool replays>
class Storage<T, HasMemory<beside_cpu, replays>> : public Storage<T, Cpu> {
public:
    using Storage<T, Cpu>::Storage;
};
SD_NAMESPACE_END

TEST_CASE("what lacks a part of the contract is no device") {
    CHECK_FALSE(sd::ComputeDevice<SaysNothing>);
    CHECK_FALSE(sd::ComputeDevice<HasNoMemory>);
    CHECK(sd::ComputeDevice<HasMemory<false, false>>);
    CHECK_FALSE(sd::ComputeDevice<HasMemory<true, false>>);  // its readbacks are missing
    CHECK_FALSE(sd::ComputeDevice<HasMemory<false, true>>);  // its graphs are missing
    CHECK_FALSE(sd::HasKernels<HasMemory<false, false>, float>);
    CHECK_FALSE(sd::cuda::CompleteAccelerator<sd::Cpu>);
    CHECK(sd::cuda::CompleteAccelerator<sd_test::Emulator>);
    CHECK(sd::HasKernels<sd_test::Emulator, sd::bfloat16>);
    CHECK(sd::HasKernels<sd::Cpu, sd::bfloat16>);
}
