"""./run with stand-ins for the programs that it starts: nothing is installed, configured or built.

    test_run.py ROOT
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(sys.argv.pop(1)).resolve()
TOOLS = "bash sh cat dirname env grep head id mkdir nproc paste sed sort tr".split()

CMAKE = """#!/bin/sh
echo "cmake $* level=$CMAKE_BUILD_PARALLEL_LEVEL" >>{log}
case "$*" in *--build*) exit 0 ;; esac
[ -e {installed} ] && exit 0
cat <<'END'
{says}
END
exit {status}
"""


class Run(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.copy = self.folder / "copy"
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        (self.copy / "tools").mkdir(parents=True)
        shutil.copy(ROOT / "run", self.copy / "run")
        shutil.copy(ROOT / "tools/machine.sh", self.copy / "tools/machine.sh")
        for tool in TOOLS:
            os.symlink(shutil.which(tool), self.bin / tool)
        for tool in ["c++", "make"]:
            self.stand_in(tool, "exit 0")
        self.cmake()
        self.program("tools/sd_train")

    def stand_in(self, name, script):
        path = self.bin / name
        if path.is_symlink():
            path.unlink()
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def cmake(self, says="", status=0):
        files = {"log": self.folder / "log", "installed": self.folder / "installed"}
        self.stand_in("cmake", CMAKE.format(**files, says=says, status=status))

    def program(self, name):
        path = self.copy / "build/release" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\necho "started with $*; wait=$OMP_WAIT_POLICY,$GOMP_SPINCOUNT threads"\n')
        path.chmod(0o755)

    def apt(self, status=0):
        log, installed = self.folder / "log", self.folder / "installed"
        self.stand_in("apt-get", f'echo "apt-get $*" >>{log}; [ "$1" = update ] || : >{installed}; exit {status}')

    def as_root(self, root):
        self.stand_in("id", f"echo {0 if root else 1000}")

    def run_it(self, *arguments, **environment):
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "GOMP", "KMP", "CMAKE"))}
        return subprocess.run(
            [self.copy / "run", *arguments], env={**clean, "PATH": str(self.bin), **environment},
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def log(self):
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def test_nothing_is_missing_and_there_is_no_apt(self):
        for root in [True, False]:
            self.as_root(root)
            result = self.run_it("train", "--help")
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            self.assertIn("started with --help", result.stdout)

    def test_apt_is_not_asked_if_nothing_is_missing(self):
        self.apt()
        self.as_root(True)
        self.assertEqual(self.run_it("train", "--help").returncode, 0)
        self.assertNotIn("apt-get", self.log())

    def test_train_needs_neither_tests_nor_warnings_as_errors(self):
        self.run_it("train", "--help")
        self.assertIn("-DSD_PARTS= ", self.log())
        self.assertNotIn("WARNINGS", self.log())

    def test_parts_that_were_built_stay(self):
        (self.copy / "build/release/CMakeCache.txt").write_text("SD_PARTS:STRING=docs;tests\n")
        self.run_it("train", "--help")
        self.assertIn("-DSD_PARTS=docs;tests ", self.log())

    def test_what_is_missing_is_said_in_one_line(self):
        self.cmake("CMake Error at packages.cmake:1 (message):\n   sd: missing: CLI11 (Debian: libcli11-dev)\n", 1)
        self.as_root(False)
        self.apt()
        result = self.run_it("train", "--help")
        self.assertEqual((result.returncode, result.stderr), (1, "run: missing: CLI11 (Debian: libcli11-dev)\n"))
        self.assertNotIn("apt-get", self.log())

    def test_only_what_is_missing_is_installed(self):
        self.cmake("   sd: missing: CLI11, PNG (Debian: libcli11-dev libpng-dev)\n", 1)
        self.as_root(True)
        self.apt()
        result = self.run_it("train", "--help")
        self.assertEqual((result.returncode, result.stderr), (0, "installing libcli11-dev libpng-dev\n"))
        self.assertIn("install -y -qq --no-install-recommends libcli11-dev libpng-dev\n", self.log())

    def test_apt_that_fails_ends_in_what_is_missing(self):
        self.cmake("   sd: missing: CLI11 (Debian: libcli11-dev)\n", 1)
        self.as_root(True)
        self.apt(status=100)
        result = self.run_it("train", "--help")
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stderr.endswith("run: missing: CLI11 (Debian: libcli11-dev)\n"), result.stderr)

    def test_sudo_that_wants_a_password_is_not_waited_for(self):
        self.cmake("   sd: missing: CLI11 (Debian: libcli11-dev)\n", 1)
        self.as_root(False)
        self.apt()
        self.stand_in("sudo", "exit 1")
        self.assertEqual(self.run_it("train").stderr, "run: missing: CLI11 (Debian: libcli11-dev)\n")

    def test_no_compiler(self):
        (self.bin / "c++").unlink()
        result = self.run_it("train")
        self.assertEqual((result.returncode, result.stderr), (1, "run: please install: g++\n"))

    def test_jobs_of_the_build(self):
        self.run_it("train", CMAKE_BUILD_PARALLEL_LEVEL="7")
        self.assertIn("level=7", self.log())
        self.assertNotIn(" -j", self.log())

    def test_waiting_threads(self):
        self.assertIn("wait=passive,1000 ", self.run_it("train").stdout)
        self.assertIn("wait=active, ", self.run_it("train", OMP_WAIT_POLICY="active").stdout)
        self.assertIn("wait=,7 ", self.run_it("train", GOMP_SPINCOUNT="7").stdout)

    def test_ranks_of_any_mpi(self):
        """Flags that one MPI has and another has not are none; the settings are in the environment."""
        self.stand_in("mpicxx", "exit 0")
        self.stand_in("mpirun", 'echo "mpirun $*"; env')
        result = self.run_it("train", "--ranks", "3")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        self.assertEqual(lines[0], f"mpirun -n 3 {self.copy}/build/release/tools/sd_train --ranks 3")
        for setting in [
            "OMPI_ALLOW_RUN_AS_ROOT=1",
            "OMPI_MCA_hwloc_base_binding_policy=none",
            "OMPI_MCA_rmaps_base_oversubscribe=1",
            "PRTE_MCA_hwloc_default_binding_policy=none",
            "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe",
        ]:
            self.assertIn(setting, lines)

    def test_hosts(self):
        """Six ranks on the three hosts of a file, one of which it names twice: two of them share a machine's cores."""
        self.stand_in("mpicxx", "exit 0")
        self.stand_in("mpirun", 'echo "mpirun $*"; env')
        self.stand_in("nproc", "echo 8")
        hosts = self.folder / "the hosts"
        hosts.write_text("# two kinds\nnode1 slots=2  # here\n\nnode2:2\n  node3\nnode3\n")
        result = self.run_it("train", "--ranks", "6", "--hosts", str(hosts), "--seed", "1", GOMP_SPINCOUNT="7")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        lines = result.stdout.splitlines()
        program = f"{self.copy}/build/release/tools/sd_train"
        self.assertEqual(lines[0], f"mpirun -n 6 --hostfile {hosts} {program} --ranks 6 --seed 1")
        self.assertIn("OMP_NUM_THREADS=4", lines)
        self.assertIn("OMPI_MCA_oob_tcp_keepalive_time=5", lines)
        exported = [line for line in lines if line.startswith("OMPI_MCA_mca_base_env_list=")]
        self.assertEqual({*exported[0].split("=")[1].split(";")}, {"OMP_NUM_THREADS", "GOMP_SPINCOUNT"})

    def test_ranks_without_mpi(self):
        result = self.run_it("train", "--ranks", "3")
        self.assertEqual((result.returncode, result.stderr), (1, "run: please install: openmpi-bin libopenmpi-dev\n"))

    def test_tiers(self):
        self.stand_in("ctest", f'echo "ctest $*" >>{self.folder / "log"}; echo "Total Tests: 12"')
        self.stand_in("cut", "exit 0")
        short = self.run_it("test")
        self.assertEqual((short.returncode, short.stderr), (0, ""))
        self.assertIn("left to ./run test --all: every header alone and 12 tests", short.stdout)
        self.assertIn("-DSD_ALL_TESTS=OFF", self.log())
        self.assertIn("-LE long", self.log())
        (self.folder / "log").unlink()
        (self.copy / "build/all").mkdir()
        (self.copy / "build/all/CMakeCache.txt").write_text("CMAKE_CXX_COMPILER:FILEPATH=c++\n")
        everything = self.run_it("test", "--all")
        self.assertEqual((everything.returncode, everything.stderr), (0, ""))
        self.assertIn("-DSD_ALL_TESTS=ON -DSD_WARNINGS_AS_ERRORS=ON", self.log())
        self.assertNotIn("-LE long", self.log())


