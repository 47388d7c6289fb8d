#!/usr/bin/env python3
"""The measurements of tools/gpu_check as one table: what was measured, the goal, and whether it is met.

    tools/gpu_report.py FOLDER

reads join_and_networks.log, which sd_bench_cuda wrote, and pytorch.log, which tools/bench_pytorch_cuda.py wrote; what
is not in them is reported as missing. cifar10.jsonl, the log of a run of sd_train_cuda, may be there. The exit status
is 1 if a goal is missed or a measurement is missing.
"""
import json
import pathlib
import re
import sys

ROW = re.compile(r"^(?:PyTorch [^,]+, )?(?P<name>.+?)\s+(?P<value>[0-9.]+) (?P<unit>GB/s|TFLOP/s|images/s)")


def measurements(path):
    """Values by name; empty without the file."""
    if not path.is_file():
        return {}
    rows = (ROW.match(line) for line in path.read_text().splitlines())
    return {row["name"].strip(): float(row["value"]) for row in rows if row}


def quotient(a, b):
    return None if a is None or b is None else a / b


def goals(ours, theirs):
    """(what, value or None, text of the goal, lowest value or None) in the order of the table."""
    copy = ours.get("copy")
    yield "copy, GB/s", copy, "-", None
    yield "product, bf16, TFLOP/s", ours.get("product, bf16"), "-", None
    for name in ("residual join, forward", "residual join, backward with sums", "batch norm, gradient by its input"):
        yield f"{name}, over copy", quotient(ours.get(name), copy), "0.85", 0.85
    for precision in ("bf16", "tf32"):
        rates = {name: ours.get(f"resnet50, {precision}, {name}, batch 256")
                 for name in ("plain", "sample", "survivors", "block")}
        eager = theirs.get(f"resnet50, {precision}, eager, batch 256")
        compiled = theirs.get(f"resnet50, {precision}, compile, batch 256")
        for name, rate in rates.items():
            yield f"resnet50, {precision}, {name}, images/s", rate, "-", None
        yield f"resnet50, {precision}, PyTorch eager, images/s", eager, "-", None
        yield f"resnet50, {precision}, PyTorch compile, images/s", compiled, "-", None
        yield f"resnet50, {precision}, plain over eager", quotient(rates["plain"], eager), "1.20", 1.2
        yield f"resnet50, {precision}, plain over compile", quotient(rates["plain"], compiled), "1.00", 1.0
        sample = quotient(rates["sample"], rates["plain"])
        yield f"resnet50, {precision}, sample's speed over plain's", sample, "0.99", 1 / 1.01
    for precision in ("bf16", "tf32"):
        for graph in ("off", "on"):
            network = f"cifar_resnet110, {precision}"
            rate = ours.get(f"{network}, graph {graph}, plain, batch 128")
            eager = theirs.get(f"{network}, eager, graph {graph}, batch 128")
            yield f"{network}, graph {graph}, images/s", rate, "-", None
            yield f"{network}, PyTorch, graph {graph}, images/s", eager, "-", None
        rate = ours.get(f"cifar_resnet110, {precision}, graph off, block, batch 128")
        yield f"cifar_resnet110, {precision}, graph off, block, images/s", rate, "-", None


def last_evaluation(path):
    """(what, value) of the run's last evaluation; nothing without a run."""
    if not path.is_file():
        return
    records = [json.loads(line) for line in path.read_text().splitlines()]
    evaluations = [record for record in records if "accuracy/eval" in record]
    if evaluations:
        last = evaluations[-1]
        yield f"cifar_resnet110, CIFAR-10, epoch {last['epoch']}, accuracy %", 100 * last["accuracy/eval"]


def main():
    folder = pathlib.Path(sys.argv[1])
    failed = False
    print(f"{'measured':54} {'value':>10} {'goal':>6}")
    ours, theirs = measurements(folder / "join_and_networks.log"), measurements(folder / "pytorch.log")
    for what, value, goal, lowest in goals(ours, theirs):
        verdict = "missing" if value is None else "" if lowest is None else "met" if value >= lowest else "MISSED"
        failed |= verdict in ("missing", "MISSED")
        text = "-" if value is None else f"{value:.2f}" if lowest is not None else f"{value:.1f}"
        print(f"{what:54} {text:>10} {goal:>6} {verdict}".rstrip())
    for what, value in last_evaluation(folder / "cifar10.jsonl"):
        print(f"{what:54} {value:>10.1f} {'-':>6}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
