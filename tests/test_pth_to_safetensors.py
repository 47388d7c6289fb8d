#!/usr/bin/env python3
"""Checkpoints as PyTorch programs write them, through tools/pth_to_safetensors.py: what comes out, or the one line that
says what to do. Needs torch.

    test_pth_to_safetensors.py tools/pth_to_safetensors.py
"""
import argparse
import collections
import contextlib
import importlib.util
import io
import os
import pathlib
import sys
import tempfile
import unittest

import torch

tool_path = pathlib.Path(sys.argv.pop(1))
sys.path.insert(0, str(tool_path.parent))
from safetensors_file import NAMES, read_safetensors, write_safetensors  # noqa: E402

specification = importlib.util.spec_from_file_location("tool", tool_path)
tool = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tool)
tool.torch, tool.NAMES, tool.write_safetensors = torch, NAMES, write_safetensors

STATE = {"conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "bn1.num_batches_tracked": torch.tensor(7)}


class Touch:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def with_prefix(prefix):
    return {prefix + name: value for name, value in STATE.items()}


class Converts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_tool(self, checkpoint, *options):
        """What the tool prints or ends with, and whether it ended well."""
        path = self.folder / "checkpoint.pth"
        if isinstance(checkpoint, bytes):
            path.write_bytes(checkpoint)
        else:
            torch.save(checkpoint, path)
        output = io.StringIO()
        sys.argv = ["pth_to_safetensors.py", str(path), str(self.folder / "out.safetensors"), *options]
        try:
            with contextlib.redirect_stdout(output):
                tool.main()
        except SystemExit as end:
            return str(end), False
        return output.getvalue().strip(), True

    def expect_state(self, checkpoint, *options, state=None):
        said, good = self.run_tool(checkpoint, *options)
        self.assertTrue(good, said)
        self.assertNotIn("\n", said)
        read = read_safetensors(self.folder / "out.safetensors")
        expected = STATE if state is None else state
        self.assertEqual(list(read), list(expected))
        for name, value in expected.items():
            self.assertTrue(torch.equal(read[name], value), name)
            self.assertEqual(read[name].dtype, value.dtype)

    def expect_line(self, words, checkpoint, *options):
        said, good = self.run_tool(checkpoint, *options)
        self.assertFalse(good, said)
        self.assertNotIn("\n", said)
        self.assertIn(words, said)
        self.assertFalse((self.folder / "out.safetensors").exists())

    def test_where_weights_are(self):
        self.expect_state(STATE)
        self.expect_state(collections.OrderedDict(STATE))
        self.expect_state({"model": STATE, "args": argparse.Namespace(lr=0.1, output=pathlib.PosixPath("here"))})
        self.expect_state({"checkpoint": {"model": {"net": STATE}}, "epoch": 3, "loss": torch.tensor(0.5)})
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1, momentum=0.9)
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.step()
        self.expect_state({"state_dict": STATE, "optimizer": optimizer.state_dict(), "mine": optimizer.state_dict()})
        self.expect_state(STATE | {"head._extra_state": None})
        self.expect_state({name: value.half() if value.is_floating_point() else value for name, value in STATE.items()},
                          state={"conv1.weight": STATE["conv1.weight"].half(),
                                 "bn1.num_batches_tracked": STATE["bn1.num_batches_tracked"]})

    def test_prefixes(self):
        for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module._orig_mod."):
            self.expect_state({"model": with_prefix(prefix)})
        self.expect_state({"layer1._orig_mod.0.weight": torch.ones(1)}, state={"layer1.0.weight": torch.ones(1)})
        self.expect_state({"model_ema": with_prefix("module.") | {"n_averaged": torch.tensor(3)}, "epoch": 1})
        self.expect_state({"ema": with_prefix("module.")})

    def test_choice_of_several(self):
        averaged = {name: value + 1 for name, value in STATE.items()}
        both = {"model": STATE, "model_ema": averaged}
        self.expect_state(both)
        self.expect_state(both, "--key", "model_ema", state=averaged)
        (self.folder / "out.safetensors").unlink()
        self.expect_line("--key: got none, expected one of model, model_ema", both, "--key", "none")
        self.expect_line("choose by --key one of teacher, student", {"teacher": STATE, "student": averaged})

    def test_refusals(self):
        optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()
        self.expect_line("no weights of a model in it, but state, param_groups", optimizer)
        self.expect_line("no weights of a model in it, but epoch", {"epoch": 3})
        self.expect_line("got no PyTorch checkpoint", b"no checkpoint at all")
        self.expect_line("got no PyTorch checkpoint", b"")
        self.expect_line("expected a dense tensor", {"a": torch.ones(2, dtype=torch.complex64)})
        self.expect_line("got it twice", {"a": torch.ones(1), "module.a": torch.ones(1)})
        sys.argv = ["", str(self.folder / "none.pth"), str(self.folder / "out")]
        with self.assertRaisesRegex(SystemExit, "got no such file"):
            tool.main()

    def test_whole_modules(self):
        module = torch.nn.Sequential(torch.nn.Linear(2, 1))
        state = {name: value.detach() for name, value in module.state_dict().items()}
        self.expect_line("torch.nn.modules.linear.Linear, which may run code when read: save model.state_dict() instead",
                         module)
        self.expect_state(module, "--run-its-code", state=state)
        self.expect_state({"model": module}, "--run-its-code", state=state)

    def test_no_code_is_run(self):
        trap = self.folder / "trap"
        self.expect_line("posix.mkdir", {"model": STATE, "args": Touch(str(trap))})
        self.assertFalse(trap.exists())


if __name__ == "__main__":
    unittest.main()
