// State dicts: what is saved is loaded, and nothing that does not fit.
#include "messages.hpp"
#include "random.hpp"
#include "temporary_directory.hpp"

#include "sd/io/state_dict.hpp"
#include "sd/sd.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

namespace test_state_dict {

using sd_test::contains;

namespace {

auto network(std::uint64_t seed) { return sd::cifar_resnet<float>(8, {.num_classes = 10, .seed = seed}); }

std::string error_of(sd::BasicResNet<float>& model, const sd::SafeTensors& file) {
    try {
        sd::load_state_dict(model, file);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "accepted";
}

}  // namespace

TEST_CASE("a saved network computes the same after loading") {
    const sd_test::TemporaryDirectory directory;
    const auto path = directory.path() / "weights.safetensors";
    auto first = network(1);
    const auto x = sd_test::random_tensor<float>({4, 16, 16, 3}, 1);
    (void)first.forward(x, sd::Context::train({.step = 0, .seed = 0}));  // running statistics move
    sd::save_weights(first, path);
    auto second = network(2);
    const void* address = second.parameters().front().get();
    const auto expected = first.forward(x, sd::Context::eval());
    CHECK(sd_test::relative_error(second.forward(x, sd::Context::eval()), expected) > 0.01);
    sd::load_weights(second, path);
    const auto logits = second.forward(x, sd::Context::eval());
    CHECK(std::equal(logits.begin(), logits.end(), expected.begin()));
    CHECK(second.parameters().front().get() == address);
    const auto file = sd::state_dict(second);
    CHECK(file.tensor<std::int64_t>("bn1.num_batches_tracked").data()[0] == 1);
    CHECK(file.tensor<float>("layer1.0.conv1.weight").shape() == sd::Shape{16, 16, 3, 3});
    CHECK(file.metadata().at("format") == "pt");
}

TEST_CASE("files that do not fit are refused, and the model stays as it was") {
    auto model = network(1);
    const auto before = sd::state_dict(model).tensor<float>("conv1.weight").clone();
    const auto with = [](const std::string& name, const auto& change) {
        auto other = network(2);
        const sd::SafeTensors file = sd::state_dict(other);
        sd::SafeTensors changed("weights");
        for (const std::string& own : file.names()) {
            if (own != name) changed.add(own, file.entry(own));
        }
        change(changed);
        return changed;
    };
    const auto nothing = [](sd::SafeTensors&) {};
    CHECK(contains(error_of(model, with("fc.bias", nothing)), "\"fc.bias\": got none"));
    CHECK(contains(error_of(model, with("bn1.num_batches_tracked", nothing)), "num_batches_tracked"));
    CHECK(contains(
        error_of(model, with("fc.bias", [](auto& file) { file.add("fc.bias", sd::Tensor<float>(sd::Shape{9})); })),
        "shape: got (9), expected (10)"));
    CHECK(contains(
        error_of(model, with("fc.bias", [](auto& file) { file.add("fc.bias", sd::Tensor<double>(sd::Shape{10})); })),
        "dtype: got F64, expected F32"));
    CHECK(
        contains(error_of(model, with("", [](auto& file) { file.add("fc.scale", sd::Tensor<float>(sd::Shape{10})); })),
                 "\"fc.scale\""));
    const std::string error =
        error_of(model, with("fc.bias", [](auto& file) { file.add("fc.scale", sd::Tensor<float>(sd::Shape{10})); }));
    CHECK(contains(error, "2 of its tensors"));
    CHECK(contains(error, "\"fc.bias\": got none"));
    CHECK(contains(error, "\"fc.scale\": got it"));
    const auto after = sd::state_dict(model).tensor<float>("conv1.weight");
    CHECK(std::equal(before.begin(), before.end(), after.begin()));
    CHECK(error_of(model, with("", nothing)) == "accepted");
}

}  // namespace test_state_dict
