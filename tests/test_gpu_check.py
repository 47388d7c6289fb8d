"""tools/gpu_check without a GPU: its runner on steps that pass, fail, hang and are killed; its table of made-up
measurements; and the whole program with stand-ins for everything that it starts.

    test_gpu_check.py GPU_CHECK
"""
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

SCRIPT = sys.argv.pop()
LOADER = importlib.machinery.SourceFileLoader("gpu_check", SCRIPT)
gpu_check = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", LOADER))
sys.dont_write_bytecode = True
LOADER.exec_module(gpu_check)


def python(code, name="step", limit=60, **others):
    return gpu_check.Step(name, limit, [sys.executable, "-c", code], **others)


class Folder(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.folder = Path(directory.name)

    def run_step(self, step, seconds=1000):
        """The record of the step after a run of its own."""
        runner = gpu_check.Runner(self.folder, seconds)
        with open(os.devnull, "w") as nowhere:
            own, sys.stderr = sys.stderr, nowhere
            try:
                runner.run(step)
            finally:
                sys.stderr = own
        return self.records().get(step.name)

    def records(self):
        path = self.folder / "results.json"
        return json.loads(path.read_text())["steps"] if path.exists() else {}


@contextlib.contextmanager
def until_it_says(pipe):
    """Has the first wait for a step end as at its limit when the step runs the code that this gives: however busy the
    machine is, the step has then come so far."""
    os.mkfifo(pipe)
    waits = [pipe]

    class Popen(subprocess.Popen):
        def wait(self, timeout=None):
            if not waits:
                return super().wait(timeout)
            with open(waits.pop()) as says:
                says.read()
            raise subprocess.TimeoutExpired(self.args, timeout)

    with unittest.mock.patch.object(subprocess, "Popen", Popen):
        yield f"open({str(pipe)!r}, 'w').close()"


class Run(Folder):
    def count(self, name="counter"):
        """Code that counts its runs in a file, and how many there have been."""
        path = self.folder / name
        return f"open({str(path)!r}, 'a').write('x')", lambda: len(path.read_text()) if path.exists() else 0

    def test_what_has_passed_is_not_run_again(self):
        code, runs = self.count()
        for _ in range(2):
            record = self.run_step(python(code + "\nprint('a line')\nprint('resnet50, bf16, none   12.5 images/s  x')"))
            self.assertEqual(record["result"], "passed")
            self.assertEqual(record["measured"], {"resnet50, bf16, none": [12.5, "images/s"]})
            self.assertEqual(record["output"], ["resnet50, bf16, none   12.5 images/s  x"])
        self.assertEqual(runs(), 1)

    def test_what_has_failed_is_run_again(self):
        code, runs = self.count()
        for _ in range(2):
            record = self.run_step(python(code + "\nprint('why')\nraise SystemExit(7)"))
            self.assertEqual((record["result"], record["output"]), ("failed (7)", ["why"]))
        self.assertEqual(runs(), 2)

    def test_a_program_that_was_made_and_is_gone_is_made_again(self):
        made = self.folder / "made"
        code, runs = self.count()
        step = python(code + f"\nopen({str(made)!r}, 'w')", makes=(made,))
        self.run_step(step)
        self.run_step(step)
        self.assertEqual(runs(), 1)
        made.unlink()
        self.run_step(step)
        self.assertEqual(runs(), 2)

    def test_a_program_that_is_not_there(self):
        step = gpu_check.Step("step", 60, [self.folder / "none"])
        self.assertEqual(self.run_step(step)["result"], "absent")
        self.assertIsNone(self.run_step(step._replace(name="optional", optional=True)))
        self.assertEqual(gpu_check.exit_status([step._replace(name="optional", optional=True)],
                                               {"steps": {}, "goals": []}), 0)

    def test_what_hangs_is_stopped_with_its_children(self):
        child = self.folder / "child"
        with until_it_says(self.folder / "says") as says:
            code = ("import subprocess, sys\n"
                    "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
                    f"open({str(child)!r}, 'w').write(str(p.pid))\nprint('begun', flush=True)\n{says}\np.wait()")
            record = self.run_step(python(code))
        self.assertEqual((record["result"], record["output"]), ("timed out", ["begun"]))
        try:
            ended = os.pidfd_open(int(child.read_text()))
        except ProcessLookupError:
            return
        self.assertTrue(select.select([ended], [], [], 60)[0], "the child goes on")
        os.close(ended)

    def test_a_training_goes_on_until_it_is_done(self):
        state = self.folder / "state"
        code = ("import pathlib, signal, sys, time\n"
                f"state = pathlib.Path({str(state)!r})\n"
                "begun = state.exists()\n"
                "def stop(*_):\n    state.write_text('saved')\n    sys.exit(143)\n"
                "signal.signal(signal.SIGTERM, stop)\n"
                "if begun: sys.exit()\n")
        with until_it_says(self.folder / "says") as says:
            step = python(f"{code}{says}\ntime.sleep(600)", goes_on=True)
            self.assertEqual(self.run_step(step)["result"], "unfinished")
        self.assertEqual(state.read_text(), "saved")
        self.assertEqual(gpu_check.exit_status([step], {"steps": self.records(), "goals": []}), 3)
        self.assertEqual(self.run_step(step)["result"], "passed")

    def test_what_the_time_cuts_short_has_not_failed(self):
        step = python("import time; time.sleep(600)")
        self.assertIsNone(self.run_step(step, seconds=0))
        self.assertEqual(self.run_step(step, seconds=17)["result"], "unfinished")  # of which 15 are kept for a stop

    def test_a_run_that_is_killed_loses_the_step_that_it_was_in(self):
        begun = self.folder / "begun"
        code = f"""
import importlib.machinery, importlib.util, pathlib, sys
loader = importlib.machinery.SourceFileLoader("gpu_check", {SCRIPT!r})
gpu_check = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
sys.dont_write_bytecode = True
loader.exec_module(gpu_check)
runner = gpu_check.Runner(pathlib.Path({str(self.folder)!r}), 1000)
runner.run(gpu_check.Step("first", 60, [sys.executable, "-c", "print(1)"]))
runner.run(gpu_check.Step("second", 60, ["sh", "-c", "echo $$ > {begun}; cat {self.folder}/fifo"]))
"""
        os.mkfifo(self.folder / "fifo")  # the step waits for it, and we for the step
        run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        while not begun.exists() or not begun.read_text().strip():
            self.assertIsNone(run.poll())
            os.sched_yield()
        run.kill()
        run.wait()
        os.kill(int(begun.read_text()), signal.SIGKILL)
        self.assertEqual({name: record["result"] for name, record in self.records().items()}, {"first": "passed"})
        code, runs = self.count()
        self.run_step(python(code, "first"))
        self.assertEqual(self.run_step(python(code, "second"))["result"], "passed")
        self.assertEqual(runs(), 1)


def measured(**steps):
    """Records of steps that have passed, with what they measured."""
    return {name: {"result": "passed", "seconds": 1, "output": ["x"], "measured": {
        what: [value, "images/s"] for what, value in values.items()}} for name, values in steps.items()}


class Report(Folder):
    def cells(self, records, steps=()):
        results = {"steps": records}
        table = gpu_check.report(steps, results, self.folder)
        return {row[0]: row[1:] for row in table.rows}, {goal["what"]: goal["verdict"] for goal in results["goals"]}

    def test_goals(self):
        rows, verdicts = self.cells(measured(
            kernels={"copy": 4000, "residual join, forward": 3400, "residual join, forward, half dropped": 100,
                     "residual join, backward with sums": 3399, "batch norm, gradient by its input": 3500},
            ours={"resnet50, bf16, none": 2400, "resnet50, bf16, sample": 2376, "resnet50, float, sample": 10,
                  "resnet50, float, none": 500, "resnet50, bf16, block": 4800},
            theirs={"resnet50, bf16, PyTorch eager": 2000, "resnet50, bf16, PyTorch compile": 3000}))
        self.assertEqual(rows["residual join, forward"], ("3400 GB/s, 85 % of copy", "", "", "85 % of copy: met"))
        self.assertEqual(rows["residual join, backward with sums"][3], "85 % of copy: MISSED")
        self.assertEqual(rows["residual join, forward, half dropped"][3], "")
        self.assertEqual(rows["resnet50, bf16, none"],
                         ("2400 images/s", "2000: 1.20x", "3000: 0.80x", "1.20x eager: met"))
        self.assertEqual(rows["resnet50, bf16, sample"],
                         ("2376 images/s, 1.010x the time of none", "", "", "1.01x or less: MISSED"))  # 1.0101
        self.assertEqual(rows["resnet50, bf16, block"][0], "4800 images/s, 0.500x the time of none")
        self.assertEqual(rows["resnet50, float, sample"][3], "")
        self.assertEqual(sorted(verdicts.values()), ["MISSED", "MISSED", "met", "met", "met"])

    def test_goals_the_other_way(self):
        rows, _ = self.cells(measured(
            ours={"resnet50, bf16, none": 2399, "resnet50, bf16, sample": 2380},
            theirs={"resnet50, bf16, PyTorch eager": 2000}))
        self.assertEqual(rows["resnet50, bf16, none"][3], "1.20x eager: MISSED")
        self.assertEqual(rows["resnet50, bf16, sample"][3], "1.01x or less: met")

    def test_steps_and_graphs(self):
        steps = [python("", name) for name in ("parity", "bench", "later", "pytorch")]
        records = measured(bench={"cifar_resnet110, bf16, graph": 300, "cifar_resnet110, bf16, none": 100},
                           pytorch={"cifar_resnet110, bf16, PyTorch graph": 150})
        records["parity"] = {"result": "failed (1)", "seconds": 2, "output": ["51 passed, 1 failed"], "measured": {}}
        rows, _ = self.cells(records, steps)
        self.assertEqual(rows["parity"][0], "failed (1), 2 s: 51 passed, 1 failed")
        self.assertEqual(rows["later"][0], "not run")
        self.assertNotIn("bench", rows)
        self.assertEqual(rows["cifar_resnet110, bf16, graph"][:2], ("300 images/s", "150: 2.00x"))

    def test_figures_of_a_step_that_failed_do_not_count(self):
        records = measured(bench={"resnet50, bf16, none": 100})
        records["bench"]["result"] = "failed (1)"
        rows, _ = self.cells(records, [python("", "bench")])
        self.assertNotIn("resnet50, bf16, none", rows)
        self.assertIn("bench", rows)

    def test_the_paper(self):
        log = self.folder / "cifar10_plain.jsonl"
        log.write_text('{"event": "batch", "epoch": 0, "accuracy/train": 0.1}\n'
                       '{"event": "eval", "epoch": 3, "accuracy/eval": 0.8}\n')
        rows, verdicts = self.cells({})
        self.assertEqual(rows["cifar10_plain"], ("20.00 % test error after epoch 3", "", "", "6.41 % after 500 epochs"))
        self.assertEqual(verdicts, {})
        for accuracy, verdict in ((0.9359, "met"), (0.9358, "MISSED")):
            log.write_text(json.dumps({"event": "eval", "epoch": 500, "accuracy/eval": accuracy}))
            _, verdicts = self.cells({})
            self.assertEqual(list(verdicts.values()), [verdict])


class Program(Folder):
    """The whole program, with stand-ins for all that it starts."""

    def stand_in(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)

    def setUp(self):
        super().setUp()
        tools = self.folder / "tools"
        self.stand_in(tools / "nvidia-smi", "echo 'NVIDIA H000, 1.2, 9.0'\n")
        self.stand_in(tools / "compute-sanitizer", "echo '0 errors'\n")
        self.stand_in(tools / "their_python", 'case $1 in *bench*) echo "$2, $3, PyTorch $5   2.0 images/s";; esac\n')
        self.build = self.folder / "build"
        for name in ("tests/cuda/test_cuda_device", "tools/sd_parity_cuda", "tools/sd_gradcheck_cuda"):
            self.stand_in(self.build / name, "echo done\n")
        self.stand_in(self.build / "bench/sd_bench_cuda",
                      '[ $1 != kernels ] || { echo "copy   1.0 GB/s"; exit; }\n'
                      'network=$1, precision=$2\nshift 3\n'
                      'for variant; do echo "$network $precision, $variant   3.0 images/s"; done\n')
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}",
                            "PYTORCH_PYTHON": str(tools / "their_python")}
        for name in ("CIFAR10", "PARITY"):
            self.environment.pop(name, None)

    def check(self, *arguments, **environment):
        return subprocess.run([sys.executable, SCRIPT, "--results", str(self.folder), *arguments], text=True,
                              capture_output=True, env={**self.environment, **environment})

    def test_all_is_well_and_nothing_is_run_twice(self):
        for _ in range(2):
            run = self.check("--build", str(self.build))
            self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
            self.assertIn("NVIDIA H000", run.stdout)
            for name in ("resnet50, bf16, none", "efficientnet_b0, bf16, sample", "convnext_tiny, float, none",
                         "regnet_y_400mf, float, sample", "cifar_resnet110, bf16, graph"):
                self.assertIn(f"| {name} ", run.stdout)
            self.assertIn(run.stdout, (self.folder / "table.md").read_text())
        self.assertEqual(run.stderr, "")  # no step
        again = self.check("--build", str(self.build), "--again", "--only", "parity,gradcheck")
        self.assertEqual(again.stderr, "== parity\n== gradcheck\n")

    def test_a_failure_is_told_and_run_again(self):
        self.stand_in(self.build / "tools/sd_parity_cuda", "echo 'FAIL convnext'; exit 1\n")
        run = self.check("--build", str(self.build))
        self.assertEqual(run.returncode, 1)
        self.assertIn("failed (1), 0 s: FAIL convnext", run.stdout)
        self.stand_in(self.build / "tools/sd_parity_cuda", "echo '52 passed'\n")
        run = self.check("--build", str(self.build))
        self.assertEqual((run.returncode, run.stderr), (0, "== parity\n== parity_of_new_cases\n"))

    def test_a_training_that_is_cut_short(self):
        self.stand_in(self.build / "tools/sd_train_cuda", 'trap "exit 143" TERM\nsleep 600 & wait\n')
        run = self.check("--build", str(self.build), "--seconds", "17", "--only", "cifar10_stochastic_depth",
                         CIFAR10="here")
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertIn("unfinished", run.stdout)

    def test_dry_run(self):
        run = self.check("--dry-run", CIFAR10="here", PARITY="there")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("build (at most 900 s): cmake --build", run.stdout)
        self.assertIn("sd_parity_cuda there", run.stdout)
        self.assertRegex(run.stdout, "cifar10_stochastic_depth .*sd_train_cuda --data cifar10:here .*--duration 500ep .*"
                                     "multistep:250ep,375ep:0.1 .*block .*0.5 .*linear_huang .*--resume")
        self.assertNotIn("cmake", self.check("--dry-run", "--build", str(self.build)).stdout)
        self.assertFalse((self.folder / "results.json").exists())

    def test_what_cannot_start(self):
        run = self.check("--only", "party")
        self.assertEqual(run.returncode, 2)
        self.assertIn("--only: got party, expected configure, build, parity,", run.stderr)
        self.stand_in(self.folder / "tools/nvidia-smi", "exit 9\n")
        run = self.check()
        self.assertEqual((run.returncode, run.stderr),
                         (2, "gpu_check: nvidia-smi: got no GPU, expected an NVIDIA GPU and its driver\n"))


if __name__ == "__main__":
    unittest.main()
