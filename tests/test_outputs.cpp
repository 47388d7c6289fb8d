// What a run will write is tried before it begins, and a folder that cannot be synchronised ends nothing.
#include "messages.hpp"
#include "temporary_directory.hpp"

#include "sd/io/file.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace test_outputs {

using sd_test::contains;
using sd_test::error_of;
using sd_test::TemporaryDirectory;

namespace {

std::string content_of(const std::filesystem::path& path) {
    const auto bytes = sd::read_file(path);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string refusal(const std::filesystem::path& path) {
    return error_of<std::runtime_error>([&] { sd::expect_writable(path); });
}

std::size_t files_in(const std::filesystem::path& directory) {
    std::size_t count = 0;
    for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(directory)) ++count;
    return count;
}

}  // namespace

TEST_CASE("a file that can be written is accepted, and stays as it is") {
    const TemporaryDirectory directory;
    const auto file = directory.write("weights", "good");
    const auto time = std::filesystem::last_write_time(file);
    std::filesystem::create_symlink(file, directory.path() / "link");
    CHECK(refusal(file) == "accepted");
    CHECK(refusal(directory.path() / "link") == "accepted");
    CHECK(refusal(directory.path() / "none yet") == "accepted");
    CHECK(refusal("none_yet_in_the_current_folder") == "accepted");
    CHECK(content_of(file) == "good");
    CHECK(std::filesystem::last_write_time(file) == time);
    CHECK(files_in(directory.path()) == 2);
}

TEST_CASE("what cannot be written is refused by its name") {
    const TemporaryDirectory directory;
    const auto file = directory.write("file", "");
    const auto expect = [](const std::filesystem::path& path, const std::string& words) {
        CHECK(contains(refusal(path), path.string() + words));
    };
    expect(directory.path(), ": kind of file: got a directory, expected a regular file");
    expect("/dev/null", ": kind of file: got a special file, expected a regular file");
    expect(directory.path() / "none/weights", ": creating a file in its directory: got No such file or directory");
    expect(file / "weights", ": creating a file in its directory: got Not a directory");
    expect("/proc/weights", ": creating a file in its directory: got ");
    CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("a folder that cannot be synchronised is warned of once, and its file is whole") {
    sd_test::Warnings warnings;
    for (int i = 0; i < 2; ++i) {
        sd::detail::synchronise_directory("/proc");  // which says EINVAL
        sd::detail::synchronise_directory("/nowhere");
    }
    REQUIRE(warnings.messages.size() == 2);
    CHECK(contains(warnings.messages[0], "/proc: synchronising the directory: got Invalid argument"));
    CHECK(contains(warnings.messages[1], "/nowhere: synchronising the directory: got No such file or directory"));
}

}  // namespace test_outputs
