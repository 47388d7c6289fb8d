// sd_bench: the benchmarks, and the same workloads for other programs to drive.
#include "benchmarks.hpp"
#include "measure.hpp"
#include "device.hpp"
#include "peak_memory.hpp"

#include "sd/core/parallel.hpp"
#include "sd/cpu/tile_machines.hpp"

#include <CLI/CLI.hpp>
#include <benchmark/benchmark.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using bench::NamedWorkload;
using bench::Workload;
using sd::Index;

/// Whole networks whose tensors are stored as T.
template <class T>
std::vector<NamedWorkload> network_workloads() {
    std::vector<NamedWorkload> all = bench::train_steps<T>();
    for (const NamedWorkload& one : bench::evals<T>()) all.push_back(one);
    return all;
}

std::vector<NamedWorkload> workloads_of(const std::string& precision) {
    if (precision == "bf16") return network_workloads<sd::bfloat16>();
    std::vector<NamedWorkload> all = network_workloads<float>();
    for (const NamedWorkload& one : bench::block_steps()) all.push_back(one);
    return all;
}

/// The workload of this name, run once: memory is in the pool, optimizers have their state.
std::unique_ptr<Workload> make_warm(const NamedWorkload& named) {
    std::unique_ptr<Workload> workload = named.make();
    workload->run();
    return workload;
}

std::unique_ptr<Workload> make_warm(const std::string& name) {
    for (const std::string& precision : tools::precisions) {
        for (const NamedWorkload& named : workloads_of(precision)) {
            if (named.name == name) return make_warm(named);
        }
    }
    throw std::invalid_argument("sd_bench: got the name \"" + name +
                                "\", expected one of train_step/..., eval/..., train_step_bf16/..., eval_bf16/... or "
                                "block_step/...");
}

/// The workload that was measured last. Google Benchmark calls a benchmark several times; only the first builds.
class LastWorkload {
public:
    Workload& get(const NamedWorkload& named) {
        if (name_ != named.name) {
            workload_.reset();
            sd::trim_pool();
            peak_memory_ = bench::peak_memory_of_own_process(named.name);
            workload_ = make_warm(named);
            name_ = named.name;
        }
        return *workload_;
    }
    [[nodiscard]] std::int64_t peak_memory() const { return peak_memory_; }

private:
    std::string name_;
    std::unique_ptr<Workload> workload_;
    std::int64_t peak_memory_ = 0;
};

void register_workloads(const std::string& precision) {
    const auto last = std::make_shared<LastWorkload>();
    for (const NamedWorkload& named : workloads_of(precision)) {
        const auto run = [named, last](benchmark::State& state) {
            Workload& workload = last->get(named);
            const double seconds = bench::seconds_per_call(state, workload.cycle(), [&] { workload.run(); });
            state.counters["items_per_second"] = static_cast<double>(workload.images()) / seconds;
            state.counters["peak_resident_memory"] = static_cast<double>(last->peak_memory());
        };
        benchmark::RegisterBenchmark(named.name.c_str(), run)->Unit(benchmark::kMillisecond);
    }
}

void run_benchmarks(const std::string& precision, const std::vector<std::string>& arguments) {
    bench::register_machine();
    if (precision == "bf16") {
        bench::register_tile_peak();
        bench::register_conv2d<sd::bfloat16>();
    } else {
        bench::register_conv2d<float>();
        bench::register_depthwise();
        bench::register_residual_join();
    }
    register_workloads(precision);
    std::vector<std::string> all = {"sd_bench"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& argument : all) pointers.push_back(argument.data());
    auto count = static_cast<int>(pointers.size());
    benchmark::Initialize(&count, pointers.data());
    if (benchmark::ReportUnrecognizedArguments(count, pointers.data())) {
        throw std::invalid_argument("sd_bench: got an unknown argument, expected those of --help or --benchmark_...");
    }
    benchmark::AddCustomContext("sd", sd::text(SD_VERSION_MAJOR, '.', SD_VERSION_MINOR, '.', SD_VERSION_PATCH));
    benchmark::AddCustomContext("compiler", __VERSION__);
    benchmark::AddCustomContext("threads", std::to_string(sd::num_threads()));
    benchmark::AddCustomContext("machine", sd::cpu::tile_machine_name());
    benchmark::RunSpecifiedBenchmarks();
}

void print_peak_memory(const std::string& name) {
    const std::unique_ptr<Workload> workload = make_warm(name);
    for (Index i = 0; i < workload->cycle(); ++i) workload->run();
    std::cout << bench::peak_resident_memory() << std::endl;
}

void serve(const std::string& name) {
    const std::unique_ptr<Workload> workload = make_warm(name);
    std::cout << workload->cycle() << ' ' << workload->images() << std::endl;
    for (Index runs = 0; std::cin >> runs;) {
        const double seconds = bench::seconds_of([&] {
            for (Index i = 0; i < runs; ++i) workload->run();
        });
        std::cout << seconds << std::endl;
    }
}

int parse_and_run(int argc, char** argv) {
    CLI::App app("Benchmarks of sd. Options of Google Benchmark, --benchmark_..., are passed on.", "sd_bench");
    app.allow_extras();
    std::string precision = "float", filter, json, peak_memory, served;
    app.add_option("--precision", precision,
                   "of the benchmarks that run; bf16: conv2d_bf16/..., train_step_bf16/... and eval_bf16/..., whose "
                   "tensors between layers are stored as bfloat16")
        ->check(CLI::IsMember(tools::precisions))
        ->capture_default_str();
    app.add_option("--filter", filter, "regular expression: run the benchmarks whose name has a match");
    app.add_option("--json", json, "file for the results");
    const auto own = app.add_option("--peak-memory", peak_memory,
                                    "run this train_step, eval or block_step, of any precision, a few times and print "
                                    "the peak resident memory in bytes");
    app.add_option("--serve", served,
                   "build this train_step, eval or block_step, print the runs of a cycle and the images of a run; "
                   "then, for every "
                   "number on the standard input, run that often and print the seconds")
        ->excludes(own);
    CLI11_PARSE(app, argc, argv);
    if (!peak_memory.empty()) {
        print_peak_memory(peak_memory);
    } else if (!served.empty()) {
        serve(served);
    } else {
        std::vector<std::string> arguments = app.remaining();
        if (!filter.empty()) arguments.push_back("--benchmark_filter=" + filter);
        if (!json.empty()) {
            arguments.push_back("--benchmark_out=" + json);
            arguments.push_back("--benchmark_out_format=json");
        }
        run_benchmarks(precision, arguments);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    try {
        return parse_and_run(argc, argv);
    } catch (const std::exception& error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
