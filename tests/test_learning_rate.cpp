// Learning rates, and the scores that tell whether they were good ones.
#include "messages.hpp"

#include "sd/optim/learning_rate.hpp"
#include "sd/train/score.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_learning_rate {

using sd::Index;
using sd_test::contains;
using sd_test::message_of;

// Ten steps of PyTorch 2.15's schedulers from a learning rate of 1: MultiStepLR(milestones=[4, 7], gamma=0.1);
// CosineAnnealingLR(T_max=10); StepLR(step_size=3, gamma=0.97); LinearLR(start_factor=1/4, total_iters=3); SequentialLR of that and
// CosineAnnealingLR(T_max=6) at 4; ChainedScheduler of it and MultiStepLR(milestones=[2, 7], gamma=0.5).
TEST_CASE("learning rates against PyTorch's schedulers") {
    const sd::RunLength length = sd::run_length("10ba", 5, 20, 4);
    const std::map<std::string, std::vector<double>> expected{
        {"constant", std::vector<double>(10, 1.0)},
        {"multistep:0.4dur,7ba:0.1", {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01}},
        {"multistep:7ba,16sp:0.1", {1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01}},
        {"multistep:1ep:0.5", {1, 1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5}},
        {"cosine",
         {1.0, 0.9755282581475768, 0.9045084971874737, 0.7938926261462366, 0.6545084971874737, 0.5, 0.34549150281252633,
          0.2061073738537635, 0.09549150281252633, 0.024471741852423234}},
        {"staircase:3ba:0.97", {1, 1, 1, 0.97, 0.97, 0.97, 0.9409, 0.9409, 0.9409, 0.912673}},
        {"warmup:4ba,staircase:1ep:0.5", {0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.5}},
        {"warmup:4ba,constant", {0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1, 1}},
        {"warmup:0.4dur,cosine",
         {0.25, 0.5, 0.75, 1, 1, 0.9330127018922194, 0.75, 0.5, 0.2500000000000001, 0.06698729810778065}},
        {"warmup:4ba,multistep:2ba,7ba:0.5", {0.25, 0.5, 0.375, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25}},
        {"warmup:20ba,cosine", {0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5}}};
    for (const auto& [name, factors] : expected) {
        const sd::LearningRateSchedule schedule(name);
        CHECK(to_string(schedule) == name);
        sd::Timestamp timestamp;
        for (const double factor : factors) {
            CAPTURE(name);
            CHECK(schedule.factor(timestamp, length) == doctest::Approx(factor).epsilon(1e-14));
            timestamp.to_next_batch(4);
        }
    }
    for (const char* junk : {"",
                             "linear",
                             "cosine,",
                             "warmup:5ep",
                             "warmup:5ep,",
                             "warmup:5,cosine",
                             "multistep",
                             "multistep:0.1",
                             "multistep::0.1",
                             "multistep:5ep",
                             "multistep:5ep,:0.1",
                             "multistep:5ep:-1",
                             "multistep:5ep:nan",
                             "multistep:5ep:0.1x",
                             "staircase",
                             "staircase:2ep",
                             "staircase:0ep:0.9",
                             "staircase:2ep:-1",
                             "cosine:1",
                             " cosine"}) {
        CAPTURE(junk);
        CHECK(message_of([&] { sd::LearningRateSchedule schedule{junk}; }) != "accepted");
    }
    CHECK(contains(message_of([] { sd::LearningRateSchedule("linear"); }),
                   "constant, cosine, multistep:0.5dur,0.75dur:0.1 or staircase:2ep:0.97"));
    CHECK(contains(message_of([] { sd::LearningRateSchedule(sd::MultiStepLearningRate{}); }), "milestones"));
}

TEST_CASE("accuracies count labels among the largest logits, and never one that is not a number") {
    const double nan = std::nan("");
    const sd::Tensor<double> logits({5, 6}, {1,   2,   3,   4,   5,   6,   //
                                             6,   6,   6,   6,   6,   6,   //
                                             1,   nan, 1,   1,   1,   1,   //
                                             0,   -1,  -2,  -3,  -4,  -5,  //
                                             nan, nan, nan, nan, nan, nan});
    const auto count = [&](std::vector<Index> labels, Index k) { return sd::count_in_top(logits, labels, k); };
    CHECK(count({5, 0, 1, 0, 0}, 1) == 3);  // of equal ones the first
    CHECK(count({0, 4, 1, 4, 0}, 5) == 2);
    CHECK(count({0, 5, 1, 5, 3}, 5) == 0);
    CHECK(count({0, 5, 0, 5, 3}, 6) == 4);
    sd::Score score;
    score.add(sd::Tensor<double>({2, 6}, {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}), std::vector<Index>{5, 1}, 0.25);
    score.add(sd::Tensor<double>({1, 6}, {1, 2, 3, 4, 5, 6}), std::vector<Index>{0}, 1.0);
    CHECK(score.loss() == 0.5);
    CHECK(score.accuracy() == doctest::Approx(1.0 / 3));
    CHECK(score.top5_accuracy() == doctest::Approx(2.0 / 3));
    CHECK_THROWS_AS((void)count({0, 1, 2, 3, 6}, 1), std::invalid_argument);
    CHECK_THROWS_AS((void)count({0}, 1), std::invalid_argument);
}

}  // namespace test_learning_rate
