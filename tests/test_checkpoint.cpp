// Checkpoints: what is saved is loaded bit for bit, nothing else is, and an error leaves everything as it was.
#include "messages.hpp"
#include "random.hpp"
#include "temporary_directory.hpp"

#include "sd/io/checkpoint_directory.hpp"
#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_checkpoint {

using sd::Checkpoint;
using sd::Tensor;
using sd_test::contains;
using sd_test::TemporaryDirectory;

namespace {

constexpr sd::StochasticDepthOptions stochastic() {
    return {.target_layer_name = "ResNetBasicBlock",
            .stochastic_method = sd::StochasticMethod::sample,
            .drop_rate = 0.5,
            .compute = sd::Compute::survivors};
}

/// A small network with its optimizer.
struct Run {
    explicit Run(std::uint64_t seed, sd::Index classes = 10)
        : model(sd::cifar_resnet<float>(8, {.num_classes = classes, .seed = seed})),
          optimizer(model.parameters(), {.learning_rate = 0.05, .momentum = 0.9, .weight_decay = 1e-4}) {}

    void train(std::uint64_t first_step, std::uint64_t steps) {
        for (std::uint64_t step = first_step; step < first_step + steps; ++step) {
            const auto images = sd_test::random_tensor<float>({4, 8, 8, 3}, step);
            const std::array<sd::Index, 4> labels{1, 0, 1, 0};
            optimizer.zero_grad();
            const auto logits = model.forward(images, sd::Context::train({.step = step, .seed = 42}));
            model.backward(sd::cross_entropy_by_input(logits, std::span<const sd::Index>(labels), 0.0),
                           sd::InputGradient::skipped);
            optimizer.step();
        }
    }

    [[nodiscard]] Checkpoint checkpoint() {
        Checkpoint result;
        sd::capture(result, model, optimizer);
        result.run = {{"batch", "7"}, {"epoch", "1"}};
        result.settings = {{"seed", "42"}, {"words", "a \"text\" \xc3\xa9\n"}};
        return result;
    }

