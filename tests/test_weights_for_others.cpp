// Weights that leave for plain networks, and weights that come from others: what is folded, converted, renamed and
// refused.
#include "messages.hpp"
#include "random.hpp"
#include "small_network.hpp"
#include "temporary_directory.hpp"

#include "sd/io/state_dict.hpp"
#include "sd/training.hpp"

#include <doctest/doctest.h>
#include <Eigen/Core>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace test_weights_for_others {

using sd::SafeTensorEntry;
using sd::SafeTensors;
using sd::Tensor;
using sd_test::contains;
using sd_test::error_of;
using sd_test::message_of;
using sd_test::random_tensor;
using sd_test::relative_error;
using sd_test::TemporaryDirectory;

namespace {

sd::BasicResNet<float> basic(std::uint64_t seed) {
    return sd::cifar_resnet<float>(14, {.num_classes = 5, .seed = seed});
}
sd::BottleneckResNet<float> bottleneck(std::uint64_t seed) {
    return sd::cifar_bottleneck_resnet<float>(11, {.num_classes = 5, .seed = seed});
}

sd::StochasticDepthOptions options(const char* target, sd::StochasticMethod method, double rate,
                                   sd::Scaling scaling = sd::Scaling::inference) {
    return {.target_layer_name = target,
            .stochastic_method = method,
            .drop_rate = rate,
            .drop_distribution = sd::DropDistribution::linear_huang,
            .scaling = scaling};
}

const Tensor<float>& images() {
    static const Tensor<float> x = random_tensor<float>({4, 16, 16, 3}, 1);
    return x;
}

/// Logits in evaluation.
template <class Model>
auto logits(Model& model) {
    return model.forward(images(), sd::Context::eval());
}

/// Moves the running statistics and the shifts, so that nothing is at its start value.
template <class Model>
void disturb(Model& model) {
    (void)model.forward(images(), sd::Context::train({.step = 0, .seed = 3}));
    std::uint64_t stream = 100;
    sd::for_each_parameter(model, [&](const std::string& name, auto& parameter) {
        if (parameter->value.rank() != 1) return;
        const bool is_scale = name.ends_with("weight");
        parameter->value = random_tensor<float>(parameter->value.shape(), ++stream, is_scale ? 0.5 : -0.5, 1);
    });
}

/// Copies of the tensors, each through change(name, entry).
template <class Change>
SafeTensors changed(const SafeTensors& file, const Change& change) {
    SafeTensors result("weights");
    for (const auto& [key, value] : file.metadata()) result.set_metadata(key, value);
    for (const std::string& name : file.names()) {
        std::string own = name;
        SafeTensorEntry entry = file.entry(name);
        if (change(own, entry)) result.add(own, entry);
    }
    return result;
}

template <class T>
SafeTensorEntry entry_of(sd::Dtype dtype, const std::vector<sd::Index>& shape, const std::vector<T>& elements) {
    SafeTensorEntry entry{dtype, shape, std::vector<std::byte>(elements.size() * sizeof(T))};
    std::memcpy(entry.bytes.data(), elements.data(), entry.bytes.size());
    return entry;
}

/// Floats as a floating-point type that Eigen has.
template <class To>
SafeTensorEntry rounded_to(sd::Dtype dtype, const SafeTensorEntry& floats) {
    std::vector<To> elements;
    for (std::size_t i = 0; i < floats.bytes.size() / sizeof(float); ++i) {
        float value = 0;
        std::memcpy(&value, floats.bytes.data() + i * sizeof value, sizeof value);
        elements.push_back(static_cast<To>(value));
    }
    return entry_of(dtype, floats.shape, elements);
}

std::string text_of(const sd::LoadReport& report) {
    std::ostringstream stream;
    stream << report;
    return stream.str();
}

/// F(x) = bn(conv(x)), or a branch that ends otherwise.
template <class Last>
struct UserBranch {
    using value_type = float;
    explicit UserBranch(Last own) : conv(3, 3, 3, {.padding = 1}, initializer), last(std::move(own)) {}
    Tensor<float> forward(const Tensor<float>& x, const sd::Context& context) {
        return last.forward(conv.forward(x, context), context);
    }
    Tensor<float> backward(const Tensor<float>& dy) { return conv.backward(last.backward(dy)); }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("conv", conv);
        visitor("last", last);
    }

