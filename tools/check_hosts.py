#!/usr/bin/env python3
"""Several machines on one: Linux network namespaces on a bridge, each with a name and a folder of files of its own, in
which ./run train --ranks N --hosts FILE starts its processes by an agent that enters them. Checks that the run is that
of one process, that it stops when asked, that it goes on from checkpoints of one machine alone, that machines with
other files are refused, and that a killed rank, a link that is down and a switch that is dead end the job. Needs root,
Linux and Open MPI.

    tools/check_hosts.py --train build/release/tools/sd_train [--test-mpi build/release/tests/mpi/test_mpi]
    tools/check_hosts.py --can-run

It prints its seed and, for each end, the seconds that it took.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECONDS = 60  # after which a job that should have ended hangs
MACHINES = 3

# As ssh does, it starts the command with the other machine's environment alone.
AGENT = """#!/bin/sh
while [ "${{1#-}}" != "$1" ]; do shift; done
machine=$1
shift
exec nsenter --target "$(cat {folder}/process.$machine)" --mount --net --uts --ipc \\
    env -i PATH="$PATH" HOME=/ TMPDIR={folder}/own sh -c "$*"
"""


def call(*command, **options):
    return subprocess.run(command, check=True, **options)


class Machines:
    """Network namespaces of these numbers from 1, joined by a switch, which is one more; gone when it is closed."""

    def __init__(self, folder):
        self.folder = folder
        self.own = folder / "own"  # on each machine another folder
        self.own.mkdir()
        self.prefix = f"sd{os.getpid()}-"
        self.switch = f"{self.prefix}switch"
        self.holders = {}
        self.cleaning = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as cleaning:
            self.add_namespace(self.switch, cleaning)
            call("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge")
            call("ip", "-n", self.switch, "link", "set", "bridge", "up")
            for number in range(1, MACHINES + 1):
                self.add_machine(number, cleaning)
            self.cleaning = cleaning.pop_all()
        self.agent = self.folder / "agent"
        self.agent.write_text(AGENT.format(folder=self.folder))
        self.agent.chmod(0o755)
        return self

    def __exit__(self, *_):
        self.cleaning.close()

    def add_namespace(self, name, cleaning):
        call("ip", "netns", "add", name)
        cleaning.callback(self.remove_namespace, name)

    def remove_namespace(self, name):
        for process in self.processes_in(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        call("ip", "netns", "delete", name)

    def add_machine(self, number, cleaning):
        name, address, port = self.name(number), self.address(number), f"port{number}"
        self.add_namespace(name, cleaning)
        call("ip", "-n", name, "link", "add", "veth", "type", "veth", "peer", "name", port, "netns", self.switch)
        call("ip", "-n", self.switch, "link", "set", port, "master", "bridge", "up")
        call("ip", "-n", name, "address", "add", f"{address}/24", "dev", "veth")
        for link in ["lo", "veth"]:
            call("ip", "-n", name, "link", "set", link, "up")
        # Holds the other namespaces of the machine as long as this program lives.
        script = f"hostname {name} && mount -t tmpfs none {self.own} && echo ready && exec cat"
        holder = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "--ipc", "sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
        cleaning.enter_context(holder)
        cleaning.callback(holder.kill)
        assert holder.stdout.readline() == "ready\n", f"{name} has no namespaces"
        self.holders[number] = holder.pid
        (self.folder / f"process.{address}").write_text(str(holder.pid))

    def name(self, number):
        return f"{self.prefix}{number}"

    @staticmethod
    def address(number):
        return f"10.77.0.{number}"

    def files(self, number):
        """The machine's own folder, as this program sees it."""
        return pathlib.Path(f"/proc/{self.holders[number]}/root{self.own}")

    def enter(self, number, *command):
        return ["nsenter", "--target", str(self.holders[number]), "--mount", "--net", "--uts", "--ipc",
                f"--wd={self.folder}", *command]

    @staticmethod
    def processes_in(name):
        return map(int, subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split())

    def process_of_rank(self, number, rank):
        for process in self.processes_in(self.name(number)):
            with contextlib.suppress(OSError):
                environment = pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
                program = pathlib.Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0]
                if f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment and program.endswith(b"sd_train"):
                    return process
        raise AssertionError(f"rank {rank} has no process on machine {number}")

    def set_link(self, number, state):
        call("ip", "-n", self.name(number), "link", "set", "veth", state)

    def set_switch(self, state):
        call("ip", "-n", self.switch, "link", "set", "bridge", state)


def write_images(folder, seed, images=5):
    """A data set in CIFAR-10's format: records of a label and 3072 bytes."""
    rng = random.Random(seed)
    folder.mkdir()
    for name, count in [(f"data_batch_{i}.bin", images) for i in range(1, 6)] + [("test_batch.bin", 3)]:
        (folder / name).write_bytes(b"".join(bytes([rng.randrange(10)]) + rng.randbytes(3072) for _ in range(count)))


