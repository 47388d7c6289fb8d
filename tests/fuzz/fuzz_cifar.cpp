// Files of CIFAR-10 and CIFAR-100.
#include "fuzz.hpp"

#include "sd/data/cifar.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    for (const auto& format : {sd::detail::cifar10_format(), sd::detail::cifar100_format()}) {
        sd_test::reads_or_refuses(data, size, [&](auto bytes) {
            sd::detail::CifarRecords records;
            sd::detail::append_cifar(bytes, "fuzz", format, records);
            return records;
        });
    }
    return 0;
}