    sd::Initializer initializer{7};
    sd::Conv2d<float> conv;
    Last last;
};

/// tanh(x): no factor on its parameters is one on its output.
struct Tanh {
    Tensor<float> forward(const Tensor<float>& x, const sd::Context&) {
        Tensor<float> y = x.clone();
        for (float& value : y) value = std::tanh(value);
        return y;
    }
    Tensor<float> backward(const Tensor<float>& dy) { return dy; }
    template <class Visitor>
    void visit(Visitor&&) {}
};

/// y = gain tanh(x): a layer of a user's own.
struct GainOfTanh : Tanh {
    Tensor<float> forward(const Tensor<float>& x, const sd::Context& context) {
        Tensor<float> y = Tanh::forward(x, context);
        for (float& value : y) value *= gain->value(0);
        return y;
    }
    template <class Visitor>
    void visit(Visitor&& visitor) {
        visitor("gain", gain);
    }
    sd::ParameterPtr<float> gain = std::make_shared<sd::Parameter<float>>(Tensor<float>::full({1}, 2.0F));
};
struct NormBranch : UserBranch<sd::BatchNorm2d<float>> {
    NormBranch() : UserBranch(sd::BatchNorm2d<float>(3)) {}
};
struct ReluBranch : UserBranch<sd::Relu<float>> {
    ReluBranch() : UserBranch(sd::Relu<float>()) {}
};
struct TanhBranch : UserBranch<Tanh> {
    TanhBranch() : UserBranch(Tanh()) {}
};
struct SilentBranch : UserBranch<GainOfTanh> {
    SilentBranch() : UserBranch(GainOfTanh()) {}
};
struct TellingBranch : UserBranch<GainOfTanh> {
    TellingBranch() : UserBranch(GainOfTanh()) {}
    template <class Visitor>
    void visit_output(Visitor&& visitor) {
        visitor("last.gain", last.gain);
    }
};

template <class Branch>
using UserBlock = sd::StochasticResidual<Branch, sd::SamplePolicy>;

/// The plain block that reads what a stochastic one saved computes the same; what it computes with the raw values.
template <class Branch>
void check_user_block(const std::set<std::string>& multiplied) {
    UserBlock<Branch> stochastic(Branch(), {.drop_rate = 0.75});
    UserBlock<Branch> plain(Branch(), {.drop_rate = 0});
    const SafeTensors file = sd::plain_state_dict(stochastic);
    const SafeTensors raw = sd::state_dict(stochastic);
    for (const std::string& name : raw.names()) {
        CHECK((file.entry(name).bytes != raw.entry(name).bytes) == multiplied.contains(name));
    }
    const auto expected = logits(stochastic);
    CHECK(relative_error(logits(plain), expected) > 0.1);
    sd::load_weights(plain, file);
    CHECK(relative_error(logits(plain), expected) < 1e-6);
}

}  // namespace

