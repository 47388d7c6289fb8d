#!/usr/bin/env python3
"""Runs the training tool on four processes and kills one of them at a random moment, each in turn; checks that the job
ends each time with an error and leaves no process behind. Every other run on average writes a checkpoint after each
batch; it is let go on, from a whole one. Then stops a run, and lets it go on with two processes.

    tools/check_ranks.py --train build/release/tools/sd_train [--kills 10]

A moment is a number of epochs and a random part of the time that one takes. It prints its seed.
"""
import argparse
import json
import os
import pathlib
import random
import select
import signal
import subprocess
import tempfile
import time


def write_images(folder, rng):
    """A data set in CIFAR-10's format: records of a label and 3072 bytes."""
    folder.mkdir()
    for name, count in [(f"data_batch_{i}.bin", 5) for i in range(1, 6)] + [("test_batch.bin", 3)]:
        (folder / name).write_bytes(b"".join(bytes([rng.randrange(10)]) + rng.randbytes(3072) for _ in range(count)))


class Job:
    """The training tool on some ranks; an epoch has 3 batches of 10, 10 and 5 images."""

    def __init__(self, arguments, folder, ranks, options, data="data"):
        # As in ./run: Open MPI 4 and 5 and MPICH have different options.
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_ALLOW_RUN_AS_ROOT="1",
                           OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", PRTE_ALLOW_RUN_AS_ROOT="1",
                           PRTE_ALLOW_RUN_AS_ROOT_CONFIRM="1", OMPI_MCA_rmaps_base_oversubscribe="1",
                           OMPI_MCA_hwloc_base_binding_policy="none",
                           PRTE_MCA_rmaps_default_mapping_policy=":oversubscribe",
                           PRTE_MCA_hwloc_default_binding_policy="none")
        command = [arguments.mpirun, "-n", str(ranks), arguments.train,
                   "--ranks", str(ranks), "--data", f"cifar10:{folder}/{data}", "--batch-size", "10",
                   "--sync-batch-norm", "--stochastic-method", "sample", "--compute", "survivors", "--drop-rate", "0.8",
                   *options]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True)
        self.lines = []

    def read_lines(self, count, start="epoch "):
        """Reads until so many lines have begun with `start`."""
        while count > 0:
            line = self.process.stdout.readline()
            assert line, f"the job ended early: {self.lines}"
            self.lines.append(line)
            count -= line.startswith(start)

    def finish(self):
        self.lines += self.process.stdout.readlines()
        return self.process.wait()

    def process_of_rank(self, rank):
        for children in pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for child in children.read_text().split():
                environment = pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
                if f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment:
                    return int(child)
        raise AssertionError(f"rank {rank} has no process")


def ends(process, seconds=60):
    """Whether the process of this descriptor ends in that time."""
    return bool(select.select([process], [], [], seconds)[0])


def check_resumed(arguments, folder, checkpoints, rng):
    """A run that was killed goes on from its newest checkpoint, for two batches."""
    finished = max(int(path.name.split("-")[1].split(".")[0]) for path in checkpoints.glob("checkpoint-*"))
    ranks = rng.randrange(1, 5)
    job = Job(arguments, folder, ranks, ["--duration", f"{finished + 2}ba", "--checkpoint-dir", str(checkpoints),
                                         "--resume"])
    status = job.finish()
    assert status == 0, (status, job.lines)
    assert any(f" {finished} batches done" in line for line in job.lines), job.lines
    assert not any("skipped" in line for line in job.lines), job.lines
    names = [path.name for path in checkpoints.iterdir()]
    assert all(name.startswith("checkpoint-") or name == "settings.toml" for name in names), names
    return f"went on from batch {finished} on {ranks}"


