// TensorBoard's files of events, as a resumed run reads them, and the bytes of an event, which the checksums of a file
// would keep from its reader.
#include "fuzz.hpp"

#include "sd/logs/tensorboard_logger.hpp"

#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view content(reinterpret_cast<const char*>(data), size);
    const sd::LogRecord start{sd::LogEvent::fit_start, {.epoch = 1, .batch = 4}, {}};
    sd_test::reads_or_refuses(data, size,
                              [&](auto) { return sd::TensorBoardLogger::size_until(start, content, "fuzz"); });
    (void)sd::detail::bytes_field(content, 10);
    return 0;
}
