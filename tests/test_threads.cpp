// How many threads loops use: by the container's quota, by what was set, and in a forked child.
#include "temporary_directory.hpp"

#include "sd/core/parallel.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <filesystem>
#include <string>
#include <thread>

#if defined(SD_HAS_FORK)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace test_threads {

using sd::Index;

namespace {

// A file system of Linux, as far as control groups are in it.
class MadeUpSystem {
public:
    void write(const std::string& path, const std::string& text) const {
        std::filesystem::create_directories((folder_.path() / path).parent_path());
        (void)folder_.write(path, text);
    }
    [[nodiscard]] int quota() const { return sd::detail::cpu_quota(folder_.path().string()); }

private:
    sd_test::TemporaryDirectory folder_;
};

}  // namespace

TEST_CASE("quota: version 2") {
    MadeUpSystem system;
    CHECK(system.quota() == 0);
    system.write("proc/self/cgroup", "0::/\n");
    CHECK(system.quota() == 0);
    system.write("sys/fs/cgroup/cpu.max", "max 100000\n");
    CHECK(system.quota() == 0);
    system.write("sys/fs/cgroup/cpu.max", "200000 100000\n");
    CHECK(system.quota() == 2);
    system.write("sys/fs/cgroup/cpu.max", "150000 100000\n");
    CHECK(system.quota() == 2);
    system.write("sys/fs/cgroup/cpu.max", "1000 100000\n");
    CHECK(system.quota() == 1);
    for (const char* damaged : {"", "\n", "150000\n", "150000 0\n", "-1 100000\n", "many 100000\n"}) {
        CAPTURE(damaged);
        system.write("sys/fs/cgroup/cpu.max", damaged);
        CHECK(system.quota() == 0);
    }
}

TEST_CASE("quota: the groups above count") {
    MadeUpSystem system;
    system.write("proc/self/cgroup", "0::/user.slice/job 1/step\n");
    system.write("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cg\\040roup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    system.write("sys/fs/cg roup/user.slice/job 1/step/cpu.max", "800000 100000\n");
    CHECK(system.quota() == 8);
    system.write("sys/fs/cg roup/user.slice/job 1/cpu.max", "300000 100000\n");
    CHECK(system.quota() == 3);
    system.write("sys/fs/cg roup/user.slice/cpu.max", "500000 100000\n");
    CHECK(system.quota() == 3);
    system.write("sys/fs/cg roup/user.slice/neighbour/cpu.max", "100000 100000\n");
    CHECK(system.quota() == 3);
}

TEST_CASE("quota: version 1, and both versions at once") {
    MadeUpSystem system;
    system.write("proc/self/cgroup",
                 "12:cpuset:/other\n4:cpu,cpuacct:/docker/1f\n1:name=systemd:/docker/1f\n0::/docker/1f\n");
    system.write("proc/self/mountinfo",
                 "33 31 0:30 /docker/1f /sys/fs/cgroup/cpuset ro master:2 - cgroup cgroup rw,cpuset\n"
                 "34 31 0:31 /docker/1f /sys/fs/cgroup/cpu,cpuacct ro master:3 - cgroup cgroup rw,cpu,cpuacct\n"
                 "35 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
    const std::string group = "sys/fs/cgroup/cpu,cpuacct/";  // the container sees its own group as the top
    system.write(group + "cpu.cfs_period_us", "100000\n");
    system.write(group + "cpu.cfs_quota_us", "-1\n");
    CHECK(system.quota() == 0);
    system.write(group + "cpu.cfs_quota_us", "250000\n");
    CHECK(system.quota() == 3);
    system.write("sys/fs/cgroup/unified/docker/cpu.max", "100000 50000\n");
    CHECK(system.quota() == 2);
}

TEST_CASE("quota: version 1 where the usual places are all there is") {
    MadeUpSystem system;
    system.write("proc/self/cgroup", "4:cpu:/job\n");
    system.write("sys/fs/cgroup/cpu/job/cpu.cfs_period_us", "50000\n");
    system.write("sys/fs/cgroup/cpu/job/cpu.cfs_quota_us", "200000\n");
    CHECK(system.quota() == 4);
}

TEST_CASE("quota: a group that is not below the mount") {
    MadeUpSystem system;
    system.write("proc/self/cgroup", "0::/../sibling\n");
    system.write("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    system.write("sys/fs/cgroup/cpu.max", "400000 100000\n");
    CHECK(system.quota() == 4);
    system.write("proc/self/cgroup", "0::/docker/2ab\n");
    system.write("proc/self/mountinfo", "29 23 0:26 /docker/2 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    CHECK(system.quota() == 4);
}

#if defined(_OPENMP)

TEST_CASE("threads: the quota counts where nobody chose a number") {
    const auto by_default = [](int threads, int processors, int quota) {
        return sd::detail::limited_threads(threads, false, {false, processors, quota});
    };
    CHECK(by_default(64, 64, 0) == 64);
    CHECK(by_default(64, 64, 2) == 2);
    CHECK(by_default(2, 2, 8) == 2);
    CHECK(by_default(3, 64, 2) == 3);                                    // the program's own omp_set_num_threads
    CHECK(sd::detail::limited_threads(64, true, {false, 64, 2}) == 64);  // set_num_threads
    CHECK(sd::detail::limited_threads(64, false, {true, 64, 2}) == 64);  // OMP_NUM_THREADS
}

#endif

// The thread sanitizer ends programs that use threads after a fork.
#if defined(SD_HAS_FORK) && !defined(__SANITIZE_THREAD__)

TEST_CASE("fork: the child's loops run on one thread") {
    const int before = sd::num_threads();
    sd::set_num_threads(2);
    const auto sum = [] {
        std::atomic<Index> total = 0;
        sd::parallel_for(100, [&](Index i) { total += i; });
        return total.load();
    };
    REQUIRE(sum() == 4950);
    const pid_t child = fork();
    if (child == 0) {
        alarm(60);  // ends a child that hangs
        bool right = sd::num_threads() == 1 && sum() == 4950;
        sd::set_num_threads(2);
        right = right && sd::num_threads() == 1 && sum() == 4950;
        const pid_t grandchild = fork();  // from one thread, but the team is still that of the first process
        if (grandchild == 0) _exit(sd::num_threads() == 1 && sum() == 4950 ? 0 : 1);
        int status = 0;
        waitpid(grandchild, &status, 0);
        _exit(right && status == 0 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(status == 0);
    CHECK(sum() == 4950);
    CHECK(sd::num_threads() == 2);
    sd::set_num_threads(before);
}

#endif

}  // namespace test_threads
