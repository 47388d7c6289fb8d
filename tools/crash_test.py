#!/usr/bin/env python3
"""Kills training runs, lets system calls fail under them, fills their disk, damages their checkpoints; resumes them,
and compares what they leave in the end with what an uninterrupted run leaves: the last checkpoint must have the same
bytes, the metrics the same numbers.

    tools/crash_test.py --train build/release/tools/sd_train --faults build/release/tests/faults/libsd_failing_calls.so

It prints its seed, and a table in the end. --quick is the short form that the tests run; the long one needs root, to
mount a small disk.
"""

import argparse
import collections
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
import zlib

# 43 images in batches of 9: five an epoch, the last one not full. The drop rates rise over 8 of the 13 batches.
COMMON = {"model": "cifar_resnet20", "batch-size": 9, "duration": "13ba", "drop-rate": 0.5, "drop-warmup": "8ba",
          "learning-rate": 0.05, "eval-interval": "4ba", "keep": 2}
CONFIGURATIONS = {
    "block": {"stochastic-method": "block", "checkpoint-interval": "1ep", "lr-schedule": "cosine"},
    "sample, mixup": {"stochastic-method": "sample", "checkpoint-interval": "3ba", "mixup": 0.4, "label-smoothing": 0.1,
                      "lr-schedule": "warmup:3ba,cosine"},
    "survivors, microbatches": {"stochastic-method": "sample", "compute": "survivors", "grad-accum": 2,
                                "checkpoint-interval": "0.2dur", "lr-schedule": "multistep:0.5dur:0.1"},
}


class Failure(Exception):
    """Something that must not happen has happened."""


def check(condition, message):
    if not condition:
        raise Failure(message)


def write_images(folder, rng):
    """A data set in CIFAR-10's format: records of a label and 3072 bytes."""
    folder.mkdir()
    for name, count in [(f"data_batch_{i}.bin", 9 if i < 5 else 7) for i in range(1, 6)] + [("test_batch.bin", 6)]:
        (folder / name).write_bytes(b"".join(bytes([rng.randrange(10)]) + rng.randbytes(3072) for _ in range(count)))


def is_whole(path):
    content = path.read_bytes()
    return len(content) > 12 and zlib.crc32(content[:-4]) == int.from_bytes(content[-4:], "little")


