// Numbers that are not finite are found and refused, also in a unit that is compiled with -ffast-math, as this one is:
// the compiler then takes all numbers to be finite, so here they are made of bits.
#include "messages.hpp"
#include "small_network.hpp"
#include "temporary_directory.hpp"

#include "sd/core/bfloat16.hpp"
#include "sd/core/finite.hpp"
#include "sd/io/state_dict.hpp"
#include "sd/training.hpp"

#include <doctest/doctest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

using sd::Event;
using sd_test::contains;
using sd_test::error_of;
using sd_test::message_of;
using sd_test::TemporaryDirectory;

namespace {

float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
double double_of(std::uint64_t bits) { return std::bit_cast<double>(bits); }

const std::vector<float> not_finite_floats{float_of(0x7F800000), float_of(0xFF800000), float_of(0x7FC00000),
                                           float_of(0xFFC00001), float_of(0x7F800001), float_of(0xFFFFFFFF)};
const std::vector<float> finite_floats{float_of(0),          float_of(0x80000000), float_of(1),
                                       float_of(0x807FFFFF), float_of(0x00800000), float_of(0x3F800000),
                                       float_of(0x7F7FFFFF), float_of(0xFF7FFFFF)};
const std::vector<double> not_finite_doubles{double_of(0x7FF0000000000000), double_of(0xFFF0000000000000),
                                             double_of(0x7FF8000000000000), double_of(0xFFF8000000000000),
                                             double_of(0x7FF0000000000001)};
const std::vector<double> finite_doubles{double_of(0),
                                         double_of(0x8000000000000000),
                                         double_of(1),
                                         double_of(0x7FEFFFFFFFFFFFFF),
                                         double_of(0xFFEFFFFFFFFFFFFF),
                                         0.5};

static_assert(sd::is_finite(1.0F) && sd::is_finite(-0.0));
static_assert(!sd::is_finite(std::bit_cast<float>(0x7FC00000U)));

/// A model's training and evaluation, in which some logits can be replaced.
struct Run {
    using Network = sd::BasicResNet<float>;
    struct Spoil {
        Event event;
        std::uint64_t batch;
        std::function<void(sd::Tensor<float>&)> spoil;
        bool match(Event now, const sd::State<float>& state) const {
            return now == event && state.timestamp.batch == batch && spoil;
        }
        void apply(Event, sd::State<float>& state, sd::Logger&) const { spoil(state.logits); }
    };
    using Loader = sd::DataLoader<sd::InMemoryDataset, float>;

    explicit Run(const Spoil& spoil)
        : model(sd::cifar_resnet<float>(8, {.num_classes = 4, .seed = 1})),
          optimizer(model.parameters(), {.learning_rate = 0.01}),
          trainer(model, optimizer, sd_test::small_loader<float>(12), sd_test::small_loader<float>(12),
                  {.max_duration = "2ep", .algorithms = {spoil, sd::LabelSmoothing(0.1)}}) {}

    Network model;
    sd::Sgd<float> optimizer;
    sd::Trainer<Network, Loader> trainer;
};

std::vector<char> content_of(const std::filesystem::path& path) {
    const auto bytes = sd::read_file(path);
    const auto* first = reinterpret_cast<const char*>(bytes.data());
    return {first, first + bytes.size()};
}

}  // namespace

TEST_CASE("infinities and NaN of every kind are told from finite numbers") {
    for (const float x : finite_floats) {
        CAPTURE(std::bit_cast<std::uint32_t>(x));
        CHECK(sd::is_finite(x));
        CHECK(sd::is_finite(sd::bfloat16(x)) == ((std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFF) != 0x7F7FFFFF));
    }
    for (const float x : not_finite_floats) {
        CAPTURE(std::bit_cast<std::uint32_t>(x));
        CHECK_FALSE(sd::is_finite(x));
        CHECK_FALSE(sd::is_finite(sd::bfloat16(x)));
    }
    for (const double x : finite_doubles) CHECK(sd::is_finite(x));
    for (const double x : not_finite_doubles) CHECK_FALSE(sd::is_finite(x));

    std::vector<float> numbers(1000, 0.5F);
    CHECK(sd::all_finite(std::span<const float>(numbers)));
    CHECK(sd::all_finite(std::span<const float>()));
    for (const float x : not_finite_floats) {
        for (const std::size_t place : {0, 500, 999}) {
            numbers[place] = x;
            CHECK_FALSE(sd::all_finite(std::span<const float>(numbers)));
            numbers[place] = 0.5F;
        }
    }
}

