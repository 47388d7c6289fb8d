#!/usr/bin/env python3
"""The training program and its files of settings: written beside checkpoints and logs, read by --config.

    test_settings.py PROGRAM
"""
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

try:
    import tomllib  # another reader of the same text
except ImportError:
    tomllib = None

PROGRAM = str(pathlib.Path(sys.argv.pop()).resolve())
FLAGS = ["--model", "cifar_resnet20", "--duration", "1ba", "--batch-size", "2", "--learning-rate", "1e-3",
         "--lr-schedule", "warmup:2ba,cosine", "--stochastic-method", "sample", "--drop-rate", "0.5", "--no-decay",
         "norms_and_biases,layer1.", "--freeze", "conv1", "--seed", "9007199254740993", "--keep", "2"]


class Settings(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        images = self.folder / "images"
        images.mkdir()
        for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
            (images / name).write_bytes(bytes(3073))

    def train(self, *words):
        return subprocess.run([PROGRAM, *words], capture_output=True, text=True, cwd=self.folder)

    def good(self, *words):
        run = self.train(*words)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run

    def first_run(self):
        """A run with strange names, and the file that it leaves."""
        self.good("--data", "cifar10:images", *FLAGS, "--checkpoint-dir", 'a "first" #1\\', "--log", "csv:one,jsonl:two.x.jsonl")
        return self.folder / 'a "first" #1\\' / "settings.toml"

    def test_written_read_and_written_again_it_is_the_same_file(self):
        first = self.first_run()
        text = first.read_text()
        for beside in ("one.settings.toml", "two.x.settings.toml"):
            self.assertEqual((self.folder / beside).read_text(), text)
        kept = self.folder / "kept.toml"
        kept.write_text(text)
        first.unlink()
        (self.folder / "one").unlink()
        self.good("--config", "kept.toml", "--resume")
        self.assertEqual(first.read_text(), text)
        self.assertNotIn("without effect", self.good("--config=kept.toml", "--resume").stderr)

    def test_it_has_every_setting_that_counts(self):
        text = self.first_run().read_text()
        for line in ('data = "cifar10:images"', "batch-size = 2", 'learning-rate = "1e-3"', "drop-rate = 0.5", "mixup = 0",
                     'no-decay = ["norms_and_biases", "layer1."]', 'freeze = "conv1"', "seed = 9007199254740993",
                     'lr-schedule = "warmup:2ba,cosine"', 'checkpoint-interval = "1ep"', "sync-batch-norm = false",
                     'checkpoint-dir = "a \\"first\\" #1\\\\"', "use-same-gpu-seed = true", "keep = 2"):
            self.assertIn(f"\n{line}\n", text)
        self.assertIsNone(re.search("^(config|resume|help|weights|reset-classifier|momentum) ", text, re.MULTILINE))
        if tomllib:
            read = tomllib.loads(text)
            self.assertEqual(read["checkpoint-dir"], 'a "first" #1\\')
            self.assertEqual(read["no-decay"], ["norms_and_biases", "layer1."])
            self.assertEqual(read["seed"], 9007199254740993)

    def test_the_command_line_wins(self):
        self.first_run()
        self.good("--config", "one.settings.toml", "--no-decay=fc.", "--drop-rate", "0.25", "--checkpoint-dir", "second",
                  "--log", "console")
        text = (self.folder / "second/settings.toml").read_text()
        for line in ('no-decay = "fc."', "drop-rate = 0.25", 'checkpoint-dir = "second"', 'log = "console"', "keep = 2"):
            self.assertIn(f"\n{line}\n", text)

    def test_a_file_by_hand(self):
        (self.folder / "hand.toml").write_text("# of mine\n\n  data='cifar10:images'   # here\nmodel = cifar_resnet20\r\n"
                                               "duration = 1ba\nbatch-size=3\nsync-batch-norm = true\n"
                                               "no-decay = [ fc. , 'bn1.' ]\nlog = 'csv:log.csv'\ndrop-rate = 0.5")
        run = self.good("--config", "hand.toml")
        self.assertIn("--sync-batch-norm: got true, without effect", run.stderr)
        self.assertIn("--drop-rate: got 0.5, without effect", run.stderr)
        self.good("--config", "hand.toml", "--sync-batch-norm=false")
        self.assertIn("\nsync-batch-norm = false\n", (self.folder / "log.settings.toml").read_text())
        run = self.good("--config", "hand.toml")
        text = (self.folder / "log.settings.toml").read_text()
        for line in ("batch-size = 3", 'no-decay = ["fc.", "bn1."]', "sync-batch-norm = true"):
            self.assertIn(f"\n{line}\n", text)

    def test_a_refused_run_leaves_the_file_of_the_first_one(self):
        first = self.first_run()
        text = first.read_text()
        run = self.train("--config", "one.settings.toml", "--mixup", "0.2")
        self.assertEqual(run.returncode, 1)
        self.assertIn("checkpoints: got 1 of another run", run.stderr)
        self.assertEqual(first.read_text(), text)
        self.good("--config", "one.settings.toml", "--mixup", "0.2", "--resume")
        self.assertIn("\nmixup = 0.2\n", first.read_text())

    def test_devices_get_none(self):
        self.good("--data", "cifar10:images", *FLAGS[:6], "--log", "jsonl:/dev/null")
        self.assertEqual([path.name for path in self.folder.iterdir()], ["images"])

    def test_refusals(self):
        for text, expected in [
            ("batchsize = 2", "line 2: got batchsize, expected a setting that --help lists"),
            ("resume = true", "line 2: got resume, expected a setting that --help lists"),
            ("config = 'x'", "line 2: got config, expected a setting that --help lists"),
            ("batch-size = many", "line 2: --batch-size: Value many not in range"),
            ("batch-size = [2, 3]", "line 2: --batch-size"),
            ("batch-size = 2.5", "line 2: --batch-size"),
            ("seed = 'one'", "line 2: Could not convert: --seed = one"),
            ("sync-batch-norm = 7.5", "line 2: sync-batch-norm: got 7.5, expected true or false"),
            ("drop-rate = nan", "line 2: --drop-rate: nan is not a number from 0 to 1"),
            ("lr-schedule = 'linear'", "line 2: --lr-schedule: LearningRateSchedule"),
            ("seed = 1\nseed = 2", "line 3: got seed again, expected each once"),
            *((line, f"line 2: got {line}, expected NAME = VALUE or NAME = [VALUE, VALUE]") for line in [
                "seed", "seed =", "seed = 1 2", "seed = 'one", 'data = "a\\n"', "[run]", "no-decay = [fc.", "no-decay = fc.]",
                "no-decay = a, b", "no-decay = [a,]", "no-decay = []", "weights = ''", "= 1"]),
            ("keep = 2", "--keep requires --checkpoint-dir"),
        ]:
            with self.subTest(text):
                (self.folder / "file.toml").write_text(f"# settings\n{text}\n")
                run = self.train("--config", "file.toml", "--data", "nowhere:")
                if "requires" in expected:
                    run = self.train("--config", "file.toml")
                else:
                    expected = f"train: file.toml: {expected}"
                self.assertEqual((run.returncode, run.stdout, len(run.stderr.splitlines())), (2, "", 1), run.stderr)
                self.assertIn(expected, run.stderr)
        for words, expected in [
            (["--config", "none.toml"], "none.toml: opening: got No such file or directory, expected a readable file"),
            (["--config", "images"], "images: kind of file: got a directory, expected a regular file"),
            (["--config"], "--config"),
            (["--config", "a", "--config", "b"], "--config"),
        ]:
            run = self.train(*words)
            self.assertEqual((run.returncode, run.stdout, len(run.stderr.splitlines())), (2, "", 1), run.stderr)
            self.assertIn(expected, run.stderr)

    def test_help_has_a_heading_for_every_option(self):
        text = self.good("--help").stdout
        plain = text[text.index("\nOptions:\n"):text.index("\nData:\n")]
        self.assertEqual(re.findall(r"^  (\S+)", plain, re.MULTILINE), ["-h,--help"])
        for heading in ("Network", "Stochastic depth", "Optimisation", "Regularisation and augmentation", "Run and output",
                        "Several processes"):
            self.assertIn(f"\n{heading}:\n", text)


unittest.main()