class Check:
    def __init__(self, machines, train):
        self.machines = machines
        self.own = machines.own
        self.bin = machines.folder / "bin"
        self.bin.mkdir()
        (self.bin / "cmake").write_text("#!/bin/sh\nexit 0\n")
        (self.bin / "cmake").chmod(0o755)
        self.run = self.run_without_build("run_train", train)

    def run_without_build(self, name, program):
        """A copy of ./run that starts this program as the training tool, which is there already."""
        copy = self.machines.folder / name
        (copy / "tools").mkdir(parents=True)
        (copy / "build/release/tools").mkdir(parents=True)
        shutil.copy(ROOT / "run", copy)
        shutil.copy(ROOT / "tools/machine.sh", copy / "tools")
        (copy / "build/release/tools/sd_train").symlink_to(program)
        return copy / "run"

    def hosts(self, *numbers):
        """A file of these machines, with a rank for each time that one is named."""
        path = self.machines.folder / "hosts"
        lines = [f"{self.machines.address(number)} slots={numbers.count(number)}" for number in dict.fromkeys(numbers)]
        path.write_text("# what ./run --hosts takes\n" + "\n".join(lines) + "\n")
        return path

    def start(self, machine, command):
        environment = dict(os.environ, PATH=f"{self.bin}:{os.environ['PATH']}", TMPDIR=str(self.own),
                           OMPI_MCA_plm_rsh_agent=str(self.machines.agent), OMP_NUM_THREADS="1",
                           OMPI_MCA_mpi_yield_when_idle="1")  # the machines share their cores
        return subprocess.Popen(self.machines.enter(machine, *command), env=environment, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def train(self, hosts, *options, data="data", machine=1):
        """Starts the training tool on a rank for each of `hosts`, or by itself for none."""
        ranks = ["--ranks", str(len(hosts)), "--hosts", str(self.hosts(*hosts)), "--sync-batch-norm"] if hosts else []
        return self.start(machine, [self.run, "train", *ranks, "--data", f"cifar10:{self.own}/{data}", "--batch-size",
                                    "10", "--stochastic-method", "sample", "--drop-rate", "0.8", "--learning-rate",
                                    "0.01", *options])

    def same_masks(self, test_mpi):
        """The masks of every sample and block, of tests that hold them against those of one process."""
        run = self.run_without_build("run_tests", test_mpi)
        status, output = finish(self.start(1, [run, "train", "--ranks", "4", "--hosts", self.hosts(1, 2, 2, 3),
                                               "--test-case=*the run of one process*"]))
        assert status == 0 and "1 passed" in output, (status, output)
        print("every mask that of one process, on 4 ranks of 3 machines", flush=True)

    def same_run(self):
        logs, weights = [], []
        for name, hosts in [("one", []), ("two", [1, 2]), ("three", [1, 2, 3, 3])]:
            status, output = finish(self.train(hosts, "--duration", "2ep", "--log", f"jsonl:{self.own}/{name}.jsonl",
                                               "--save", f"{self.own}/{name}.safetensors"))
            assert status == 0, (status, output)
            files = self.machines.files(1)
            logs.append([json.loads(line) for line in (files / f"{name}.jsonl").read_text().splitlines()])
            weights.append(read_weights(files / f"{name}.safetensors"))
            for number in range(2, MACHINES + 1):
                names = sorted(path.name for path in self.machines.files(number).iterdir())
                assert not any(one.startswith(name) for one in names), (number, names)
        for log, state in zip(logs[1:], weights[1:]):
            batches = compare_logs(logs[0], log)
            difference = max(abs(a - b) for name in weights[0] for a, b in zip(weights[0][name], state[name]))
            assert weights[0].keys() == state.keys() and difference <= 5e-4, difference
            print(f"the run of one process: kept samples of {batches} batches, weights within {difference:.1e}")

    def resumed(self):
        """Rank 0 alone has the checkpoints."""
        checkpoints = ["--checkpoint-dir", f"{self.own}/checkpoints"]
        status, output = finish(self.train([1, 2], "--duration", "4ba", *checkpoints))
        assert status == 0, (status, output)
        assert not (self.machines.files(2) / "checkpoints").exists()
        resume = ["--duration", "6ba", "--resume", *checkpoints]
        status, output = finish(self.train([2, 1], *resume, machine=2))
        assert status != 0 and "none where rank 0 runs, 2 where rank 1 runs" in output, (status, output)
        shutil.rmtree(self.machines.files(2) / "checkpoints")
        status, output = finish(self.train([1, 3, 2], *resume))
        assert status == 0 and " 4 batches done" in output, (status, output)
        print("went on from checkpoints of rank 0's machine; refused where rank 0 has none and rank 1 has")

    def refused(self):
        """Another file, or none, on a machine that is not rank 0's."""
        second = self.machines.files(2)
        write_images(second / "fewer", 1, images=4)
        write_images(self.machines.files(1) / "fewer", 1)
        (self.machines.files(1) / "settings.toml").write_text("seed = 1\n")
        options = ["--config", f"{self.own}/settings.toml", "--duration", "1ep"]
        status, output = finish(self.train([1, 2], *options))
        assert status != 0 and f"train: {self.own}/settings.toml: opening" in output, (status, output)
        (second / "settings.toml").write_text("seed = 2\n")
        status, output = finish(self.train([1, 2], *options))
        assert status != 0 and "rank 1: settings: got seed = 2, expected seed = 1, as rank 0" in output, (status, output)
        (second / "settings.toml").write_text("seed = 1\n")
        status, output = finish(self.train([1, 2], *options, data="fewer"))
        assert status != 0 and "rank 1: --data: got 20 training and 3 test images" in output, (status, output)
        print("refused: other images, settings that are missing or others on the second machine")

    def train_for_ever(self, *options):
        """A job that has trained two epochs."""
        job = self.train([1, 2], "--duration", "100000ep", *options)
        lines = []
        while sum(line.startswith("epoch ") for line in lines) < 2:
            lines.append(job.stdout.readline())
            assert lines[-1], f"the job ended early: {lines}"
        return job

    def stopped(self):
        """The variables of threads, and SIGTERM to ./run, reach the ranks of all machines."""
        job = self.train_for_ever("--checkpoint-dir", f"{self.own}/stopped", "--checkpoint-interval", "100000ep")
        process = self.machines.process_of_rank(2, 1)
        assert b"OMP_NUM_THREADS=1" in pathlib.Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        job.send_signal(signal.SIGTERM)
        status, output = finish(job)
        checkpoints = [*(self.machines.files(1) / "stopped").glob("checkpoint-*")]
        assert status == 143 and len(checkpoints) == 1, (status, checkpoints, output)
        print("SIGTERM: status 143, and a checkpoint on rank 0's machine")

    def ends(self, what, act, restore=lambda: None):
        job = self.train_for_ever()
        start = time.monotonic()
        act()
        try:
            status, output = finish(job)
        finally:
            restore()
        print(f"{what}: status {status} after {time.monotonic() - start:.1f} s", flush=True)
        assert status != 0, output


def finish(job):
    """Status and output of a job that does not hang."""
    try:
        output, _ = job.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"the job hangs: {error.stdout}") from None
    return job.returncode, output