TEST_CASE("settings that are not finite, or not as numbers of their type, are refused") {
    const std::vector<std::pair<const char*, std::function<void(double)>>> settings{
        {"drop rate", [](double x) { sd::StochasticDepth({.drop_rate = x}); }},
        {"label smoothing", [](double x) { sd::LabelSmoothing{x}; }},
        {"mixup", [](double x) { sd::Mixup{x}; }},
        {"beta", [](double x) { (void)sd::symmetric_beta_from(1, sd::Stream::mixup, 0, x); }},
        {"learning rate", [](double x) { sd::Sgd<float>({}, {.learning_rate = x}); }},
        {"momentum", [](double x) { sd::Sgd<float>({}, {.momentum = x}); }},
        {"weight decay", [](double x) { sd::Sgd<float>({}, {.weight_decay = x}); }},
        {"dampening", [](double x) { sd::Sgd<float>({}, {.dampening = x}); }},
        {"eps", [](double x) { sd::BatchNorm2d<float>(1, {.eps = x}); }},
        {"momentum of batch norm", [](double x) { sd::BatchNorm2d<float>(1, {.momentum = x}); }},
        {"time", [](double x) { sd::Time(x, sd::TimeUnit::epoch); }},
        {"fraction", [](double x) { sd::TimeOrFraction{x}; }},
        {"factor",
         [](double x) {
             sd::LearningRateSchedule(sd::MultiStepLearningRate{{"1ep"}, x});
         }},
        {"mean",
         [](double x) {
             sd::NormalizedBytes("", {{static_cast<float>(x)}, {1}}, 1);
         }},
        {"deviation",
         [](double x) {
             sd::NormalizedBytes("", {{0}, {static_cast<float>(x)}}, 1);
         }},
        {"smoothing", [](double x) {
             const std::array<sd::Index, 1> label{0};
             (void)sd::cross_entropy_forward(sd::Tensor<float>({1, 2}), std::span<const sd::Index>(label), x);
         }}};
    for (const auto& [name, set] : settings) {
        CAPTURE(name);
        for (const double x : not_finite_doubles) {
            CAPTURE(std::bit_cast<std::uint64_t>(x));
            CHECK(contains(message_of([&, &use = set] { use(x); }), "expected"));
        }
    }
    const auto refuses = [](const auto& call) { return contains(message_of(call), "expected"); };
    CHECK(refuses([] { sd::Sgd<float>({}, {.learning_rate = 1e39}); }));
    CHECK_FALSE(refuses([] { sd::Sgd<double>({}, {.learning_rate = 1e39}); }));
    CHECK(refuses([] { sd::BatchNorm2d<float>(1, {.eps = 1e39}); }));
    CHECK(refuses([] { sd::BatchNorm2d<float>(1, {.eps = 1e-60}); }));
    CHECK_FALSE(refuses([] { sd::BatchNorm2d<double>(1, {.eps = 1e-60}); }));
    CHECK(refuses([] { sd::NormalizedBytes("", {{0.5F}, {1e-39F}}, 1); }));
}

TEST_CASE("a text of a number that is not finite, or too large, is none") {
    for (const char* text : {"nan", "inf", "-inf", "infinity", "1e999", "-1e999", "1e309"}) {
        CAPTURE(text);
        CHECK_FALSE(sd::detail::parse_finite(text).has_value());
    }
    CHECK(sd::detail::parse_finite("1e308").has_value());
    CHECK(contains(message_of([] { (void)sd::parse_options("drop_rate=1e999"); }), "expected a number"));
}

