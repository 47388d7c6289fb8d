#!/usr/bin/env python3
"""The results of ./run bench --json FILE as tables in Markdown: every convolution against its roofline, and every
residual join against the copy.

    tools/roofline.py FILE

    bound of a convolution = min(peak, copy x flop / bytes),  bytes = input, weight and output once each

The peak of conv2d_bf16 is tile_peak where the processor has a machine for pairs of bfloat16, and fma_peak all else's.

The file has fma_peak, copy and what is to be shown: ./run bench --filter 'fma_peak|copy|conv2d|residual_join', or
./run bench --precision bf16 --filter '_peak|copy|conv2d'. With --benchmark_repetitions=N each figure is the median of its
repetitions.
"""
import argparse
import collections
import json
import pathlib
import statistics
import sys


# What each kind of benchmark that is shown must have counted.
COUNTERS = {"fma_peak": ("FLOPS",), "tile_peak": ("FLOPS",), "copy": ("bytes_per_second",),
            "conv2d": ("FLOPS", "flop_per_byte"), "conv2d_bf16": ("FLOPS", "flop_per_byte"),
            "residual_join": ("bytes_per_second",)}


def read_medians(path):
    """{name: {counter: median over repetitions}} of the benchmarks that are shown."""
    def refuse(got, expected):
        sys.exit(f"roofline.py: {path}: {got}, expected {expected}")

    repetitions = collections.defaultdict(lambda: collections.defaultdict(list))
    results = json.loads(path.read_text())
    if "benchmarks" not in results:
        refuse("got no \"benchmarks\"", "what ./run bench --json FILE writes")
    for entry in results["benchmarks"]:
        name = entry["run_name"]
        if entry.get("run_type") == "aggregate":
            continue
        for counter in COUNTERS.get(name.partition("/")[0], ()):
            if entry.get("error_occurred"):
                refuse(f"{name}: got the error \"{entry['error_message']}\"", "a result")
            if counter not in entry:
                refuse(f"{name}: got no {counter}", "it beside the time")
            repetitions[name][counter].append(entry[counter])
    ceilings = ["fma_peak", "copy"]
    has_machine = results.get("context", {}).get("machine", "float") != "float"
    if has_machine and any(name.startswith("conv2d_bf16/") for name in repetitions):
        ceilings.append("tile_peak")
    missing = [name for name in ceilings if name not in repetitions]
    if missing:
        refuse(f"got no {' and no '.join(missing)}", "all ceilings")
    return {name: {counter: statistics.median(values) for counter, values in counters.items()}
            for name, counters in repetitions.items()}


def print_table(columns, rows):
    if not rows:
        return
    print()
    for row in (columns, ["---"] * len(columns), *rows):
        print("| " + " | ".join(row) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path, help="JSON of ./run bench")
    results = read_medians(parser.parse_args().file)
    bandwidth = results["copy"]["bytes_per_second"]
    peaks = {name: results[name]["FLOPS"] for name in ("fma_peak", "tile_peak") if name in results}
    print("".join(f"{name} {peak / 1e9:.1f} GFLOP/s, " for name, peak in peaks.items()) +
          f"copy {bandwidth / 1e9:.1f} GB/s")

    convolutions, joins = collections.defaultdict(list), []
    for name, counters in results.items():
        subject, _, case = name.partition("/")
        if subject in ("conv2d", "conv2d_bf16"):
            peak_name = "tile_peak" if subject == "conv2d_bf16" and "tile_peak" in peaks else "fma_peak"
            peak, reached = peaks[peak_name], counters["FLOPS"]
            memory_bound = bandwidth * counters["flop_per_byte"]
            bound = min(peak, memory_bound)
            convolutions[subject].append([case, f"{reached / 1e9:.1f}", f"{bound / 1e9:.1f}",
                                          "copy" if memory_bound < peak else peak_name,
                                          f"{100 * reached / bound:.1f}"])
        elif subject == "residual_join":
            reached = counters["bytes_per_second"]
            joins.append([case, f"{reached / 1e9:.1f}", f"{100 * reached / bandwidth:.1f}"])
    for subject, rows in convolutions.items():
        print_table([subject, "GFLOP/s", "bound, GFLOP/s", "set by", "% of bound"], rows)
    print_table(["residual_join", "GB/s", "% of copy"], joins)


if __name__ == "__main__":
    main()
