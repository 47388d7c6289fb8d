// Sums of gradients that an exception interrupts: messages under way keep their memory, and the next step starts anew.
#include "sd/core/communicator.hpp"
#include "sd/train/gradient_sum.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <vector>

namespace test_gradient_sum {

namespace {

using Parameters = sd::ParameterList<float>;

/// Two ranks on two machines, of which the other one has the same numbers. A sum that nobody finished still writes when
/// deliver() is called, as a message does that comes late.
class TwoRanks : public sd::Communicator {
public:
    sd::Index size() const override { return 2; }
    bool is_one_machine() const override { return false; }

    void deliver() {
        for (const std::span<float> numbers : under_way) std::fill(numbers.begin(), numbers.end(), 777.0F);
    }

    std::vector<std::span<float>> under_way;
    int destroyed = 0;                     ///< sums under way that were destroyed
    int started = 0, finished = 0;         ///< sums so far
    std::optional<int> failing = {};       ///< which sum cannot be finished
    std::optional<int> not_starting = {};  ///< which sum cannot be started

protected:
    std::unique_ptr<sd::PendingSum> start_sum_of(std::span<float> numbers) override {
        if (not_starting == started) throw std::runtime_error("start");
        ++started;
        under_way.push_back(numbers);
        return std::make_unique<Sum>(*this, numbers);
    }

private:
    struct Sum : sd::PendingSum {
        Sum(TwoRanks& ranks_of_sum, std::span<float> numbers_of_sum) : ranks(ranks_of_sum), numbers(numbers_of_sum) {}
        ~Sum() override { ranks.destroyed += is_finished ? 0 : 1; }
        Sum(const Sum&) = delete;
        Sum& operator=(const Sum&) = delete;
        void finish() override {
            if (ranks.failing == ranks.finished) throw std::runtime_error("finish");
            ++ranks.finished;
            for (float& number : numbers) number *= 2;
            is_finished = true;
            std::erase_if(ranks.under_way, [&](auto other) { return other.data() == numbers.data(); });
        }

        TwoRanks& ranks;
        std::span<float> numbers;
        bool is_finished = false;
    };
};

constexpr sd::Index size = 1000;

Parameters make_parameters() {
    Parameters parameters;
    for (int i = 0; i < 4; ++i) {
        parameters.push_back(std::make_shared<sd::Parameter<float>>(sd::Tensor<float>(sd::Shape{size})));
    }
    return parameters;
}

/// The backward pass through the last parameters down to `first`, whose gradients are ones.
void backward(const Parameters& parameters, std::size_t first = 0) {
    for (std::size_t i = parameters.size(); i-- > first;) {
        parameters[i]->add_grad(sd::Tensor<float>::full({size}, 1.0F));
    }
}

/// Late messages reach nobody: neither gradients nor tensors that come later change.
void check_abandoned(TwoRanks& ranks, std::size_t under_way) {
    CHECK(ranks.destroyed == 0);
    CHECK(ranks.under_way.size() == under_way);
    std::vector<sd::Tensor<float>> later;
    for (int i = 0; i < 16; ++i) later.emplace_back(sd::Shape{size});
    ranks.deliver();
    for (const auto& tensor : later) {
        CHECK(std::all_of(tensor.begin(), tensor.end(), [](float number) { return number == 0; }));
    }
}

}  // namespace

TEST_CASE("backward, the start or the end of a sum throws: the sums under way keep their memory") {
    TwoRanks ranks;
    const Parameters parameters = make_parameters();
    std::size_t under_way = 0;
    {
        sd::GradientSum<float> sum(parameters, ranks, {.bucket_bytes = 1});
        SUBCASE("backward") {
            under_way = 2;
            CHECK_THROWS_WITH(sum.run([&] {
                backward(parameters, 2);
                throw std::runtime_error("backward");
            }),
                              "backward");
        }
        SUBCASE("start") {
            under_way = 3;
            ranks.not_starting = 3;
            CHECK_THROWS_WITH(sum.run([&] { backward(parameters); }), "start");
        }
        SUBCASE("finish") {
            under_way = 3;
            ranks.failing = 1;
            CHECK_THROWS_WITH(sum.run([&] { backward(parameters); }), "finish");
        }
    }
    check_abandoned(ranks, under_way);
}

TEST_CASE("after an exception the next step sums what it has") {
    TwoRanks ranks;
    const Parameters parameters = make_parameters();
    sd::GradientSum<float> sum(parameters, ranks, {.bucket_bytes = 1});
    CHECK_THROWS_AS(sum.run([&] {
        backward(parameters, 2);
        throw std::runtime_error("backward");
    }),
                    std::runtime_error);
    for (const auto& parameter : parameters) parameter->zero_grad();
    sum.run([&] { backward(parameters); });
    check_abandoned(ranks, 2);
    for (const auto& parameter : parameters) {
        CHECK(std::all_of(parameter->grad.begin(), parameter->grad.end(), [](float d) { return d == 2; }));
    }
}

}  // namespace test_gradient_sum
