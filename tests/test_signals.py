#!/usr/bin/env python3
"""SIGTERM in training, in an evaluation, before the first batch, twice, and as the first process of a container; and
folders that cannot be synchronised. What is left must be what a run leaves that was let alone.

    test_signals.py TRAIN FAILING_CALLS
"""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TRAIN, FAULTS = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
UNSHARE = next((command for command in (["unshare", "--pid", "--fork"],
                                        ["unshare", "--user", "--map-root-user", "--pid", "--fork"])
                if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0),
               None)


def write_images(folder, train, test):
    """A data set in CIFAR-10's format: records of a label and 3072 bytes, `train` in each of five files."""
    rng = random.Random(1)
    folder.mkdir()
    for name, count in [(f"data_batch_{i}.bin", train) for i in range(1, 6)] + [("test_batch.bin", test)]:
        (folder / name).write_bytes(b"".join(bytes([rng.randrange(10)]) + rng.randbytes(3072) for _ in range(count)))


class Run:
    """A run in a folder of its own."""

    def __init__(self, folder, data, **options):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.checkpoints = self.folder / "checkpoints"
        self.log = self.folder / "metrics.jsonl"
        options = {"batch-size": 9, "workers": 1, "threads": 1, "learning-rate": 0.01, "stochastic-method": "block",
                   "drop-warmup": "8ba", "eval-interval": "1ba", "data": f"cifar10:{data}",
                   "checkpoint-dir": self.checkpoints, "log": f"console,jsonl:{self.log}"
                   } | {name.replace("_", "-"): value for name, value in options.items()}
        self.arguments = [str(TRAIN), "--resume"] + [text for name, value in options.items()
                                                     for text in (f"--{name}", str(value))]
        self.process = None

    def start(self, before=(), **faults):
        environment = dict(os.environ, OMP_WAIT_POLICY="passive")
        if faults:
            environment |= {"LD_PRELOAD": str(FAULTS),
                            "ASAN_OPTIONS": environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
            environment |= {f"SD_FAULT_{name.upper()}": str(value) for name, value in faults.items()}
        self.process = subprocess.Popen([*before, *self.arguments], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        return self

    def trained_one_batch(self):
        """Waits until a batch is in the log, or the run has ended."""
        until(lambda: self.log.exists() and '"loss/train"' in self.log.read_text() or self.process.poll() is not None)
        return self

    def pid(self):
        """Of the program itself, also in a container."""
        if self.process.args[0] == str(TRAIN):
            return self.process.pid
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        until(lambda: children.read_text().split())
        return int(children.read_text().split()[0])

    def end(self):
        output, errors = self.process.communicate(timeout=600)
        return self.process.returncode, output, errors

    def named(self):
        return sorted(self.checkpoints.glob("checkpoint-*.safetensors")) if self.checkpoints.exists() else []

    def metadata(self):
        """Of the last checkpoint."""
        content = self.named()[-1].read_bytes()
        return json.loads(content[8:8 + int.from_bytes(content[:8], "little")])["__metadata__"]

    def outcome(self):
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        for line in lines:
            line.pop("images_per_second", None)
        return self.named()[-1].name, self.named()[-1].read_bytes(), lines


def until(condition, seconds=300):
    """Waits for a condition, not for ever."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def expect_resumed(root, name, data):
    """The run that was stopped, let go on for a batch, leaves what one does that was let alone."""
    stopped = Run(root / name, data)
    batches = int(stopped.metadata()["run.batch"]) + 1
    ends = [Run(folder, data, duration=f"{batches}ba") for folder in (root / name, root / (name + "_alone"))]
    for run in ends:
        status, _, errors = run.start().end()
        assert status == 0, (status, errors)
    assert ends[0].outcome() == ends[1].outcome(), f"{name}: another outcome after batch {batches}"


def check_training(root, data):
    for before in [()] + ([UNSHARE] if UNSHARE else []):
        name = "training_contained" if before else "training"
        run = Run(root / name, data, duration="1000000ba").start(before).trained_one_batch()
        os.kill(run.pid(), signal.SIGTERM)
        status, output, errors = run.end()
        assert status == 143 and "stopped at batch" in output, (name, status, output, errors)
        expect_resumed(root, name, data)
        print(f"{name}: status {status}, stopped after batch {run.metadata()['run.batch']}")


def check_evaluation(root, data):
    """The batch's line is in the log before its evaluation begins, which takes seconds."""
    run = Run(root / "evaluation", data, duration="1000000ba").start().trained_one_batch()
    os.kill(run.pid(), signal.SIGTERM)
    status, _, errors = run.end()
    assert status == 143, (status, errors)
    assert run.metadata().get("run.evaluation") == "pending", run.metadata()
    expect_resumed(root, "evaluation", data)
    print(f"evaluation: left after batch {run.metadata()['run.batch']}")


def check_twice(root, data):
    """A batch takes seconds; the signal is sent until the program has ended."""
    for before in [()] + ([UNSHARE] if UNSHARE else []):
        run = Run(root / f"twice_{len(before)}", data, batch_size=4000, duration="1000000ba").start(before)
        until(lambda: run.log.exists() and run.process.stdout.readline().startswith("trains "))
        pid = run.pid()
        while run.process.poll() is None:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                pass
            time.sleep(0.05)
        status, _, errors = run.end()
        assert status == (143 if before else -signal.SIGTERM), (before, status, errors)
        assert not run.named(), "the batch was finished"
        print(f"twice{' as first process' if before else ''}: status {status}")


def check_before_training(root, data):
    """While the data are read."""
    for before in [()] + ([UNSHARE] if UNSHARE else []):
        run = Run(root / f"before_{len(before)}", data, duration="1ba")
        status, _, errors = run.start(before, directory=data, call=3, kind="terminate").end()
        assert status == (143 if before else -signal.SIGTERM) and not run.log.exists(), (before, status, errors)
        print(f"before training{' as first process' if before else ''}: status {status}")


def check_folders(root, data):
    for error in [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS, errno.EIO, errno.ENOSPC, errno.EACCES]:
        name = errno.errorcode[error]
        run = Run(root / name, data, duration="4ba", checkpoint_interval="1ba", eval_interval="1ep",
                  save=root / name / "weights.safetensors")
        status, _, errors = run.start(directory=root, kind="directory", errno=error).end()
        assert status == 0 and len(run.named()) == 3, (name, status, errors)
        warnings = [line for line in errors.splitlines() if "synchronising the directory" in line]
        folders = {line.split(": ")[2] for line in warnings}
        # of the weights and the checkpoints
        assert len(warnings) == len(folders) == 2 and all(os.strerror(error) in line for line in warnings), errors
    print("folders: " + warnings[0])


with tempfile.TemporaryDirectory(prefix="sd_signals_") as temporary:
    folder = pathlib.Path(temporary)
    write_images(folder / "few", 5, 6)
    write_images(folder / "long_evaluation", 5, 2000)
    write_images(folder / "large_batch", 800, 6)
    check_folders(folder, folder / "few")
    check_before_training(folder, folder / "few")
    check_training(folder, folder / "few")
    check_evaluation(folder, folder / "long_evaluation")
    check_twice(folder, folder / "large_batch")
    if not UNSHARE:
        print("no namespace of processes can be made here: not tried as the first process of a container")
