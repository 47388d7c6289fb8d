// Scores that come late: what is read when, what a reader is told, and in which order.
#include "cuda_emulator.hpp"

#include "sd/cpu/cross_entropy.hpp"
#include "sd/train/late_scores.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace test_late_scores {

namespace {

using Device = sd_test::Emulator;  // whose numbers are on their way until somebody waits for them
using Scores = sd::LateScores<Device, std::string>;

sd::LateScore<Device> late_score(double loss, double correct) {
    return {sd::to_device<Device>(sd::Tensor<double>({3}, {loss, correct, 2})), 4};
}

/// Writes down what it is told.
struct Notes {
    std::vector<std::string>& lines;

    void read_loss(const Scores::Batch& batch, double loss) const {
        lines.push_back(sd::text("loss of ", batch.number, ": ", loss));
        if (loss < 0) throw std::runtime_error("below 0");
    }
    void read_score(Scores::Batch& batch) const {
        lines.push_back(sd::text("score of ", batch.number, ": ", batch.score.loss(), ' ', batch.score.correct, ' ',
                                 batch.score.correct_in_top5, ' ', batch.score.samples));
    }
    void read_record(const Scores::Batch& batch) const {
        lines.push_back(sd::text("record of ", batch.number, ": ", *batch.record, ' ', batch.learning_rate));
    }
};
using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("scores are read so many batches late, in order and once") {
    for (const std::size_t lateness : {0U, 1U, 3U}) {
        CAPTURE(lateness);
        Scores scores;
        Lines lines;
        for (std::uint64_t batch = 0; batch < 5; ++batch) {
            scores.begin(batch, 0.5);
            scores.add(late_score(static_cast<double>(batch), 1));
            scores.finish();
            scores.close("r");
            scores.read(lateness, Notes{lines});
            CHECK(sd_test::Emulator::under_way == static_cast<int>(std::min<std::size_t>(lateness, batch + 1)));
            CHECK(lines.size() == 3 * (batch + 1 - std::min<std::size_t>(lateness, batch + 1)));
        }
        scores.read(0, Notes{lines});
        CHECK(sd_test::Emulator::under_way == 0);
        CHECK(scores.empty());
        Lines expected;
        for (int batch = 0; batch < 5; ++batch) {
            expected.push_back(sd::text("loss of ", batch, ": ", batch));
            expected.push_back(sd::text("score of ", batch, ": ", batch, " 1 2 4"));
            expected.push_back(sd::text("record of ", batch, ": r 0.5"));
        }
        if (lateness == 0) CHECK(lines == expected);
        std::sort(lines.begin(), lines.end());
        std::sort(expected.begin(), expected.end());
        CHECK(lines == expected);
    }
}

TEST_CASE("a batch is read as far as it has come, and goes when all is known of it") {
    Scores scores;
    Lines lines;
    scores.begin(7, 0.25);
    scores.add(late_score(1, 3));
    scores.read(1, Notes{lines});
    CHECK(lines.empty());
    scores.read(0, Notes{lines});
    CHECK(lines == Lines{"loss of 7: 1"});
    scores.add(late_score(2, 1));
    scores.finish();
    scores.read(0, Notes{lines});
    CHECK(lines == Lines{"loss of 7: 1", "loss of 7: 2", "score of 7: 1.5 4 4 8"});
    CHECK_FALSE(scores.empty());
    scores.close("all");
    scores.read(0, Notes{lines});
    CHECK(lines.size() == 4);
    CHECK(lines.back() == "record of 7: all 0.25");
    CHECK(scores.empty());
}

TEST_CASE("what a reader throws goes through, and is not told again") {
    Scores scores;
    Lines lines;
    for (std::uint64_t batch = 0; batch < 3; ++batch) {
        scores.begin(batch, 1);
        scores.add(late_score(batch == 1 ? -1 : 1, 0));
        scores.finish();
        scores.close("r");
    }
    CHECK_THROWS_WITH(scores.read(0, Notes{lines}), "below 0");
    CHECK(lines == Lines{"loss of 0: 1", "score of 0: 1 0 2 4", "loss of 1: -1"});
    CHECK(sd_test::Emulator::under_way == 1);
    scores.forget();
    CHECK(sd_test::Emulator::under_way == 0);
    scores.read(0, Notes{lines});
    CHECK(lines.size() == 3);
}

TEST_CASE("on the processor a score is there at once, as the loss and the counts have it") {
    const sd::Tensor<double> logits({2, 3}, {1, 2, 3, 5, 1, 0});
    const std::vector<sd::Index> labels{2, 1};
    const std::span<const sd::Index> classes(labels);
    const double loss = sd::cross_entropy_forward(logits, classes, 0.1);
    sd::LateScore<sd::Cpu> late(sd::score_numbers(logits, classes, loss), labels.size());
    CHECK(late.loss() == loss);
    CHECK(late.score() == sd::Score{.loss_sum = 2 * loss, .correct = 1, .correct_in_top5 = 2, .samples = 2});
}

}  // namespace test_late_scores