TEST_CASE_TEMPLATE("a plain network with a stochastic one's weights evaluates alike", Model, sd::BasicResNet<float>,
                   sd::BottleneckResNet<float>) {
    constexpr bool is_basic = std::is_same_v<Model, sd::BasicResNet<float>>;
    const sd_test::Warnings warnings;
    const TemporaryDirectory directory;
    const auto path = directory.path() / "weights.safetensors";
    const auto network = [](std::uint64_t seed) {
        if constexpr (is_basic) {
            return basic(seed);
        } else {
            return bottleneck(seed);
        }
    };
    for (const auto method : {sd::StochasticMethod::block, sd::StochasticMethod::sample}) {
        Model stochastic = network(1);
        disturb(stochastic);
        const char* const target = is_basic ? "ResNetBasicBlock" : "ResNetBottleneck";
        sd::apply_stochastic_depth(stochastic, options(target, method, 0.75));
        const auto expected = logits(stochastic);
        const SafeTensors raw = sd::state_dict(stochastic);
        sd::save_weights(stochastic, path);
        CHECK(relative_error(logits(stochastic), expected) == 0);

        Model plain = network(2);
        sd::load_state_dict(plain, raw);
        CHECK(relative_error(logits(plain), expected) > 0.01);
        const sd::LoadReport report = sd::load_weights(plain, path);
        CHECK(relative_error(logits(plain), expected) < 1e-5);
        CHECK(report.loaded == static_cast<sd::Index>(raw.size()));
        CHECK(report.folded.size() == 2 * stochastic.blocks().size());
        CHECK(report.divided.empty());
        CHECK(contains(text_of(report), "factors of evaluation folded into"));

        // Every factor as the definition of the schedule says, every product as rounded once.
        const SafeTensors file = sd::read_safetensors(path);
        CHECK(file.metadata().at("stochastic_depth") == "folded");
        const auto blocks = static_cast<double>(stochastic.blocks().size());
        std::size_t block = 0;
        sd::for_each_block(stochastic, [&](const std::string& name, const auto&) {
            const double factor = 1 - 0.75 * static_cast<double>(++block) / blocks;
            for (const char* const own : {".weight", ".bias"}) {
                const std::string tensor = name + (is_basic ? ".bn2" : ".bn3") + own;
                CHECK(report.folded.at(tensor) == doctest::Approx(factor).epsilon(1e-15));
                const auto before = raw.tensor<float>(tensor), after = file.tensor<float>(tensor);
                for (sd::Index i = 0; i < before.size(); ++i) {
                    CHECK(after(i) == static_cast<float>(before(i) * report.folded.at(tensor)));
                }
            }
        });
        for (const std::string& name : raw.names()) {
            if (!report.folded.contains(name)) CHECK(raw.entry(name).bytes == file.entry(name).bytes);
        }
    }
    CHECK(std::none_of(warnings.messages.begin(), warnings.messages.end(),
                       [](const std::string& message) { return contains(message, "load_weights"); }));
}

TEST_CASE("scaling in training leaves nothing to fold") {
    const sd_test::Warnings warnings;
    auto model = basic(1);
    sd::apply_stochastic_depth(model,
                               options("ResNetBasicBlock", sd::StochasticMethod::sample, 0.5, sd::Scaling::train));
    const SafeTensors file = sd::plain_state_dict(model), raw = sd::state_dict(model);
    CHECK(file.metadata() == raw.metadata());
    for (const std::string& name : raw.names()) CHECK(file.entry(name).bytes == raw.entry(name).bytes);
}

TEST_CASE("a stochastic network reads such a file, its own or another's, and evaluates alike") {
    const sd_test::Warnings warnings;
    auto source = basic(1);
    disturb(source);
    const auto make_stochastic = [](auto& model, double rate) {
        sd::apply_stochastic_depth(model, options("ResNetBasicBlock", sd::StochasticMethod::sample, rate));
    };
    make_stochastic(source, 0.5);
    const auto expected = logits(source);
    const SafeTensors raw = sd::state_dict(source);
    const SafeTensors file = sd::plain_state_dict(source);
    for (const double rate : {0.5, 0.2, 0.9}) {
        auto reader = basic(2);
        make_stochastic(reader, rate);
        const sd::LoadReport report = sd::load_weights(reader, file);
        CHECK(relative_error(logits(reader), expected) < 1e-5);
        CHECK(report.divided.size() == report.folded.size());
        CHECK(contains(text_of(report), "divided by the model's own"));
        if (rate != 0.5) continue;
        for (const auto& [name, factor] : report.divided) {
            CHECK(relative_error(sd::state_dict(reader).tensor<float>(name), raw.tensor<float>(name)) < 2e-7);
        }
    }
    // Files without the mark are read as they are.
    auto reader = basic(2);
    make_stochastic(reader, 0.5);
    sd::load_weights(reader, raw);
    CHECK(relative_error(logits(reader), expected) == 0);
}

