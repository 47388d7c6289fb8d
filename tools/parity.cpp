// sd_parity DIR: checks the library against cases that PyTorch computed, one safetensors file a case.
// tools/make_parity_cases.py writes such cases and describes the format.
#include "device.hpp"
#include "parity_case.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <vector>

int main(int argc, char** argv) {
    CLI::App app{"Checks the library against cases that PyTorch computed."};
    std::string directory;
    app.add_option("directory", directory, "folder of .safetensors cases")->required()->check(CLI::ExistingDirectory);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp& help) {
        return app.exit(help);
    } catch (const CLI::ParseError& error) {
        std::cerr << "parity: " << error.what() << '\n';
        return 2;
    }

    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());

    sd::set_warning_handler({});  // the networks here are small on purpose
    int passed = 0;
    int failed = 0;
    int missing = 0;
    for (const auto& file : files) {
        std::string line;
        bool agrees = false;
        try {
            const parity::Result result = parity::run_case<tools::Device>(file.string());
            agrees = result.agrees();
            line = result.summary();
        } catch (const parity::NotInTheLibrary& error) {
            line = error.what();
            ++missing;
        } catch (const std::exception& error) {
            line = error.what();
        }
        ++(agrees ? passed : failed);
        std::cout << (agrees ? "pass " : "FAIL ") << file.stem().string() << "  " << line << std::endl;
    }
    if (files.empty()) std::cerr << "parity: " << directory << ": no .safetensors file in it\n";
    std::cout << passed << " passed, " << failed << " failed";
    if (missing > 0) std::cout << ", " << missing << " of them not in the library";
    std::cout << std::endl;
    return failed == 0 && passed > 0 ? 0 : 1;
}
