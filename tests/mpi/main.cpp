// The main function of a test program on several processes: all ranks run the same tests, and the first one that fails
// on any rank ends them all, since the others would wait for that rank.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include "random.hpp"
#include "ranks.hpp"

#include "sd/mpi/session.hpp"

#include <iostream>

namespace {

sd::Communicator* all_ranks = nullptr;

struct FailTogether : doctest::IReporter {
    explicit FailTogether(const doctest::ContextOptions&) {}
    void test_case_end(const doctest::CurrentTestCaseStats& test) override {
        if (test.failure_flags != 0) sd::mpi_abort(1);
    }
    void report_query(const doctest::QueryData&) override {}
    void test_run_start() override {}
    void test_run_end(const doctest::TestRunStats&) override {}
    void test_case_start(const doctest::TestCaseData&) override {}
    void test_case_reenter(const doctest::TestCaseData&) override {}
    void test_case_exception(const doctest::TestCaseException&) override {}
    void subcase_start(const doctest::SubcaseSignature&) override {}
    void subcase_end() override {}
    void log_assert(const doctest::AssertData&) override {}
    void log_message(const doctest::MessageData&) override {}
    void test_case_skipped(const doctest::TestCaseData&) override {}
};

REGISTER_LISTENER("fail_together", 1, FailTogether);

}  // namespace

sd::Communicator& sd_test::ranks() { return *all_ranks; }

int main(int argc, char** argv) {
    return sd::run_ranks(argc, argv, [&](sd::Communicator& communicator) {
        all_ranks = &communicator;
        if (communicator.rank() == 0) std::cout << "seed " << sd_test::seed << std::endl;
        doctest::Context context(argc, argv);
        context.setOption("no-colors", true);
        if (communicator.rank() != 0) context.setOption("minimal", true);  // failures alone
        return context.run();
    });
}