TEST_CASE("a drop rate of 1 cannot be undone, which is said") {
    sd_test::Warnings warnings;
    auto source = basic(1);
    sd::apply_stochastic_depth(source, options("ResNetBasicBlock", sd::StochasticMethod::block, 1));
    const auto expected = logits(source);
    const SafeTensors file = sd::plain_state_dict(source);
    auto plain = basic(2);
    warnings.messages.clear();
    const sd::LoadReport report = sd::load_weights(plain, file);
    CHECK(relative_error(logits(plain), expected) < 1e-5);
    CHECK(report.lost == std::vector<std::string>{"layer3.1.bn2.bias", "layer3.1.bn2.weight"});
    REQUIRE(warnings.messages.size() == 1);
    CHECK(contains(warnings.messages[0], "\"layer3.1.bn2.bias\" and 1 more"));
    CHECK(contains(warnings.messages[0], "saved at drop rate 1"));
    // One that ignores the branch in evaluation has nothing to divide by.
    sd::load_weights(source, file);
    CHECK(relative_error(logits(source), expected) < 1e-5);
}

TEST_CASE("within a warmup the rate that is applied counts, and a branch may end in a convolution") {
    const sd_test::Warnings warnings;
    sd_test::SmallNetwork<double> model;
    sd::Sgd<double> optimizer(model.parameters(), {.learning_rate = 0.05});
    SafeTensors file;
    const auto x = random_tensor<double>({3, 8, 8, 3}, 4);
    Tensor<double> expected;
    sd::Trainer trainer(model, optimizer, sd_test::small_loader<double>(12),
                        {.max_duration = "4ep",
                         .algorithms = {sd::StochasticDepth(sd_test::small_depth(sd::StochasticMethod::sample,
                                                                                 sd::DropDistribution::uniform, 0.8),
                                                            "1dur"),
                                        sd_test::At{sd::Event::batch_end, [&](sd::State<double>& state) {
                                                        if (state.timestamp.batch != 4) return;
                                                        file = sd::plain_state_dict(model);
                                                        expected = model.forward(x, sd::Context::eval());
                                                    }}}});
    trainer.fit();
    // Batch 3 of 12 was trained at 0.8 * 3 / 12.
    CHECK(std::stod(file.metadata().at("stochastic_depth.factor.blocks.1.conv.weight")) ==
          doctest::Approx(0.8).epsilon(1e-12));
    sd_test::SmallNetwork<double> plain;
    CHECK(sd::load_weights(plain, file).folded.size() == 3);
    CHECK(relative_error(plain.forward(x, sd::Context::eval()), expected) < 1e-13);
}

TEST_CASE("branches of a user's") {
    check_user_block<NormBranch>({"last.weight"});  // the bias is 0
    check_user_block<ReluBranch>({"conv.weight"});  // ReLU passes a factor on
    check_user_block<TellingBranch>({"last.gain"});

    const TemporaryDirectory directory;
    UserBlock<SilentBranch> silent(SilentBranch(), {.drop_rate = 0.5});
    UserBlock<TanhBranch> curved(TanhBranch(), {.drop_rate = 0.5});
    for (const std::string& message : {message_of([&] { sd::save_weights(silent, directory.path() / "a"); }),
                                       message_of([&] { sd::save_weights(curved, directory.path() / "a"); })}) {
        CHECK(contains(message, "save_weights: last layer that the branch of block"));
        CHECK(contains(message, "visit_output"));
    }
    CHECK(std::filesystem::is_empty(directory.path()));
    silent.set_policy({.drop_rate = 0});
    CHECK_NOTHROW(sd::save_weights(silent, directory.path() / "a"));
}