def check_kills(arguments, folder, rng):
    slowest = 0
    for kill in range(4 * arguments.kills):
        checkpoints = folder / f"killed_{kill}" if rng.random() < 0.5 else None
        saving = ["--checkpoint-dir", str(checkpoints), "--checkpoint-interval", "1ba"] if checkpoints else []
        job = Job(arguments, folder, 4, ["--duration", "100000ep", *saving])
        epochs = rng.randrange(1, 8)
        job.read_lines(epochs)
        start = time.monotonic()
        job.read_lines(1)
        moment = rng.random() * (time.monotonic() - start)
        processes = [job.process_of_rank(rank) for rank in range(4)]
        descriptors = [os.pidfd_open(process) for process in processes]
        assert not ends(descriptors[kill % 4], moment), job.lines
        start = time.monotonic()
        os.kill(processes[kill % 4], signal.SIGKILL)
        status = job.finish()
        seconds = time.monotonic() - start
        slowest = max(slowest, seconds)
        print(f"rank {kill % 4} killed {1000 * moment:.1f} ms after {epochs + 1} epochs: status {status} after "
              f"{seconds:.2f} s", flush=True)
        assert status != 0, job.lines
        assert any("signal 9" in line for line in job.lines), job.lines
        assert all(ends(descriptor) for descriptor in descriptors), "a process is left"
        for descriptor in descriptors:
            os.close(descriptor)
        if checkpoints:
            print(check_resumed(arguments, folder, checkpoints, rng), flush=True)
    print(f"{4 * arguments.kills} kills, slowest end {slowest:.2f} s")


def send_to_ranks(job, number, ranks):
    for process in [job.process_of_rank(rank) for rank in ranks]:
        os.kill(process, number)


# Ctrl-C and SIGTERM under ./run, which sends mpirun a signal that it hands on; SIGTERM of a batch system to all
# processes, and to one of them.
STOPS = {
    "interrupted": (lambda job: job.process.send_signal(signal.SIGUSR1), 130),
    "terminated": (lambda job: job.process.send_signal(signal.SIGUSR2), 143),
    "all_terminated": (lambda job: send_to_ranks(job, signal.SIGTERM, range(4)), 143),
    "one_terminated": (lambda job: send_to_ranks(job, signal.SIGTERM, [2]), 143),
}


def check_stop_and_resume(arguments, folder, name):
    stop, expected = STOPS[name]
    folder = folder / name
    folder.mkdir()
    (folder / "data").symlink_to(folder.parent / "data")
    checkpoints = ["--checkpoint-dir", f"{folder}/checkpoints"]
    job = Job(arguments, folder, 4, ["--duration", "100000ep", *checkpoints])
    job.read_lines(2)
    stop(job)
    status = job.finish()
    assert status == expected, (status, job.lines)
    names = sorted(path.name for path in (folder / "checkpoints").glob("checkpoint-*"))
    batches = int(names[-1].split("-")[1].split(".")[0])
    job = Job(arguments, folder, 2, ["--duration", f"{batches + 4}ba", "--resume", *checkpoints,
                                     "--log", f"jsonl:{folder}/log"])
    status = job.finish()
    assert status == 0, (status, job.lines)
    assert sum(line.startswith("resumed from ") for line in job.lines) == 1, job.lines
    records = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    trained = [record["batch"] for record in records if "loss/train" in record]
    assert trained == list(range(batches + 1, batches + 5)), trained
    assert all(record["communication/bytes_sent"] > 0 for record in records if "loss/train" in record)
    print(f"{name}: stopped after {batches} batches on 4 ranks, went on for 4 on 2")


def check_refusals(arguments, folder):
    for options, data, expected in [(["--learning-rate", "-1"], "data", "0 or more"), ([], "none", "listing")]:
        job = Job(arguments, folder, 2, options, data)
        status = job.finish()
        assert status != 0 and any(expected in line for line in job.lines), (status, job.lines)
    alone = subprocess.run([arguments.train, "--ranks", "3"], capture_output=True, text=True)
    assert alone.returncode == 2 and "expected 1, the processes that there are" in alone.stderr, alone


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True)
    parser.add_argument("--mpirun", default="mpirun")
    parser.add_argument("--kills", type=int, default=10, help="of each rank")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"seed {given.seed}")
    random_numbers = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = pathlib.Path(temporary)
        write_images(root / "data", random_numbers)
        check_refusals(given, root)
        for way in STOPS:
            check_stop_and_resume(given, root, way)
        check_kills(given, root, random_numbers)
