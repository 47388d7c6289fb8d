// What gradcheck is asked and what it answers.
#pragma once

#include "sd/core/shape.hpp"
#include "sd/nn/context.hpp"

#include <algorithm>
#include <cstdint>
#include <iomanip>
#include <ostream>
#include <string>
#include <vector>

SD_NAMESPACE_BEGIN

namespace testing {

/// Settings of gradcheck().
struct GradcheckOptions {
    Context context = Context::train({.step = 0, .seed = 0});  ///< of every pass, so masks are the same in all
    std::uint64_t seed = 0;                                    ///< of the input, the projection and the directions
    Index entries = 64;                  ///< single entries probed of each tensor; smaller tensors whole
    Index directions = 8;                ///< random directions over all entries of each tensor
    double step = 1e-5;                  ///< h of the finite differences; the other one is 2h
    double difference_tolerance = 1e-7;  ///< largest error of finite differences over the largest entry
    double dual_tolerance = 1e-12;       ///< largest error of dual numbers over the largest entry
    double parameter_noise = 0.25;       ///< parameters move by up to this, so that ones and zeros hide nothing
};

/// What was found for one tensor: the input or a parameter.
struct GradcheckRow {
    std::string tensor = {};      ///< "input" or the name of a parameter
    Index probes = 0;             ///< entries and directions
    Index kinks = 0;              ///< probes that finite differences cannot judge
    double difference_error = 0;  ///< largest |backward - differences| / largest entry; infinite for NaN
    double dual_error = 0;        ///< largest |backward - dual| / largest entry; infinite for NaN
    std::string where = {};       ///< the probe with the largest error, of a wrong gradient always a single entry
    double backward = 0;          ///< what backward gave there
    double expected = 0;          ///< what is right there

    /// The larger of the two errors.
    [[nodiscard]] double error() const { return std::max(difference_error, dual_error); }
    /// "gradient by weight: entry (3, 1): backward gave 1.5, right is 2".
    [[nodiscard]] std::string summary() const {
        return text("gradient by ", tensor, ": ", where, ": ", std::setprecision(12), "backward gave ", backward,
                    ", right is ", expected);
    }
};

/// What gradcheck() found.
struct GradcheckReport {
    std::vector<GradcheckRow> rows = {};     ///< the input, then each parameter
    std::vector<std::string> failures = {};  ///< in words; empty if the layer passed

    /// Whether all is well.
    [[nodiscard]] bool passed() const { return failures.empty(); }
    /// The largest of all rows.
    [[nodiscard]] double difference_error() const {
        double largest = 0;
        for (const GradcheckRow& row : rows) largest = std::max(largest, row.difference_error);
        return largest;
    }
    /// The largest of all rows.
    [[nodiscard]] double dual_error() const {
        double largest = 0;
        for (const GradcheckRow& row : rows) largest = std::max(largest, row.dual_error);
        return largest;
    }
    /// The row with the largest error; there is always one, the input's.
    [[nodiscard]] const GradcheckRow& worst() const {
        return *std::max_element(rows.begin(), rows.end(),
                                 [](const auto& a, const auto& b) { return a.error() < b.error(); });
    }

    /// Prints a table, then the worst entry and the failures.
    friend std::ostream& operator<<(std::ostream& stream, const GradcheckReport& report) {
        stream << text(std::left, std::setw(36), "gradient by", std::right, std::setw(8), "probes", std::setw(8),
                       "kinks", std::setw(19), "finite difference", std::setw(10), "dual", "  worst at\n");
        for (const GradcheckRow& row : report.rows) {
            stream << text(std::left, std::setw(36), row.tensor, std::right, std::setw(8), row.probes, std::setw(8),
                           row.kinks, std::scientific, std::setprecision(1), std::setw(19), row.difference_error,
                           std::setw(10), row.dual_error, "  ", row.where, '\n');
        }
        if (!report.rows.empty()) stream << "worst: " << report.worst().summary() << '\n';
        for (const std::string& failure : report.failures) stream << "FAILED: " << failure << '\n';
        return stream;
    }
};

}  // namespace testing

SD_NAMESPACE_END
