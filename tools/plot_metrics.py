#!/usr/bin/env python3
"""Draws the curves of training runs: loss, accuracy, learning rate and drop rate over batches, and for every run with
stochastic depth which share of the samples each block kept.

    tools/plot_metrics.py metrics.jsonl -o curves.png
    tools/plot_metrics.py plain.jsonl sample.jsonl -o both.svg

Reads what `./run train --log jsonl:FILE` and JsonLinesLogger write. Several runs lie over each other, one colour a run.
Needs matplotlib (Debian: python3-matplotlib).
"""
import argparse
import json
import math
import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

COLORS = ("#2464a4", "#d1603d", "#2b9a72", "#8d5bb0", "#c99a1c", "#4fb0d8", "#b03a68", "#6b7a3a", "#7d5a44", "#67727e")
INK, GREY, LINE = "#1c2733", "#67727e", "#d9dee3"
KEPT = LinearSegmentedColormap.from_list("kept", ["#ffffff", "#a9c6e6", "#2464a4", "#12304f"])
STYLE = {"font.sans-serif": ["DejaVu Sans"], "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK,
         "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "xtick.labelsize": 8.5,
         "ytick.labelsize": 8.5, "svg.fonttype": "none", "svg.hashsalt": "plot_metrics"}
WIDTH, CURVE_HEIGHT, HEAT_HEIGHT, DPI = 10.0, 2.5, 2.0, 120  # inches; dots an inch


class Run:
    """The metrics of one file."""

    def __init__(self, path, label):
        self.label = label
        self.records = read_records(path)
        batches = [record for record in self.records if record["event"] == "batch"]
        if not any(is_number(record.get("loss/train")) for record in batches):
            raise ValueError(f"{path}: no line of a batch has a number loss/train")
        self.last_batch = max(record["batch"] for record in self.records)

    def series(self, name, event=None):
        """Batches and values of a metric, of one event or of all; values that are no number (null) are nan."""
        points = [(record["batch"], record[name]) for record in self.records
                  if name in record and event in (None, record["event"])]
        return [batch for batch, _ in points], [value if is_number(value) else math.nan for _, value in points]

    def kept_fraction(self):
        """Batches, and for each the list of what every block kept; empty for a run without stochastic depth."""
        name = "stochastic_depth/kept_fraction"
        points = [(record["batch"], record[name]) for record in self.records if record.get(name)]
        return [batch for batch, _ in points], [row for _, row in points]

    def batches_per_epoch(self):
        """Or None, if no epoch was finished."""
        return next((record["batch"] // record["epoch"] for record in self.records
                     if record["event"] == "epoch" and record["epoch"]), None)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def read_records(path):
    """The lines of a file, without a last one that is not yet whole. Raises ValueError, saying where, for others."""
    records = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                break
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number}: not JSON: {error}") from None
            if not isinstance(record, dict) or not isinstance(record.get("event"), str) or not all(
                    isinstance(record.get(field), int) and record[field] >= 0 for field in ("epoch", "batch")):
                raise ValueError(f"{path}: line {number}: expected an object with event, epoch and batch")
            kept = record.get("stochastic_depth/kept_fraction", [])
            if not isinstance(kept, list) or not all(map(is_number, kept)):
                raise ValueError(f"{path}: line {number}: kept_fraction is not a list of numbers")
            records.append(record)
    if not records:
        raise ValueError(f"{path}: has no whole line, expected lines of metrics")
    return records


def in_bins(batches, values, count):
    """Means, least and largest values of so many groups of neighbours: (batches, means, least, largest)."""
    bins = []
    for i in range(count):
        first, last = i * len(values) // count, (i + 1) * len(values) // count
        known = [value for value in values[first:last] if not math.isnan(value)] or [math.nan]
        bins.append((sum(batches[first:last]) / (last - first), sum(known) / len(known), min(known), max(known)))
    return list(zip(*bins)) if bins else [(), (), (), ()]