TEST_CASE("what a file says of its folding is checked") {
    const sd_test::Warnings warnings;
    auto model = basic(1);
    sd::apply_stochastic_depth(model, options("ResNetBasicBlock", sd::StochasticMethod::block, 0.5));
    const SafeTensors sound = sd::plain_state_dict(model);
    const auto before = logits(model);
    const auto refusal = [&](const std::string& key, const std::string& value) {
        SafeTensors file = changed(sound, [](std::string&, SafeTensorEntry&) { return true; });
        file.set_metadata(key, value);
        return error_of<std::runtime_error>([&] { sd::load_weights(model, file); });
    };
    const std::string factor = "stochastic_depth.factor.layer1.0.bn2.weight";
    for (const char* const value : {"2", "-0.5", "nan", "inf", "", "half", "0.5 "}) {
        CHECK(contains(refusal(factor, value), "expected a factor of 0 to 1"));
    }
    CHECK(contains(refusal("stochastic_depth.factor.none", "0.5"), "one of the tensors"));
    CHECK(contains(refusal("stochastic_depth", "unfolded"), "expected \"folded\""));
    CHECK(relative_error(logits(model), before) == 0);
}

TEST_CASE("every 16-bit floating-point number has its value") {
    for (std::uint32_t bits = 0; bits < 0x10000U; ++bits) {
        const auto word = static_cast<std::uint16_t>(bits);
        const float expected = Eigen::half_impl::half_to_float(Eigen::half_impl::raw_uint16_to_half(word));
        const float value = sd::detail::half_value(word);
        if (std::isnan(expected) ? !std::isnan(value)
                                 : std::bit_cast<std::uint32_t>(value) != std::bit_cast<std::uint32_t>(expected)) {
            FAIL_CHECK("half ", bits, ": got ", value, ", expected ", expected);
        }
    }
    const auto numbers = entry_of<std::uint16_t>(sd::Dtype::bf16, {4}, {0x3F80, 0xC049, 0x0001, 0x7F80});
    CHECK(*sd::detail::number_at(numbers, 0) == 1);
    CHECK(*sd::detail::number_at(numbers, 1) == -3.140625);
    CHECK(*sd::detail::number_at(numbers, 2) == std::ldexp(1.0, -133));
    CHECK(std::isinf(*sd::detail::number_at(numbers, 3)));
}

