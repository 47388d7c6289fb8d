// A run that logs without training, and the words in which tests speak of logs: using namespace sd_test.
#pragma once

#include "messages.hpp"

#include "sd/logs/logger.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace sd_test {

using sd::LogEvent;
using sd::Logger;
using sd::Timestamp;

inline const sd::RunLength logged_run{3, 12, 4, 6};  // 2 epochs of 3 batches of 4

/// Logs a run of two epochs from the batch after `now` to batch `last`, an evaluation after each epoch, with values
/// that are a function of the batch; ends it in good order or not at all.
inline void log_run(Logger& logger, Timestamp now, std::uint64_t last, bool ends) {
    logger.log("stochastic_depth/num_stochastic_layers", 9);
    logger.start(logged_run, now);
    while (now.batch < last) {
        now.to_next_batch(4);
        const auto t = static_cast<double>(now.batch);
        logger.log("loss/train", 1 / t);
        logger.log("learning_rate", 0.1);
        logger.log("stochastic_depth/kept_fraction", std::vector<double>{1, t / 8});
        logger.write(LogEvent::batch, now);
        if (now.batch_in_epoch == 3) {
            now.to_next_epoch();
            logger.log("loss/train_epoch", 2 / t);
            logger.write(LogEvent::epoch, now);
            logger.log("accuracy/eval", t / 10);
            logger.write(LogEvent::evaluation, now);
        }
    }
    if (!ends) return;
    logger.log("note", std::string("done"));
    logger.write(LogEvent::fit_end, now);
}

}  // namespace sd_test
