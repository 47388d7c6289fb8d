"""tools/roofline.py: its tables, and what it says of results that it cannot show, of made-up results.

    test_roofline.py ROOFLINE_PY
"""
import contextlib
import io
import json
import runpy
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

SCRIPT = sys.argv.pop()


def measured(name, **counters):
    """A benchmark as Google Benchmark writes it."""
    return {"name": name, "run_name": name, "run_type": "iteration", "iterations": 10, **counters}


def failed(name):
    return {"name": name, "run_name": name, "run_type": "iteration", "iterations": 0, "real_time": 0.0,
            "error_occurred": True, "error_message": "the join differs"}


PEAK = measured("fma_peak", FLOPS=100e9)
COPY = measured("copy", bytes_per_second=10e9)
TILE_PEAK = measured("tile_peak", FLOPS=500e9)
CONVOLUTION = measured("conv2d/forward/8", FLOPS=30e9, flop_per_byte=4.0)
BF16 = measured("conv2d_bf16/forward/8", FLOPS=120e9, flop_per_byte=100.0)
JOIN = measured("residual_join/forward/8", bytes_per_second=9e9)


def roofline(*benchmarks, machine="float"):
    """The exit status, and what was printed."""
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bench.json")
        file.write_text(json.dumps({"context": {"machine": machine}, "benchmarks": benchmarks}))
        with mock.patch.object(sys, "argv", [SCRIPT, str(file)]), contextlib.redirect_stdout(output):
            try:
                runpy.run_path(SCRIPT, run_name="__main__")
            except SystemExit as end:
                return end.code, output.getvalue()
    return None, output.getvalue()


class Roofline(unittest.TestCase):
    def test_tables(self):
        status, output = roofline(PEAK, COPY, CONVOLUTION, JOIN)
        self.assertIsNone(status)
        self.assertIn("| forward/8 | 30.0 | 40.0 | copy | 75.0 |", output)
        self.assertIn("| forward/8 | 9.0 | 90.0 |", output)

    def test_products_of_bfloat16(self):
        _, output = roofline(PEAK, COPY, TILE_PEAK, CONVOLUTION, BF16, machine="amx")
        self.assertIn("fma_peak 100.0 GFLOP/s, tile_peak 500.0 GFLOP/s, copy 10.0 GB/s", output)
        self.assertRegex(output, r"\| conv2d_bf16 \|.*\n.*\n\| forward/8 \| 120.0 \| 500.0 \| tile_peak \| 24.0 \|")
        self.assertRegex(output, r"\| conv2d \|.*\n.*\n\| forward/8 \| 30.0 \| 40.0 \| copy \| 75.0 \|")
        _, output = roofline(PEAK, COPY, BF16)
        self.assertIn("| forward/8 | 120.0 | 100.0 | fma_peak | 120.0 |", output)
        status, output = roofline(PEAK, COPY, BF16, machine="amx")
        self.assertRegex(str(status), "bench.json: got no tile_peak, expected all ceilings")
        self.assertEqual(output, "")

    def test_median_of_repetitions(self):
        others = [dict(JOIN, bytes_per_second=rate) for rate in (1e9, 10e9)]
        _, output = roofline(PEAK, COPY, JOIN, *others)
        self.assertIn("| forward/8 | 9.0 | 90.0 |", output)

    def test_a_benchmark_that_failed(self):
        for name in ("fma_peak", "copy", "conv2d/forward/8", "residual_join/forward/8"):
            others = [entry for entry in (PEAK, COPY, CONVOLUTION, JOIN) if entry["name"] != name]
            status, output = roofline(*others, failed(name))
            self.assertRegex(str(status), f"bench.json: {name}: got the error \"the join differs\", expected a result")
            self.assertEqual(output, "")

    def test_a_benchmark_without_its_counters(self):
        status, _ = roofline(PEAK, COPY, measured("conv2d/forward/8", FLOPS=30e9))
        self.assertRegex(str(status), "bench.json: conv2d/forward/8: got no flop_per_byte")

    def test_without_ceilings(self):
        status, _ = roofline(CONVOLUTION)
        self.assertRegex(str(status), "bench.json: got no fma_peak and no copy, expected all ceilings")


if __name__ == "__main__":
    unittest.main()