TEST_CASE("a loss that is not finite, or too large for its type, ends training") {
    const float large = float_of(0x7F7FFFFF);
    const std::vector<std::function<void(sd::Tensor<float>&)>> spoils{
        [](sd::Tensor<float>& logits) { logits.fill(not_finite_floats[2]); },
        [](sd::Tensor<float>& logits) { logits.data()[logits.size() - 1] = not_finite_floats[0]; },
        [&](sd::Tensor<float>& logits) {
            for (sd::Index i = 0; i < logits.size(); ++i) logits.data()[i] = i % 2 == 0 ? large : -large;
        }};
    for (const auto& spoil : spoils) {
        Run run({Event::after_forward, 4, spoil});
        const std::string message = error_of<std::runtime_error>([&] { run.trainer.fit(); });
        CAPTURE(message);
        CHECK(contains(message, "Trainer: loss at batch 4: got "));
        CHECK(run.trainer.state().timestamp.batch == 4);
    }
}

TEST_CASE("a loss that is not finite ends an evaluation, and the run") {
    Run run({Event::eval_after_forward, 3, [](sd::Tensor<float>& logits) { logits.fill(not_finite_floats[3]); }});
    const std::string message = error_of<std::runtime_error>([&] { run.trainer.fit(); });
    CAPTURE(message);
    CHECK(contains(message, "Trainer: loss of the evaluation after batch 3: got "));
    CHECK(
        contains(error_of<std::runtime_error>([&] { (void)run.trainer.evaluate(); }), "the evaluation after batch 3"));
}

TEST_CASE("weights that are not finite are not written, and a good file stays") {
    const TemporaryDirectory directory;
    const auto path = directory.path() / "weights.safetensors";
    auto model = sd::cifar_resnet<float>(8, {.num_classes = 4, .seed = 1});
    sd::save_weights(model, path);
    const std::vector<char> good = content_of(path);
    const auto refusal = [&](float& number, float value) {
        const float before = number;
        number = value;
        const std::string message = error_of<std::runtime_error>([&] { sd::save_weights(model, path); });
        number = before;
        CHECK(content_of(path) == good);
        return message;
    };
    auto& weight = model.parameters().front()->value;
    for (const float value : not_finite_floats) {
        CHECK(contains(refusal(weight.data()[weight.size() - 1], value),
                       path.string() + ": tensor \"conv1.weight\": got "));
    }
    sd::for_each_state(
        model, [](const std::string&, const auto&) {},
        [&]<class Buffer>(const std::string& name, Buffer& buffer) {
            if constexpr (!std::is_same_v<Buffer, std::int64_t>) {
                CHECK(contains(refusal(buffer.data()[0], not_finite_floats[0]), "tensor \"" + name + "\": got "));
            }
        });
    for (const float value : finite_floats) {
        weight.data()[0] = value;
        CHECK_NOTHROW(sd::save_weights(model, path));
    }
}

TEST_CASE("numbers of a file that are not finite are found in every type of number") {
    using sd::Dtype;
    const auto found = [](Dtype dtype, std::uint64_t bits) {
        std::vector<std::byte> bytes(2 * static_cast<std::size_t>(sd::dtype_bytes(dtype)));
        std::memcpy(bytes.data() + bytes.size() / 2, &bits, bytes.size() / 2);
        return sd::text(sd::detail::first_not_finite({dtype, {2}, bytes}).value_or(0));
    };
    CHECK(found(Dtype::f16, 0x7C00) == "inf");
    CHECK(found(Dtype::f16, 0xFC00) == "-inf");
    CHECK(found(Dtype::f16, 0x7C01) == "nan");
    CHECK(found(Dtype::f16, 0x7BFF) == "0");
    CHECK(found(Dtype::bf16, 0xFF80) == "-inf");
    CHECK(found(Dtype::bf16, 0x7F7F) == "0");
    CHECK(found(Dtype::f32, 0x7F800000) == "inf");
    CHECK(found(Dtype::f32, 0x7F7FFFFF) == "0");
    CHECK(found(Dtype::f64, 0xFFF0000000000000) == "-inf");
    CHECK(found(Dtype::f64, 0x7FF0000000000001) == "nan");
    CHECK(found(Dtype::f64, 0x7FEFFFFFFFFFFFFF) == "0");
    CHECK(found(Dtype::i64, 0x7FF0000000000000) == "0");
}