def draw_training(axes, run, color, name, factor=1.0):
    """A metric of training batches as a line through means in a pale band, and of evaluations as points."""
    batches, values = run.series(f"{name}/train", "batch")
    count = len(values) if len(values) <= 40 else min(max(40, len(values) // 6), 160)
    batches, means, least, largest = in_bins(batches, values, count)
    axes.fill_between(batches, [factor * v for v in least], [factor * v for v in largest], color=color, alpha=0.16,
                      linewidth=0)
    axes.plot(batches, [factor * v for v in means], color=color, linewidth=1.4)
    batches, values = run.series(f"{name}/eval", "evaluation")
    if batches:
        axes.plot(batches, [factor * v for v in values], color=color, linewidth=1.1, linestyle=(0, (4, 2)), marker="o",
                  markersize=4.2, markerfacecolor="white", markeredgewidth=1.2, clip_on=False, zorder=3)


def draw_setting(axes, run, color, width, name):
    """A metric that is set, not measured: constant until it is told anew. Runs often have the same: the later is
    thinner."""
    batches, values = run.series(name)
    told = [(batch, value) for i, (batch, value) in enumerate(zip(batches, values)) if i == 0 or value != values[i - 1]]
    if told:
        told.append((run.last_batch, told[-1][1]))
        axes.plot(*zip(*told), color=color, linewidth=width, drawstyle="steps-post")


def draw_kept(figure, axes, run, title):
    """What every block kept, over time."""
    batches, rows = run.kept_fraction()
    blocks = max(map(len, rows))
    rows = [row + [math.nan] * (blocks - len(row)) for row in rows]
    count = len(rows) if len(rows) <= 240 else 160
    columns = [in_bins(batches, [row[block] for row in rows], count)[1] for block in range(blocks)]
    least = min(value for column in columns for value in column if not math.isnan(value))
    image = axes.imshow(columns, cmap=KEPT, vmin=min(math.floor(10 * least) / 10, 0.9), vmax=1, aspect="auto",
                        origin="lower", interpolation="nearest",
                        extent=(batches[0] - 1, batches[-1], -0.5, blocks - 0.5))
    axes.set_ylabel("block")
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_title(title, loc="left", fontsize=10, weight="bold")
    bar = figure.colorbar(image, ax=axes, pad=0.012, aspect=14)
    bar.outline.set_edgecolor(LINE)


def style_curves(axes, title):
    axes.set_title(title, loc="left", fontsize=10, weight="bold")
    axes.grid(True, color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.margins(x=0.015)


def draw(runs):
    """The figure of all runs."""
    stochastic = [run for run in runs if run.kept_fraction()[0]]
    has_drop_rate = any(run.series("stochastic_depth/drop_rate")[0] for run in runs)
    columns = legend_columns(runs)
    legend_height = 0.25 * (math.ceil(len(runs) / columns) + 1)
    heights = [CURVE_HEIGHT, CURVE_HEIGHT] + [HEAT_HEIGHT] * len(stochastic)
    height = legend_height + sum(heights)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, 1 - legend_height / height))
    draw_legends(figure, runs, columns)
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    loss = figure.add_subplot(grid[0, 0])
    accuracy = figure.add_subplot(grid[0, 1], sharex=loss)
    learning_rate = figure.add_subplot(grid[1, 0] if has_drop_rate else grid[1, :], sharex=loss)
    drop_rate = figure.add_subplot(grid[1, 1], sharex=loss) if has_drop_rate else None
    for i, (run, color) in enumerate(zip(runs, COLORS)):
        width = 1.6 + min(1.8, 6 / len(runs)) * (len(runs) - 1 - i)
        draw_training(loss, run, color, "loss")
        draw_training(accuracy, run, color, "accuracy", 100)
        draw_setting(learning_rate, run, color, width, "learning_rate")
        if drop_rate:
            draw_setting(drop_rate, run, color, width, "stochastic_depth/drop_rate")
    style_curves(loss, "Loss")
    style_curves(accuracy, "Top-1 accuracy (%)")
    accuracy.set_ylim(bottom=0)
    style_curves(learning_rate, "Learning rate")
    learning_rate.set_ylim(bottom=0)
    if drop_rate:
        style_curves(drop_rate, "Drop rate applied")
        drop_rate.set_ylim(bottom=0)

    heat_axes = []
    for row, run in enumerate(stochastic, 2):
        heat_axes.append(figure.add_subplot(grid[row, :], sharex=loss))
        title = "Kept share of the samples, by block" + (f": {run.label}" if len(runs) > 1 else "")
        draw_kept(figure, heat_axes[-1], run, title)

    epochs = {run.batches_per_epoch() for run in runs}
    known = epochs.pop() if len(epochs) == 1 else None
    label = f"batches ({known} an epoch)" if known else "batches"
    for axes in [learning_rate, drop_rate, *heat_axes[-1:]]:
        if axes:
            axes.set_xlabel(label)
    return figure


def legend_columns(runs):
    """How many names of runs fit side by side."""
    longest = max(len(run.label) for run in runs)
    return max(1, min(len(runs), int(WIDTH / (0.6 + 0.085 * longest))))


def draw_legends(figure, runs, columns):
    """Which colour is which run; below, what lines, bands and points stand for."""
    names = [Line2D([], [], color=color, linewidth=3, label=run.label) for run, color in zip(runs, COLORS)]
    kinds = [Line2D([], [], color=GREY, linewidth=1.4, label="training, mean of some batches"),
             Patch(facecolor=GREY, alpha=0.25, label="their least to largest")]
    if any(run.series("loss/eval", "evaluation")[0] for run in runs):
        kinds.append(Line2D([], [], color=GREY, linewidth=1.1, linestyle=(0, (4, 2)), marker="o", markersize=4.2,
                            markerfacecolor="white", label="evaluation"))
    below = 0.25 * math.ceil(len(runs) / columns) / figure.get_figheight()
    for handles, top, count in ((names, 1, columns), (kinds, 1 - below, len(kinds))):
        legend = figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, top), ncol=count,
                               frameon=False, borderpad=0.3, borderaxespad=0)
        legend.set_in_layout(False)


def labels_of(paths):
    """File names, or whole paths where names are the same."""
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="METRICS", help="JSON lines, one file a run")
    parser.add_argument("-o", "--output", type=Path, default=Path("curves.png"), metavar="PICTURE",
                        help="PNG or SVG, by the end of its name (curves.png)")
    arguments = parser.parse_args()
    if arguments.output.suffix not in (".png", ".svg"):
        parser.error(f"--output: got {arguments.output}, expected a name that ends with .png or .svg")
    if len(arguments.files) > len(COLORS):
        parser.error(f"got {len(arguments.files)} files, expected at most {len(COLORS)}")
    try:
        runs = [Run(path, label) for path, label in zip(arguments.files, labels_of(arguments.files))]
        with rc_context(STYLE):
            draw(runs).savefig(arguments.output, metadata={"Date": None} if arguments.output.suffix == ".svg" else None)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        sys.exit(f"plot_metrics: {error}")


if __name__ == "__main__":
    main()