class Run:
    """A run in a folder of its own, which one process after the other works on."""

    def __init__(self, test, configuration, **other):
        self.test = test
        self.folder = pathlib.Path(tempfile.mkdtemp(dir=test.folder))
        self.checkpoints = self.folder / "checkpoints"
        options = COMMON | CONFIGURATIONS[configuration]
        options |= {name.replace("_", "-"): value for name, value in other.items()}
        options |= {"data": f"cifar10:{test.data}", "checkpoint-dir": self.checkpoints,
                    "log": f"jsonl:{self.folder / 'metrics.jsonl'}"}
        self.arguments = [str(test.train), "--resume"]
        for name, value in options.items():
            self.arguments += [f"--{name}", str(value)]

    def start(self, **faults):
        """Starts a process with one or two threads, under faults if there are any."""
        environment = dict(os.environ, OMP_WAIT_POLICY="passive")
        if faults:
            environment |= {"LD_PRELOAD": str(self.test.faults),
                            "ASAN_OPTIONS": environment.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
            environment |= {f"SD_FAULT_{name.upper()}": str(value) for name, value in faults.items()}
        threads = self.test.rng.choice(["1", "2"])
        return subprocess.Popen([*self.arguments, "--threads", threads, "--workers", threads], env=environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def go(self, **faults):
        """A process to its end: its status, what it printed, what it complained of."""
        process = self.start(**faults)
        output, errors = process.communicate()
        return process.returncode, output, errors

    def finish(self, may_skip=False):
        """Goes on to the end of the run."""
        status, output, errors = self.go()
        check(status == 0, f"the resumed run ended with status {status}: {errors}")
        check(may_skip or "skipped" not in errors, f"the resumed run passed over a checkpoint: {errors}")

    def named(self):
        return sorted(self.checkpoints.glob("checkpoint-*.safetensors")) if self.checkpoints.exists() else []

    def left_over(self):
        """Checkpoints half written."""
        return [str(path) for path in self.checkpoints.glob(".*")]

    def expect_whole(self):
        """Whatever has the name of a checkpoint is one."""
        for path in self.named():
            check(is_whole(path), f"{path} is damaged")

    def outcome(self):
        """What the run leaves: its last checkpoint, and its metrics but for those measured by the clock."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            line.pop("images_per_second", None)
        return self.named()[-1].name, self.named()[-1].read_bytes(), lines

    def expect_outcome(self, expected):
        """Compares, and removes the folder."""
        check(not self.left_over(), f"left {self.left_over()}")
        self.expect_whole()
        name, content, lines = self.outcome()
        check(name == expected[0], f"{self.folder}: the last checkpoint is {name}, expected {expected[0]}")
        check(content == expected[1], f"{self.folder}: {name} differs from that of the uninterrupted run")
        check(lines == expected[2], f"{self.folder}: the metrics differ from those of the uninterrupted run")
        shutil.rmtree(self.folder)


class CrashTest:
    def __init__(self, arguments, folder):
        self.train, self.faults, self.folder = arguments.train.resolve(), arguments.faults.resolve(), folder
        self.rng = random.Random(arguments.seed)
        self.data = folder / "images"
        write_images(self.data, self.rng)
        self.table = collections.Counter()
        self.expected, self.seconds = {}, {}
        for name in CONFIGURATIONS:
            begin = time.monotonic()
            run = Run(self, name)
            run.finish()
            self.seconds[name] = time.monotonic() - begin
            self.expected[name] = run.outcome()
            run.expect_outcome(self.expected[name])

    def count(self, *row):
        self.table[row] += 1

    def configuration(self):
        return self.rng.choice(list(CONFIGURATIONS))

    def counted_calls(self, configuration, under="", **other):
        """The names of the system calls of a whole run on files in its folder, or one below it."""
        run = Run(self, configuration, **other)
        status, _, errors = run.go(directory=run.folder / under, log=self.folder / "calls.log")
        check(status == 0, errors)
        calls = [line.split()[1] for line in (self.folder / "calls.log").read_text().splitlines()]
        (self.folder / "calls.log").unlink()
        outcome = run.outcome()
        shutil.rmtree(run.folder)
        return calls, outcome

    def kill_at_moments(self, kills):
        """SIGKILL from outside at random moments, up to three times in a run."""
        while kills > 0:
            name = self.configuration()
            run = Run(self, name)
            for _ in range(min(kills, self.rng.randint(1, 3))):
                process = run.start()
                try:
                    process.communicate(timeout=self.rng.uniform(0, 1.1 * self.seconds[name]))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                killed = process.returncode == -signal.SIGKILL
                check(killed or process.returncode == 0, f"status {process.returncode}")
                run.expect_whole()
                self.count("SIGKILL at a random moment", name, "killed" if killed else "had ended")
                kills -= killed
            run.finish()
            run.expect_outcome(self.expected[name])

    def kill_at_calls(self, kills):
        """SIGKILL at random system calls on the run's files, metrics included, up to three times in a run."""
        calls = {name: len(self.counted_calls(name)[0]) for name in CONFIGURATIONS}
        while kills > 0:
            name = self.configuration()
            run = Run(self, name)
            for _ in range(min(kills, self.rng.randint(1, 3))):
                kind = self.rng.choice(["kill", "killed"])
                status, _, errors = run.go(directory=run.folder, call=self.rng.randint(1, calls[name]), kind=kind)
                killed = status == -signal.SIGKILL
                check(killed or status == 0, f"status {status}: {errors}")
                run.expect_whole()
                self.count("SIGKILL at a random call", name, "killed" if killed else "had ended")
                kills -= killed
            run.finish()
            run.expect_outcome(self.expected[name])

    def fail_calls(self, share):
        """Every system call of two checkpoints fails, is cut short or is the last one: a run of three batches that
        keeps one checkpoint. `share`: the share of the writes that are tried, of other calls it is all."""
        name, short = "sample, mixup", {"duration": "3ba", "checkpoint_interval": "2ba", "keep": 1}
        calls, expected = self.counted_calls(name, "checkpoints", **short)
        told = {errno.ENOSPC: "No space left on device", errno.EIO: "Input/output error"}
        for number, call in enumerate(calls, 1):
            if call == "write" and self.rng.random() >= share:
                continue
            for kind in ["error", "kill", "killed"] + (["short"] if call == "write" else []):
                error = self.rng.choice(list(told))
                run = Run(self, name, **short)
                status, _, errors = run.go(directory=run.checkpoints, call=number, kind=kind, errno=error)
                where = f"{kind} at call {number}, {call}: status {status}, {errors}"
                if kind in ("kill", "killed"):
                    check(status == -signal.SIGKILL, where)
                    outcome = "killed"
                elif status == 1:
                    check(told[error] in errors and str(run.checkpoints) in errors, where)
                    check(not run.left_over(), f"{where}: left {run.left_over()}")
                    outcome = "error told"
                else:
                    # What fails when a file is closed that was read, or when an old one is removed, harms nobody, and
                    # neither does a folder that cannot be synchronised.
                    unsynchronised = call in ("open", "fsync") and "warning" in errors and told[error] in errors
                    check(status == 0 and (call in ("close", "remove", "unlink") or unsynchronised), where)
                    outcome = "went on"
                run.expect_whole()
                # The first file that gets its name is settings.toml.
                written = calls[:number if kind == "killed" else number - 1].count("rename") > 1
                check(not written or run.named(), where + ": no checkpoint is left")
                run.finish()
                if len(run.named()) == 2:  # the one that could not be removed
                    run.named()[0].unlink()
                run.expect_outcome(expected)
                self.count(f"{call}: {kind}", name, outcome)

    def interrupt(self, times):
        """Ctrl-C or SIGTERM at random system calls on the run's files."""
        calls = {name: len(self.counted_calls(name)[0]) for name in CONFIGURATIONS}
        while times > 0:
            name = self.configuration()
            run = Run(self, name)
            kind, number = self.rng.choice([("interrupt", signal.SIGINT), ("terminate", signal.SIGTERM)])
            status, _, errors = run.go(directory=run.folder, call=self.rng.randint(1, calls[name]), kind=kind)
            # Before training starts and after it ends the signal ends the program as any other.
            if status == 128 + number:
                check(run.named(), f"no checkpoint after {number.name}")
                times -= 1
            else:
                check(status in (0, -number), f"status {status}: {errors}")
            outcome = {128 + number: f"status {status}", 0: "had ended"}.get(status, "not yet training")
            self.count(number.name, name, outcome)
            run.expect_whole()
            run.finish()
            run.expect_outcome(self.expected[name])

    def damage(self, times):
        """The newest checkpoint is damaged: the one before it is used, and the run says why."""
        def cut(content):
            return content[:self.rng.randrange(len(content))]

        def flip(content):
            place, bit = self.rng.randrange(len(content)), self.rng.randrange(8)
            return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1:]

        def foreign(_):
            header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
            return len(header).to_bytes(8, "little") + header + bytes(4)

        for kind, change in {"cut short": cut, "a bit flipped": flip, "foreign": foreign}.items():
            for _ in range(times):
                name = self.configuration()
                run = Run(self, name)
                run.finish()
                newest = run.named()[-1]
                newest.write_bytes(change(newest.read_bytes()))
                status, output, errors = run.go()
                check(status == 0 and f"skipped: {newest}" in errors and "resumed from" in output,
                      f"{kind}: status {status}: {errors}")
                run.expect_outcome(self.expected[name])
                self.count(f"newest checkpoint {kind}", name, "older one used")

    def fill_disk(self):
        """Checkpoints on a disk that holds one of them, but not two."""
        for name in CONFIGURATIONS:
            run = Run(self, name)
            run.checkpoints.mkdir()
            size = int(1.5 * len(self.expected[name][1])) // 4096 * 4096
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", run.checkpoints], check=True)
            try:
                status, _, errors = run.go()
                check(status == 1 and "No space left on device" in errors, f"status {status}: {errors}")
                check(len(run.named()) == 1 and len(os.listdir(run.checkpoints)) == 2,  # and settings.toml
                      f"left: {os.listdir(run.checkpoints)}")
                run.expect_whole()
                subprocess.run(["mount", "-o", f"remount,size={4 * size}", run.checkpoints], check=True)
                run.finish()
                last = run.named()
                for path in last:
                    shutil.copy(path, run.folder)
            finally:
                subprocess.run(["umount", run.checkpoints], check=True)
            for path in last:
                shutil.move(run.folder / path.name, run.checkpoints)
            run.expect_outcome(self.expected[name])
            self.count("disk full", name, "error told")

    def print_table(self):
        width = [max(len(row[i]) for row in self.table) for i in range(3)]
        for row, count in sorted(self.table.items()):
            print(f"{row[0]:{width[0]}}  {row[1]:{width[1]}}  {row[2]:{width[2]}}  {count:5}")
        print(f"{sum(self.table.values())} in all; every one resumed to the bytes of the uninterrupted run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=pathlib.Path, required=True, help="the training program")
    parser.add_argument("--faults", type=pathlib.Path, required=True, help="the library of failing calls")
    parser.add_argument("--seed", type=int, default=20160330)
    parser.add_argument("--quick", action="store_true", help="a short form, without waiting for moments")
    parser.add_argument("--kills", type=int, default=100, help="at random moments, in the long form")
    arguments = parser.parse_args()
    print("seed", arguments.seed, flush=True)
    with tempfile.TemporaryDirectory(prefix="sd_crash_") as folder:
        test = CrashTest(arguments, pathlib.Path(folder))
        try:
            if arguments.quick:
                test.kill_at_calls(6)
                test.fail_calls(0.02)
                test.interrupt(2)
                test.damage(1)
            else:
                test.kill_at_moments(arguments.kills)
                test.kill_at_calls(arguments.kills)
                test.fail_calls(1)
                test.interrupt(20)
                test.damage(20)
                test.fill_disk()
        except Failure as failure:
            print("crash_test:", failure, file=sys.stderr)
            return 1
        test.print_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