    sd::BasicResNet<float> model;
    sd::Sgd<float> optimizer;
};

std::string bytes_of(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

/// The bytes of a checkpoint's file.
std::string written(const Checkpoint& checkpoint) {
    const TemporaryDirectory directory;
    sd::write_checkpoint(directory.path() / "a", checkpoint);
    return bytes_of(directory.path() / "a");
}

Checkpoint parse(const std::string& bytes) {
    return sd::parse_checkpoint(std::as_bytes(std::span(bytes)), "file.safetensors");
}

/// With what a file, or the call on it, is refused.
template <class Call>
std::string error_of(const Call& call) {
    try {
        call();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "accepted";
}
std::string error_of(const std::string& bytes) {
    return error_of([&] { (void)parse(bytes); });
}

std::vector<std::string> names_in(const std::filesystem::path& directory) {
    std::vector<std::string> names;
    for (const auto& file : std::filesystem::directory_iterator(directory)) names.push_back(file.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

std::string name_of(sd::Index batches) { return sd::detail::checkpoint_name(batches); }

/// A checkpoint small enough to try everything with.
Checkpoint small(const std::string& batch = "7") {
    Checkpoint checkpoint;
    checkpoint.model.add("w", Tensor<float>(sd::Shape{2}, {1, 2}));
    checkpoint.optimizer.add("w.momentum_buffer", Tensor<float>(sd::Shape{2}, {3, 4}));
    checkpoint.run = {{"batch", batch}};
    checkpoint.settings = {{"seed", "42"}};
    return checkpoint;
}

/// The CRC-32 of zlib, PNG and gzip, bit by bit: the reflected polynomial 0xEDB88320.
std::uint32_t crc32_bit_by_bit(const std::string& bytes) {
    std::uint32_t crc = ~std::uint32_t{0};
    for (const char byte : bytes) {
        crc ^= static_cast<unsigned char>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xEDB88320U : 0U);
    }
    return ~crc;
}

std::string little_endian(std::uint64_t value, int bytes) {
    std::string result;
    for (int i = 0; i < bytes; ++i) result += static_cast<char>(value >> (8 * i) & 0xFF);
    return result;
}

}  // namespace

TEST_CASE("the bytes are those of the format") {
    std::string header = R"({"__metadata__":{"checkpoint":"1","format":"pt","run.batch":"7","settings.seed":"42"},)"
                         R"("model.w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                         R"("optimizer.w.momentum_buffer":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},)"
                         R"("crc32":{"dtype":"U32","shape":[],"data_offsets":[16,20]}})";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const std::string before =
        little_endian(header.size(), 8) + header + std::string("\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40", 16);
    CHECK(written(small()) == before + little_endian(crc32_bit_by_bit(before), 4));
}

TEST_CASE("a run that loads a checkpoint goes on bit for bit, and nothing of the run is left out") {
    const sd_test::Warnings warnings;  // three blocks are few
    Run run(1);
    sd::apply_stochastic_depth(run.model, stochastic());
    run.train(0, 3);
    const std::string saved = written(run.checkpoint());
    CHECK(written(run.checkpoint()) == saved);
    const std::size_t optimizer_states = run.optimizer.state_dict().size();
    run.train(3, 3);

    Run other(2);
    sd::apply_stochastic_depth(other.model, stochastic());
    other.train(9, 2);  // its own past must not shine through
    const Checkpoint loaded = parse(saved);
    CHECK(loaded.run == std::map<std::string, std::string>{{"batch", "7"}, {"epoch", "1"}});
    CHECK(loaded.settings.at("words") == "a \"text\" \xc3\xa9\n");
    CHECK(static_cast<std::size_t>(loaded.optimizer.size()) == optimizer_states);
    sd::restore(loaded, other.model, other.optimizer);
    CHECK(written(other.checkpoint()) == saved);
    other.train(3, 3);
    CHECK(written(other.checkpoint()) == written(run.checkpoint()));
}

TEST_CASE("a plain network loads the checkpoint of a stochastic one, and back") {
    const sd_test::Warnings warnings;  // three blocks are few
    Run run(1);
    sd::apply_stochastic_depth(run.model, stochastic());
    run.train(0, 2);
    Run plain(2);
    sd::load_state_dict(plain.model, run.checkpoint().model);
    const auto x = sd_test::random_tensor<float>({2, 8, 8, 3}, 5);
    Run back(3);
    sd::apply_stochastic_depth(back.model, stochastic());
    sd::restore(parse(written(plain.checkpoint())), back.model, back.optimizer);
    const auto expected = run.model.forward(x, sd::Context::eval());
    const auto logits = back.model.forward(x, sd::Context::eval());
    CHECK(std::equal(logits.begin(), logits.end(), expected.begin()));
    // The plain network runs every branch at full strength: other numbers.
    CHECK(sd_test::relative_error(plain.model.forward(x, sd::Context::eval()), expected) > 1e-3);
}

TEST_CASE("a checkpoint of another model is refused with all that differs, and nothing is changed") {
    Run run(1);
    run.train(0, 1);
    const std::string before = written(run.checkpoint());
    const auto refused = [&](const Checkpoint& checkpoint) {
        return error_of([&] { sd::restore(parse(written(checkpoint)), run.model, run.optimizer); });
    };
    SUBCASE("other shapes") {
        Run other(2, 7);
        other.train(0, 1);
        const std::string error = refused(other.checkpoint());
        CHECK(contains(error, "file.safetensors: 2 of its tensors"));
        CHECK(contains(error, "\"fc.weight\": shape: got (7, 64), expected (10, 64)"));
        CHECK(contains(error, "\"fc.bias\": shape: got (7), expected (10)"));
    }
    SUBCASE("other names") {
        sd::BasicResNet<float> deeper = sd::cifar_resnet<float>(14, {.num_classes = 10, .seed = 2});
        Checkpoint checkpoint;
        sd::capture(checkpoint, deeper, sd::Sgd<float>(deeper.parameters()));
        const std::string error = refused(checkpoint);
        CHECK(contains(error, "\"layer1.1.bn1.bias\": got it, expected none"));
        CHECK(contains(error, "more"));  // 36 tensors are too many for a message
    }
    SUBCASE("an optimizer's state that does not fit") {
        Checkpoint checkpoint = run.checkpoint();
        checkpoint.optimizer.add("unknown.momentum_buffer", Tensor<float>(sd::Shape{2}));
        CHECK(contains(refused(checkpoint), "unknown.momentum_buffer"));
        checkpoint = Run(3).checkpoint();  // before its first step: no state
        checkpoint.optimizer.add("fc.bias.momentum_buffer", Tensor<float>(sd::Shape{2}));
        CHECK(contains(refused(checkpoint), "fc.bias.momentum_buffer: shape: got (2), expected (10)"));
        checkpoint = Run(3).checkpoint();
        checkpoint.optimizer.add("fc.bias.momentum_buffer", Tensor<double>(sd::Shape{10}));
        CHECK(contains(refused(checkpoint), "dtype: got F64, expected F32"));
    }
    CHECK(written(run.checkpoint()) == before);
}

TEST_CASE("every shortened and every damaged file is refused") {
    const std::string whole = written(small());
    REQUIRE(error_of(whole) == "accepted");
    for (std::size_t size = 0; size < whole.size(); ++size) CHECK(error_of(whole.substr(0, size)) != "accepted");
    CHECK(error_of(whole + '\0') != "accepted");
    for (std::size_t i = 0; i < whole.size(); ++i) {
        for (int bit = 0; bit < 8; ++bit) {
            std::string damaged = whole;
            damaged[i] = static_cast<char>(damaged[i] ^ (1 << bit));
            CHECK(error_of(damaged) != "accepted");
        }
    }
    std::string damaged = whole;
    damaged[whole.size() - 20] = 1;
    CHECK(contains(error_of(damaged), "file.safetensors: CRC-32 of the contents: got "));
}

TEST_CASE("sound files that are no checkpoints are refused") {
    sd::SafeTensors weights;
    weights.add("w", Tensor<float>(sd::Shape{2}));
    const auto error_of_file = [](const sd::SafeTensors& file) {
        const TemporaryDirectory directory;
        sd::write_safetensors(directory.path() / "a", file);
        return error_of([&] { (void)sd::read_checkpoint(directory.path() / "a"); });
    };
    CHECK(contains(error_of_file(weights), "this is no checkpoint"));
    weights.set_metadata("checkpoint", "2");
    CHECK(contains(error_of_file(weights), "metadata \"checkpoint\": got \"2\", expected \"1\""));
    weights.set_metadata("checkpoint", "1");
    CHECK(contains(error_of_file(weights), "\"crc32\": got none at the end"));
    sd::SafeTensors wide = weights;
    wide.add("crc32", Tensor<float>(sd::Shape{2}));
    CHECK(contains(error_of_file(wide), "\"crc32\": got F32 of shape (2), expected U32 of shape ()"));
    weights.add("crc32", {sd::Dtype::u32, {}, std::vector<std::byte>(4)});
    CHECK(contains(error_of_file(weights), "CRC-32"));
    // A tensor in none of the sections, under a checksum that is right.
    Checkpoint checkpoint = small();
    checkpoint.model.add("another_name", Tensor<float>(sd::Shape{2}));
    const auto with_name = [&](const std::string& name) {
        std::string file = written(checkpoint);
        file.replace(file.find("model.another_name"), name.size(), name);
        file.resize(file.size() - 4);
        return file + little_endian(crc32_bit_by_bit(file), 4);
    };
    CHECK(error_of(with_name("model.another_tame")) == "accepted");
    CHECK(contains(error_of(with_name("shape.another_name")), "tensor: got \"shape.another_name\""));
    CHECK(contains(error_of(with_name("model.__metadata__")), "tensor: got \"model.__metadata__\""));
}

TEST_CASE("the last few checkpoints are kept, and files of other names") {
    const TemporaryDirectory directory;
    const auto folder = directory.path() / "runs" / "first";
    sd::CheckpointDirectory checkpoints(folder, 2);
    std::ofstream(folder / "notes.txt") << "mine";
    std::ofstream(folder / "checkpoint-7.safetensors") << "mine too";
    const std::vector<std::string> others{"checkpoint-7.safetensors", "notes.txt"};
    const auto expect = [&](std::vector<std::string> names) {
        names.insert(names.end(), others.begin(), others.end());
        CHECK(names_in(folder) == names);
    };
    expect({});
    checkpoints.save(5, small("5"));
    expect({name_of(5)});
    checkpoints.save(10, small("10"));
    checkpoints.save(10, small("10 again"));
    expect({name_of(5), name_of(10)});
    checkpoints.save(100, small("100"));
    expect({name_of(10), name_of(100)});
    CHECK(sd::read_checkpoint(folder / name_of(10)).run.at("batch") == "10 again");
    CHECK(checkpoints.checkpoints() == std::vector<std::filesystem::path>{folder / name_of(10), folder / name_of(100)});
    CHECK_THROWS_AS(sd::CheckpointDirectory(directory.path(), 0), std::invalid_argument);
    CHECK_THROWS_AS(sd::CheckpointDirectory("", 1), std::invalid_argument);
    CHECK_THROWS_AS(sd::CheckpointDirectory(folder / "notes.txt", 1), std::runtime_error);
}

TEST_CASE("a folder is one run's alone, and cleaned of what a killed one left") {
    const TemporaryDirectory directory;
    directory.write(".sd-1-0.tmp", "half a checkp");
    directory.write(".sdnotes.tmp", "mine");
    const sd::CheckpointDirectory first(directory.path(), 1);
    CHECK(names_in(directory.path()) == std::vector<std::string>{".sdnotes.tmp"});
    CHECK(contains(error_of([&] { (void)sd::CheckpointDirectory(directory.path(), 1); }), "another run holds"));
}

TEST_CASE("the newest checkpoint that is whole and fits is taken; the others are told, and never count as kept") {
    const TemporaryDirectory directory;
    {
        sd::CheckpointDirectory checkpoints(directory.path(), 9);
        CHECK_FALSE(checkpoints.load_newest([](const Checkpoint&) {}).has_value());
        for (const sd::Index batches : {1, 2, 3, 4, 5}) checkpoints.save(batches, small(std::to_string(batches)));
    }
    const std::string whole = bytes_of(directory.path() / name_of(3));
    directory.write(name_of(4), whole.substr(0, whole.size() - 1));
    directory.write(name_of(6), "foreign");
    std::filesystem::create_directory(directory.path() / name_of(7));
    sd::CheckpointDirectory checkpoints(directory.path(), 2);
    std::vector<std::string> seen;
    const auto load = [&](const Checkpoint& checkpoint) {
        seen.push_back(checkpoint.run.at("batch"));
        if (seen.back() == "5") sd::refuse_file(checkpoint.model.source(), "model", "another", "this");
    };
    const auto found = checkpoints.load_newest(load);
    REQUIRE(found.has_value());
    CHECK(seen == std::vector<std::string>{"5", "3"});
    CHECK(found->path == directory.path() / name_of(3));
    REQUIRE(found->skipped.size() == 4);
    CHECK(found->skipped[0].path == directory.path() / name_of(7));
    CHECK(contains(found->skipped[0].reason, "a directory"));
    CHECK(contains(found->skipped[1].reason, "bytes: got 7"));
    CHECK(contains(found->skipped[2].reason, "model: got another, expected this"));
    CHECK(contains(found->skipped[3].reason, name_of(4)));
    const auto names = [](std::initializer_list<sd::Index> numbers) {
        std::vector<std::string> result;
        for (const sd::Index number : numbers) result.push_back(name_of(number));
        return result;
    };
    CHECK(names_in(directory.path()) == names({2, 3, 4, 5, 6, 7}));
    checkpoints.save(4, small("4"));
    CHECK(names_in(directory.path()) == names({3, 4, 5, 6, 7}));
    CHECK(sd::read_checkpoint(directory.path() / name_of(4)).run.at("batch") == "4");

    const std::string error = error_of([&] {
        (void)checkpoints.load_newest([](const Checkpoint& checkpoint) {
            sd::refuse_file(checkpoint.model.source(), "model", "another", "this");
        });
    });
    CHECK(contains(error, "checkpoints: got 5, none to go on from"));
    CHECK(contains(error, name_of(3) + ": model: got another"));
    CHECK_THROWS_AS(checkpoints.load_newest([](const Checkpoint&) { throw std::invalid_argument("settings"); }),
                    std::invalid_argument);
}

}  // namespace test_checkpoint
