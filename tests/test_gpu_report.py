"""tools/gpu_report.py: goals met and missed, and what is missing, of made-up measurements.

    test_gpu_report.py GPU_REPORT_PY
"""
import contextlib
import io
import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

SCRIPT = sys.argv.pop()

# copy at 4000 GB/s; the join's backward pass is too slow; bf16 beats eager by 1.25 and loses to compile
OURS = """NVIDIA H100
product, bf16                                       790.0 TFLOP/s
copy                                               4000.0 GB/s
residual join, forward                             3500.0 GB/s  88 % of copy
residual join, forward, half dropped               3000.0 GB/s  75 % of copy
residual join, backward with sums                  3200.0 GB/s  80 % of copy
batch norm, gradient by its input                  3400.0 GB/s  85 % of copy
resnet50, bf16, plain, batch 256                   2500.0 images/s
resnet50, bf16, sample, batch 256                  2490.0 images/s
resnet50, bf16, survivors, batch 256               2600.0 images/s
resnet50, bf16, block, batch 256                   2700.0 images/s
cifar_resnet110, bf16, graph off, plain, batch 128    800.0 images/s
cifar_resnet110, bf16, graph off, block, batch 128    850.0 images/s
"""
THEIRS = """PyTorch 2.9.0+cu130, resnet50, bf16, eager, batch 256                          2000.0 images/s
PyTorch 2.9.0+cu130, cifar_resnet110, bf16, eager, graph off, batch 128          900.0 images/s
PyTorch 2.9.0+cu130, resnet50, bf16, compile, batch 256                        2600.0 images/s
"""


def report(ours, theirs, run=None):
    """The exit status, and the words after each name of the table."""
    with tempfile.TemporaryDirectory() as folder:
        if run is not None:
            Path(folder, "cifar10.jsonl").write_text(run)
        Path(folder, "join_and_networks.log").write_text(ours)
        if theirs is not None:
            Path(folder, "pytorch.log").write_text(theirs)
        output = io.StringIO()
        with mock.patch.object(sys, "argv", [SCRIPT, folder]), contextlib.redirect_stdout(output):
            try:
                runpy.run_path(SCRIPT, run_name="__main__")
            except SystemExit as end:
                status = end.code
    lines = output.getvalue().splitlines()[1:]
    return status, {line[:54].strip(): line[54:].split() for line in lines}


class Report(unittest.TestCase):
    def test_goals(self):
        status, rows = report(OURS, THEIRS)
        self.assertEqual(status, 1)
        self.assertEqual(rows["copy, GB/s"], ["4000.0", "-"])
        self.assertEqual(rows["residual join, forward, over copy"], ["0.88", "0.85", "met"])
        self.assertEqual(rows["residual join, backward with sums, over copy"], ["0.80", "0.85", "MISSED"])
        self.assertEqual(rows["batch norm, gradient by its input, over copy"], ["0.85", "0.85", "met"])
        self.assertEqual(rows["resnet50, bf16, plain over eager"], ["1.25", "1.20", "met"])
        self.assertEqual(rows["resnet50, bf16, plain over compile"], ["0.96", "1.00", "MISSED"])
        self.assertEqual(rows["resnet50, bf16, sample's speed over plain's"], ["1.00", "0.99", "met"])
        self.assertEqual(rows["cifar_resnet110, bf16, PyTorch, graph off, images/s"], ["900.0", "-"])
        self.assertEqual(rows["cifar_resnet110, bf16, PyTorch, graph on, images/s"], ["-", "-", "missing"])
        self.assertEqual(rows["resnet50, tf32, plain over eager"], ["-", "1.20", "missing"])
        self.assertEqual(rows["cifar_resnet110, bf16, graph off, images/s"], ["800.0", "-"])
        self.assertEqual(rows["cifar_resnet110, bf16, graph off, block, images/s"], ["850.0", "-"])
        self.assertEqual(rows["cifar_resnet110, bf16, graph on, images/s"], ["-", "-", "missing"])
        self.assertFalse([name for name in rows if "accuracy" in name])

    def test_all_is_met(self):
        ours = OURS.replace("3200.0", "3600.0")
        ours += ours.replace("graph off", "graph on")
        ours += ours.replace("bf16", "tf32").replace("copy ", "other ")
        theirs = THEIRS.replace("2600.0", "2400.0")
        theirs += theirs.replace("graph off", "graph on")
        theirs += theirs.replace("bf16", "tf32")
        status, rows = report(ours, theirs)
        self.assertEqual(status, 0, rows)

    def test_run_of_cifar10(self):
        run = """{"event": "batch", "epoch": 0, "batch": 1, "loss/train": 2.3, "accuracy/train": 0.1}
{"event": "eval", "epoch": 19, "batch": 7429, "loss/eval": 0.6, "accuracy/eval": 0.8}
{"event": "eval", "epoch": 20, "batch": 7820, "loss/eval": 0.5, "accuracy/eval": 0.8431}
"""
        _, rows = report(OURS, THEIRS, run)
        self.assertEqual(rows["cifar_resnet110, CIFAR-10, epoch 20, accuracy %"], ["84.3", "-"])

    def test_without_pytorch(self):
        status, rows = report(OURS, None)
        self.assertEqual(status, 1)
        self.assertEqual(rows["resnet50, bf16, plain over eager"], ["-", "1.20", "missing"])
        self.assertEqual(rows["residual join, forward, over copy"][2], "met")


if __name__ == "__main__":
    unittest.main()
