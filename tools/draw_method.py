#!/usr/bin/env python3
"""Draws what stochastic depth does, the picture of the README.

    tools/draw_method.py docs/stochastic_depth.svg

Needs matplotlib (Debian: python3-matplotlib).
"""
import argparse
import random

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

BLOCKS, SAMPLES, LAST_DROP_RATE = 8, 6, 0.5
DROP_RATES = [LAST_DROP_RATE * i / (BLOCKS - 1) for i in range(BLOCKS)]  # linear
BLUE, INK, GREY, LINE = "#2464a4", "#1c2733", "#67727e", "#c4ccd4"
DROPPED = (2, 4, 6)  # in the picture of the network


def blend(share):
    """The colour of a branch that counts for `share`: white for 0."""
    strong = matplotlib.colors.to_rgb(BLUE)
    return tuple(1 - share * (1 - c) for c in strong)


def draw_network(axes):
    """Blocks in depth, each with its shortcut; dropped branches are empty."""
    axes.set_xlim(-1.05, BLOCKS + 0.15)
    axes.set_ylim(-0.45, 0.72)
    axes.axis("off")

    def arrow(start, end, head=True, color=INK):
        axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>" if head else "-", mutation_scale=9, shrinkA=0,
                                       shrinkB=0, linewidth=1.3, color=color))

    for i in range(BLOCKS):
        dropped = i in DROPPED
        color = LINE if dropped else INK
        fork, join = i - 0.40, i + 0.42
        arrow((i - 0.47 if i else -0.85, 0), (fork, 0), head=False)
        axes.plot([fork, fork, join, join], [0, 0.5, 0.5, 0.2], color=INK, linewidth=1.3, solid_joinstyle="round")
        arrow((join, 0.3), (join, 0.13))
        arrow((fork, 0), (i - 0.27, 0), head=False, color=color)
        arrow((i + 0.27, 0), (join, 0), head=False, color=color)
        axes.add_patch(FancyBboxPatch((i - 0.23, -0.28), 0.46, 0.56, boxstyle="round,pad=0.02,rounding_size=0.07",
                                      facecolor="white" if dropped else BLUE, edgecolor=color, linewidth=1.2,
                                      linestyle=(0, (3, 2)) if dropped else "-"))
        axes.text(i, -0.02, "F", ha="center", va="center", color=GREY if dropped else "white", style="italic",
                  fontsize=13)
        axes.text(join, 0, "+", ha="center", va="center", color=INK, fontsize=10,
                  bbox=dict(boxstyle="circle,pad=0.06", facecolor="white", edgecolor=INK, linewidth=1.0))
    arrow((BLOCKS - 0.48, 0), (BLOCKS - 0.08, 0))
    axes.text(-0.92, 0, "x", ha="right", va="center", style="italic", fontsize=13, color=INK)
    axes.text(BLOCKS - 0.02, 0, "y", ha="left", va="center", style="italic", fontsize=13, color=INK)
    axes.text(0, 0.56, "shortcut S", ha="center", va="bottom", fontsize=9.5, color=GREY)
    axes.text(DROPPED[0], -0.34, "not computed", ha="center", va="top", fontsize=9.5, color=GREY)
    axes.set_title("A step of training: some branches F are left out, the shortcuts stay", loc="left", fontsize=11.5,
                   color=INK, weight="bold", pad=4)


def draw_survival(axes):
    survival = [1 - p for p in DROP_RATES]
    axes.set_xlim(-1.05, BLOCKS + 0.15)
    axes.set_ylim(0, 1.12)
    axes.bar(range(BLOCKS), survival, width=0.52, color=[blend(s) for s in survival], zorder=1)
    axes.plot(range(BLOCKS), survival, color=INK, linewidth=1.5, marker="o", markersize=4.5, zorder=2)
    axes.text(BLOCKS - 0.62, survival[-1], "1 − r", ha="left", va="center", fontsize=10, color=INK)
    axes.set_yticks([0, 0.5, 1])
    axes.set_xticks(range(BLOCKS), [f"{i}" for i in range(BLOCKS)])
    axes.tick_params(length=0, labelsize=9, colors=GREY)
    axes.set_xlabel("block i, in depth", fontsize=9.5, color=GREY, labelpad=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.set_title("The probability to be kept, $\\mathbf{1-p_i}$, falls linearly with depth to $\\mathbf{1-r}$, "
                   "r the drop rate", loc="left", fontsize=11.5, color=INK, weight="bold", pad=4)


def draw_grid(axes, title, subtitle, share, label):
    """share(sample, block): what a branch counts for in that sample."""
    axes.set_xlim(-0.05, BLOCKS + 0.05)
    axes.set_ylim(SAMPLES + 0.05, -0.05)
    axes.set_aspect("equal")
    for n in range(SAMPLES):
        for i in range(BLOCKS):
            value = share(n, i)
            axes.add_patch(Rectangle((i + 0.04, n + 0.04), 0.92, 0.92, facecolor=blend(value) if value else "white",
                                     edgecolor=LINE, linewidth=0.8))
    axes.set_xticks([0.5, BLOCKS - 0.5], ["0", f"{BLOCKS - 1}"])
    axes.set_yticks([])
    axes.set_ylabel("samples of the batch", fontsize=9.5, color=GREY, labelpad=3)
    axes.set_xlabel("block", fontsize=9.5, color=GREY, labelpad=-8)
    axes.tick_params(length=0, labelsize=9, colors=GREY)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0, -1.02, title, fontsize=11.5, color=INK, weight="bold")
    axes.text(0, -0.36, subtitle, fontsize=9.2, color=GREY)
    axes.text(BLOCKS / 2, SAMPLES + 1.42, label, fontsize=11, color=INK, ha="center")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help=".svg, or any other format of matplotlib's")
    arguments = parser.parse_args()
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans", "svg.hashsalt": "sd",
                                "svg.fonttype": "path"})
    figure = Figure(figsize=(10, 7.2), facecolor="white")
    draw_network(figure.add_axes((0.04, 0.775, 0.93, 0.18)))
    draw_survival(figure.add_axes((0.04, 0.52, 0.93, 0.185)))

    coins = random.Random(5)
    whole = [float(i not in DROPPED) for i in range(BLOCKS)]
    single = [[float(coins.random() >= DROP_RATES[i]) for i in range(BLOCKS)] for _ in range(SAMPLES)]
    grids = [("Training, block-wise", "one coin a block: kept or dropped for all", lambda n, i: whole[i], "$m_i$"),
             ("Training, sample-wise", "one coin for each sample and block", lambda n, i: single[n][i], "$m_{n,i}$"),
             ("Evaluation", "every branch, times its chance to be kept", lambda n, i: 1 - DROP_RATES[i], "$(1-p_i)$")]
    for place, (title, subtitle, share, factor) in enumerate(grids):
        draw_grid(figure.add_axes((0.045 + place * 0.325, 0.075, 0.285, 0.29)), title, subtitle, share,
                  "relu$\\,(\\,S(x)+{}$" + factor + "$\\,F(x)\\,)$")
    figure.savefig(arguments.output, metadata={"Date": None} if arguments.output.endswith(".svg") else None)


if __name__ == "__main__":
    main()