TEST_CASE("weights of other types of number are converted, rounded to the nearest") {
    auto source = basic(1);
    const SafeTensors file = sd::state_dict(source);
    const auto load = [](const SafeTensors& stored, const char* name, sd::Index count) {
        auto model = basic(2);
        const sd::LoadReport report = sd::load_weights(model, stored);
        CHECK(report.converted == std::map<std::string, sd::Index>{{name, count}});
        CHECK(contains(text_of(report), sd::text(count, " tensors converted from ", name)));
        return sd::state_dict(model);
    };
    sd::Index count = 0;
    for (const std::string& name : file.names()) count += file.entry(name).dtype == sd::Dtype::f32;
    const auto check = [&]<class To>(To, sd::Dtype dtype, const char* dtype_name) {
        const SafeTensors stored = changed(file, [&](std::string&, SafeTensorEntry& entry) {
            if (entry.dtype == sd::Dtype::f32) entry = rounded_to<To>(dtype, entry);
            return true;
        });
        const SafeTensors loaded = load(stored, dtype_name, count);
        for (const char* const name : {"conv1.weight", "layer3.1.bn2.running_var", "fc.bias"}) {
            const auto expected = file.tensor<float>(name), got = loaded.tensor<float>(name);
            for (sd::Index i = 0; i < expected.size(); ++i) {
                CHECK(got.data()[i] == static_cast<float>(static_cast<To>(expected.data()[i])));
            }
        }
    };
    check(Eigen::half(), sd::Dtype::f16, "F16");
    check(Eigen::bfloat16(), sd::Dtype::bf16, "BF16");
    check(double(), sd::Dtype::f64, "F64");

    const auto with_bias = [&](const SafeTensorEntry& bias) {
        return changed(file, [&](std::string& name, SafeTensorEntry& entry) {
            if (name == "fc.bias") entry = bias;
            return true;
        });
    };
    // Halfway cases between floats of distance 2^-23, and past the largest one.
    const double ulp = std::ldexp(1.0, -23);
    const SafeTensors loaded = load(
        with_bias(entry_of<double>(sd::Dtype::f64, {5}, {1 + ulp / 2, 1 + ulp * 1.5, 1 + ulp * 0.51, -0.0, 1e-300})),
        "F64", 1);
    const auto bias = loaded.tensor<float>("fc.bias");
    CHECK(bias(0) == 1);
    CHECK(bias(1) == static_cast<float>(1 + 2 * ulp));
    CHECK(bias(2) == static_cast<float>(1 + ulp));
    CHECK(std::signbit(bias(3)));
    CHECK(bias(4) == 0);
    auto model = basic(2);
    const auto before = logits(model);
    CHECK(contains(error_of<std::runtime_error>([&] {
                       sd::load_weights(model, with_bias(entry_of<double>(sd::Dtype::f64, {5}, {0, 0, 1e300, 0, 0})));
                   }),
                   "weights: tensor \"fc.bias\": element 2: got 1e+300, expected a number that F32 can hold"));
    CHECK(contains(error_of<std::runtime_error>([&] {
                       sd::load_weights(model, with_bias(entry_of<std::int32_t>(sd::Dtype::i32, {5}, {0, 0, 1, 0, 0})));
                   }),
                   "\"fc.bias\": dtype: got I32, expected F32"));
    CHECK(relative_error(logits(model), before) == 0);

    auto of_doubles = sd::cifar_resnet<double>(14, {.num_classes = 5, .seed = 9});
    CHECK(sd::load_weights(of_doubles, file).converted.at("F32") == count);
    CHECK(sd::state_dict(of_doubles).tensor<double>("fc.bias")(3) ==
          static_cast<double>(file.tensor<float>("fc.bias")(3)));
}

TEST_CASE("counts of batches may be missing or of another type") {
    auto source = basic(1);
    disturb(source);
    const SafeTensors file = sd::state_dict(source);
    const auto with_counts = [&](const auto& change) {
        return changed(file, [&](std::string& name, SafeTensorEntry& entry) {
            return !name.ends_with("num_batches_tracked") || change(entry);
        });
    };
    auto model = basic(2);
    disturb(model);
    const sd::LoadReport report = sd::load_weights(model, with_counts([](SafeTensorEntry&) { return false; }));
    CHECK(report.counts_filled.size() == 13);
    CHECK(contains(text_of(report), "13 missing num_batches_tracked set to 0"));
    CHECK(relative_error(logits(model), logits(source)) == 0);
    CHECK(sd::state_dict(model).tensor<std::int64_t>("layer1.0.bn2.num_batches_tracked").data()[0] == 0);

    sd::load_weights(model, with_counts([](SafeTensorEntry& entry) {
                         entry = entry_of<double>(sd::Dtype::f64, {}, {3});
                         return true;
                     }));
    CHECK(sd::state_dict(model).tensor<std::int64_t>("bn1.num_batches_tracked").data()[0] == 3);
    CHECK(contains(error_of<std::runtime_error>([&] {
                       sd::load_weights(model, with_counts([](SafeTensorEntry& entry) {
                                            entry = entry_of<float>(sd::Dtype::f32, {}, {2.5F});
                                            return true;
                                        }));
                   }),
                   "num_batches_tracked\": dtype: got F32, expected I64"));
    // Nothing else may be missing.
    try {
        sd::load_weights(model, changed(file, [](std::string& name, SafeTensorEntry&) {
                             return name != "bn1.running_mean" && name != "bn1.num_batches_tracked";
                         }));
        FAIL("accepted");
    } catch (const sd::StateDictMismatch& mismatch) {
        CHECK(mismatch.names() == std::vector<std::string>{"bn1.running_mean"});
        CHECK(contains(mismatch.what(), "1 of its tensors and the model's differ"));
        CHECK(contains(mismatch.what(), "tensor \"bn1.running_mean\": got none, expected one"));
    }
}

