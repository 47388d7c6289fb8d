// The main function of a fuzz target without libFuzzer: runs it once on every file of the folders given as arguments.
#include "sd/io/file.hpp"

#include <exception>
#include <filesystem>
#include <iostream>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

int main(int argc, char** argv) {
    int files = 0;
    try {
        for (int i = 1; i < argc; ++i) {
            for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
                std::cout << entry.path().string() << std::endl;
                const auto bytes = sd::read_file(entry.path());
                LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
                ++files;
            }
        }
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
    std::cout << files << " files\n";
    return files > 0 ? 0 : 1;
}
