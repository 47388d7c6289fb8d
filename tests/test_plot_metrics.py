"""tools/plot_metrics.py: pictures of the right size with the right words, and files that are refused.

    test_plot_metrics.py PLOT_METRICS_PY
"""
import contextlib
import io
import json
import math
import re
import runpy
import struct
import sys
import tempfile
import unittest
import warnings
from pathlib import Path
from unittest import mock

SCRIPT = sys.argv.pop()


def lines_of_a_run(drop_rate, epochs=4, batches_per_epoch=25, blocks=6):
    """A run as the training tool logs it: without stochastic depth if the drop rate is 0."""
    if drop_rate:
        yield {"event": "fit_start", "epoch": 0, "batch": 0, "sample": 0,
               "stochastic_depth/num_stochastic_layers": blocks, "stochastic_depth/drop_rate": drop_rate}
    for batch in range(1, epochs * batches_per_epoch + 1):
        record = {"event": "batch", "epoch": (batch - 1) // batches_per_epoch, "batch": batch, "sample": 8 * batch,
                  "loss/train": None if batch == 7 else 2 * math.exp(-batch / 40), "accuracy/train": batch / 200,
                  "learning_rate": 0.1}
        if drop_rate:
            record["stochastic_depth/kept_fraction"] = [1 - drop_rate * block / (blocks - 1) for block in range(blocks)]
        yield record
        if batch % batches_per_epoch == 0:
            end = {"epoch": batch // batches_per_epoch, "batch": batch, "sample": 8 * batch}
            yield {"event": "epoch", **end, "loss/train": 1.0}
            yield {"event": "evaluation", **end, "loss/eval": 1.5, "accuracy/eval": 0.4}


class PlotMetrics(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.plain = self.write("plain.jsonl", lines_of_a_run(0))
        self.sample = self.write("sample.jsonl", lines_of_a_run(0.5))

    def write(self, name, lines):
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines if isinstance(lines, str) else "".join(json.dumps(line) + "\n" for line in lines))
        return path

    def plot(self, *arguments):
        """The exit status and what was written to standard error."""
        errors = io.StringIO()
        with (mock.patch.object(sys, "argv", [SCRIPT, *map(str, arguments)]), contextlib.redirect_stderr(errors),
              warnings.catch_warnings()):
            warnings.simplefilter("error")  # as of a layout that does not fit
            try:
                runpy.run_path(SCRIPT, run_name="__main__")
            except SystemExit as end:
                if isinstance(end.code, str):
                    return 1, end.code
                return end.code, errors.getvalue()
        return 0, errors.getvalue()

    def svg_of(self, *files):
        picture = self.directory / "picture.svg"
        self.assertEqual(self.plot(*files, "-o", picture), (0, ""))
        return picture.read_text()

    def png_size_of(self, *files):
        picture = self.directory / "picture.png"
        self.assertEqual(self.plot(*files, "--output", picture), (0, ""))
        data = picture.read_bytes()
        self.assertEqual(data[:8], b"\x89PNG\r\n\x1a\n")
        return struct.unpack(">II", data[16:24])

    def test_size_grows_with_the_runs_that_have_a_heat_map(self):
        # 10 inches at 120 dots; two rows of legend are 0.25 each, two of curves 2.5, a heat map 2.
        self.assertEqual(self.png_size_of(self.plain), (1200, 660))
        self.assertEqual(self.png_size_of(self.sample), (1200, 900))
        self.assertEqual(self.png_size_of(self.plain, self.sample), (1200, 900))

    def test_learning_rate_has_the_row_to_itself_without_a_drop_rate(self):
        script = runpy.run_path(SCRIPT)
        for file, columns in ((self.plain, 2), (self.sample, 1)):
            axes = script["draw"]([script["Run"](file, "a run")]).axes[2]
            self.assertEqual(axes.get_title("left"), "Learning rate")
            self.assertEqual(len(axes.get_subplotspec().colspan), columns)

    def test_words(self):
        one = re.sub(r"<[^>]*>", "|", self.svg_of(self.sample))
        for words in ("Loss", "Top-1 accuracy (%)", "Learning rate", "Drop rate applied", "batches (25 an epoch)",
                      "Kept share of the samples, by block", "block", "sample.jsonl", "evaluation"):
            self.assertIn(f"|{words}|", one)
        plain = self.svg_of(self.plain)
        self.assertNotIn("Drop rate", plain)
        self.assertNotIn("Kept share", plain)
        both = self.svg_of(self.plain, self.sample)
        self.assertIn("Kept share of the samples, by block: sample.jsonl", both)
        self.assertEqual(both.count("<image"), 1 + 1)  # the heat map and its scale

    def test_a_run_without_evaluations(self):
        records = [record for record in lines_of_a_run(0.5) if record["event"] == "batch"]
        picture = self.svg_of(self.write("sample.jsonl", records))
        self.assertNotIn("evaluation", picture)
        self.assertIn(">batches<", picture)

    def test_files_of_one_name_are_told_apart(self):
        files = [self.write(f"{name}/metrics.jsonl", lines_of_a_run(0)) for name in "ab"]
        picture = self.svg_of(*files)
        for file in files:
            self.assertIn(str(file), picture)

    def test_same_metrics_same_picture(self):
        self.assertEqual(self.svg_of(self.sample), self.svg_of(self.sample))

    def test_a_line_that_is_being_written_does_not_count(self):
        whole = self.svg_of(self.sample)
        self.sample.write_text(self.sample.read_text() + '{"event":"batch","epo')
        self.assertEqual(self.svg_of(self.sample), whole)

    def refused(self, words, *arguments):
        picture = self.directory / "none.png"
        status, error = self.plot(*arguments, *(() if "-o" in arguments else ("-o", picture)))
        self.assertNotEqual(status, 0)
        self.assertIn(words, error)
        self.assertFalse(picture.exists())

    def test_refusals(self):
        first = '{"event":"batch","epoch":0,"batch":1,"loss/train":1}\n'
        for content, words in (
                ("", "has no whole line"),
                (first + "{\n", "line 2: not JSON"),
                (first + "[]\n", "line 2: expected an object with event, epoch and batch"),
                (first + '{"event":"batch","epoch":0}\n', "line 2: expected an object"),
                (first + '{"event":"batch","epoch":0,"batch":-1}\n', "line 2: expected an object"),
                (first + '{"event":"batch","epoch":0,"batch":2,"stochastic_depth/kept_fraction":["a"]}\n',
                 "line 2: kept_fraction"),
                ('{"event":"batch","epoch":0,"batch":1,"loss/train":null}\n',
                 "no line of a batch has a number loss/train"),
                ("\x00\x01\n", "line 1: not JSON")):
            file = self.write("bad.jsonl", content)
            self.refused(f"{file}: {words}", self.sample, file)
        self.refused("nowhere.jsonl", self.directory / "nowhere.jsonl")
        self.refused("ends with .png or .svg", self.sample, "-o", self.directory / "picture.gif")
        self.refused("nowhere/picture.png", self.sample, "-o", self.directory / "nowhere/picture.png")
        self.refused("at most 10", *[self.sample] * 11)
        self.refused("METRICS")


if __name__ == "__main__":
    unittest.main()