TEST_CASE("names lose what PyTorch's wrappers add") {
    auto source = basic(1);
    const SafeTensors file = sd::state_dict(source);
    const auto renamed = [&](const auto& rename) {
        return changed(file, [&](std::string& name, SafeTensorEntry&) {
            name = rename(name);
            return true;
        });
    };
    for (const std::string prefix :
         {"module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."}) {
        auto model = basic(2);
        SafeTensors stored = renamed([&](const std::string& name) { return prefix + name; });
        stored.add("n_averaged", Tensor<std::int64_t>(sd::Shape{}, {3}));  // AveragedModel's
        const sd::LoadReport report = sd::load_weights(model, stored);
        CHECK(report.prefixes.size() == (prefix.size() > 10 ? 2 : 1));
        CHECK(contains(text_of(report), "\" dropped"));
        CHECK(relative_error(logits(model), logits(source)) == 0);
    }
    auto model = basic(2);
    sd::load_weights(model, renamed([](const std::string& name) {
                         return name.starts_with("layer1.") ? "layer1._orig_mod.module" + name.substr(6) : name;
                     }));
    CHECK(relative_error(logits(model), logits(source)) == 0);

    SafeTensors twice = renamed([](const std::string& name) { return name; });
    twice.add("module.fc.bias", file.entry("fc.bias"));
    CHECK(contains(error_of<std::runtime_error>([&] { sd::load_weights(model, twice); }),
                   "tensor \"fc.bias\": got \"fc.bias\" and \"module.fc.bias\", expected one of the two"));
    SafeTensors more = renamed([](const std::string& name) { return name; });
    more.add("n_averaged", Tensor<std::int64_t>(sd::Shape{}, {3}));
    CHECK(contains(error_of<std::runtime_error>([&] { sd::load_weights(model, more); }), "\"n_averaged\": got it"));
}

TEST_CASE("what is skipped stays as it is, all else is checked") {
    auto source = sd::cifar_resnet<float>(14, {.num_classes = 9, .seed = 1});
    const SafeTensors file = sd::state_dict(source);
    auto model = basic(2);
    const auto before = logits(model);
    CHECK(contains(error_of<std::runtime_error>([&] { sd::load_weights(model, file); }),
                   "\"fc.weight\": shape: got (9, 64), expected (5, 64)"));
    CHECK(contains(message_of([&] {
                       sd::load_weights(model, file, {.skip = {"fc.", "head."}});
                   }),
                   "load_weights: skip: got \"head.\", expected the start of the name of a tensor"));
    CHECK(contains(message_of([&] { sd::load_weights(model, file, {.skip = {""}}); }), "skip: got \"\""));
    CHECK(relative_error(logits(model), before) == 0);

    const auto own = sd::state_dict(model).entry("fc.weight").bytes;
    const sd::LoadReport report = sd::load_weights(model, file, {.skip = {"fc."}});
    CHECK(report.skipped == std::vector<std::string>{"fc.weight", "fc.bias"});
    CHECK(report.loaded == static_cast<sd::Index>(file.size()) - 2);
    CHECK(contains(text_of(report), "2 tensors skipped"));
    CHECK(sd::state_dict(model).entry("fc.weight").bytes == own);
    CHECK(sd::state_dict(model).entry("conv1.weight").bytes == file.entry("conv1.weight").bytes);

    // A file without a classifier, one with something that the model lacks, and one that lacks more.
    const auto without = [&](const std::string& prefix) {
        return changed(file, [&](std::string& name, SafeTensorEntry&) { return !name.starts_with(prefix); });
    };
    CHECK_NOTHROW(sd::load_weights(model, without("fc."), {.skip = {"fc."}}));
    SafeTensors more = without("fc.");
    more.add("head.weight", file.entry("fc.weight"));
    CHECK_NOTHROW(sd::load_weights(model, more, {.skip = {"fc.", "head."}}));
    CHECK_THROWS_AS(sd::load_weights(model, without("layer1."), {.skip = {"fc."}}), std::runtime_error);
}