class Machine(unittest.TestCase):
    """tools/machine.sh in systems that are made up."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.bin = self.root / "bin"
        self.bin.mkdir()
        (self.bin / "nproc").write_text("#!/bin/sh\necho 16\n")
        (self.bin / "nproc").chmod(0o755)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def cpus_and_jobs(self):
        path = f"{self.bin}:{os.environ['PATH']}"
        command = ["sh", ROOT / "tools/machine.sh", self.root]
        return tuple(map(int, subprocess.check_output(command, env={**os.environ, "PATH": path}, text=True).split()))

    def test_free_memory(self):
        self.assertEqual(self.cpus_and_jobs(), (16, 16))
        for kilobytes, jobs in [(100 << 20, 16), (9 << 20, 4), (2 << 20, 1), (1000, 1)]:
            self.write("proc/meminfo", f"MemTotal: 999999999 kB\nMemAvailable: {kilobytes} kB")
            self.assertEqual(self.cpus_and_jobs(), (16, jobs))

    def test_version_2(self):
        self.write("proc/self/cgroup", "0::/pods/a b")
        self.write("sys/fs/cgroup/pods/a b/cpu.max", "max 100000")
        self.write("sys/fs/cgroup/pods/a b/memory.max", "max")
        self.assertEqual(self.cpus_and_jobs(), (16, 16))
        self.write("sys/fs/cgroup/pods/cpu.max", "550000 100000")
        self.assertEqual(self.cpus_and_jobs(), (6, 6))
        self.write("sys/fs/cgroup/pods/memory.max", str(8 << 30))
        self.write("sys/fs/cgroup/pods/memory.current", str(7 << 30))
        self.assertEqual(self.cpus_and_jobs(), (6, 1))
        self.write("sys/fs/cgroup/pods/memory.stat", f"anon 5\ninactive_file {6 << 30}")
        self.assertEqual(self.cpus_and_jobs(), (6, 3))

    def test_version_1(self):
        self.write("proc/self/cgroup", "7:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1")
        self.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1")
        self.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
        self.assertEqual(self.cpus_and_jobs(), (16, 16))
        self.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000")
        self.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
        self.write("sys/fs/cgroup/memory/memory.limit_in_bytes", str(4 << 30))
        self.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "0")
        self.assertEqual(self.cpus_and_jobs(), (3, 2))


if __name__ == "__main__":
    unittest.main()