def compare_logs(alone, several):
    """All that the batches and evaluations of two runs have in common, and how many batches those are."""
    assert len(alone) == len(several), (len(alone), len(several))
    batches = 0
    for one, other in zip(alone, several):
        for key in ["event", "epoch", "batch", "sample", "stochastic_depth/kept_fraction", "stochastic_depth/drop_rates"]:
            assert one.get(key) == other.get(key), (key, one, other)
        for key in [key for key in one if key.startswith("loss/")]:
            assert abs(one[key] - other[key]) <= 1e-4 * (1 + abs(one[key])), (key, one, other)
        batches += "stochastic_depth/kept_fraction" in one
    assert batches > 0
    return batches


def read_weights(path):
    """The numbers of a safetensors file of floats, by name."""
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    tensors = {name: entry for name, entry in json.loads(data[8:8 + size]).items() if entry.get("dtype") == "F32"}
    assert tensors, path
    return {name: struct.unpack(f"<{(last - first) // 4}f", data[8 + size + first:8 + size + last])
            for name, entry in tensors.items() for first, last in [entry["data_offsets"]]}


def check(arguments):
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as temporary, Machines(pathlib.Path(temporary)) as machines:
        for number in range(1, MACHINES + 1):
            write_images(machines.files(number) / "data", arguments.seed)
        one = Check(machines, arguments.train.resolve())
        if arguments.test_mpi:
            one.same_masks(arguments.test_mpi.resolve())
        one.same_run()
        one.resumed()
        one.refused()
        one.stopped()
        one.ends("a rank killed", lambda: os.kill(machines.process_of_rank(2, 1), signal.SIGKILL))
        one.ends("a link down", lambda: machines.set_link(2, "down"), lambda: machines.set_link(2, "up"))
        one.ends("a switch dead", lambda: machines.set_switch("down"), lambda: machines.set_switch("up"))


def can_run():
    """Whether there are the programs, and the rights, to make a machine."""
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with Machines(pathlib.Path(temporary)):
                return True
        except (OSError, subprocess.CalledProcessError, AssertionError) as error:
            print(error, file=sys.stderr)
            return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=pathlib.Path)
    parser.add_argument("--test-mpi", type=pathlib.Path)
    parser.add_argument("--can-run", action="store_true", help="make machines and say by the status whether it works")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # and so cleans up
    if given.can_run:
        sys.exit(0 if can_run() else 1)
    check(given)