TEST_CASE("weights in several files") {
    const TemporaryDirectory directory;
    auto source = basic(1);
    const SafeTensors file = sd::state_dict(source);
    std::string map;
    const auto write_shard = [&](const std::string& name, bool first, const std::string& also = "") {
        const SafeTensors shard = changed(file, [&](std::string& tensor, SafeTensorEntry&) {
            return tensor.starts_with("layer1.") == first || tensor == also;
        });
        sd::write_safetensors(directory.path() / name, shard);
        for (const std::string& tensor : shard.names()) {
            if (tensor != also) map += sd::text(map.empty() ? "" : ", ", '"', tensor, "\": \"", name, '"');
        }
    };
    write_shard("model-00001-of-00002.safetensors", true);
    write_shard("model-00002-of-00002.safetensors", false);
    const auto index = directory.write("model.safetensors.index.json",
                                       "{\"metadata\": {\"total_size\": 1}, \"weight_map\": {" + map + "}}");
    auto model = basic(2);
    CHECK(sd::load_weights(model, index).loaded == static_cast<sd::Index>(file.size()));
    CHECK(relative_error(logits(model), logits(source)) == 0);

    const auto refusal = [&](const std::string& content) {
        const auto path = directory.write("bad.index.json", content);
        return error_of<std::runtime_error>([&] { sd::load_weights(model, path); });
    };
    const auto of_file = [](const std::string& name) { return "{\"weight_map\": {\"fc.bias\": \"" + name + "\"}}"; };
    for (const char* const hostile :
         {"../weights.safetensors", "/etc/passwd", "sub/weights.safetensors", "..", ".", "", "..\\\\w", "a\\u0000b"}) {
        CHECK(contains(refusal(of_file(hostile)), "expected the name of a file in the index's own folder"));
    }
    CHECK(contains(refusal("{\"weight_map\": {\"fc.bias\": 3}}"), "\"fc.bias\": got no text"));
    CHECK(contains(refusal("{\"weight_map\": {}}"), "weight_map: got none"));
    CHECK(contains(refusal("{}"), "weight_map: got none"));
    CHECK(contains(refusal("[]"), "expected a JSON object"));
    CHECK(contains(refusal(""), "expected a JSON object"));
    CHECK(contains(refusal(std::string(100'000, '[')), "expected a JSON object"));
    CHECK(contains(refusal(of_file("none.safetensors")), "none.safetensors: opening"));
    const std::string sound = "\"weight_map\": {" + map;
    CHECK(contains(refusal("{" + sound + ", \"more\": \"model-00001-of-00002.safetensors\"}}"),
                   "00001-of-00002.safetensors: tensors: got"));
    write_shard("model-00002-of-00002.safetensors", false, "layer1.0.conv1.weight");
    CHECK(contains(refusal("{" + sound + "}}"), "expected it in model-00001-of-00002.safetensors"));
    CHECK(relative_error(logits(model), logits(source)) == 0);
}

}  // namespace test_weights_for_others
