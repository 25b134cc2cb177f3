"""The power of every gate against the size of an experiment. Make and save it inside ``drawing.style()``."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmie.assumptions import TARGET
from mmie.drawing import QUIET, SHADE, new
from mmie.labels import GATES
from mmie.palette import ARMS, MARKERS
from mmie.power_table import WHOLE

COLUMNS = 5


def power_curves(rows: pd.DataFrame) -> Figure:
    """One panel per gate and one for PROCEED, from rows of ``tables.POWER``; a dotted line marks the config's size."""
    whole = rows[rows["part"] == WHOLE]
    gates, seeds = list(dict.fromkeys(whole["gate"])), sorted(set(whole["seeds"]))
    lines = math.ceil(len(gates) / COLUMNS)
    figure, grid = new(2.1 * lines + 0.5, lines, COLUMNS, sharey=True)
    styles = {count: (ARMS[i % len(ARMS)], MARKERS[i % len(MARKERS)]) for i, count in enumerate(seeds)}
    for axes in grid.ravel()[len(gates) :]:
        axes.set_axis_off()
    for axes, gate in zip(grid.ravel(), gates, strict=False):
        points = whole[whole["gate"] == gate]
        axes.axhspan(0, TARGET, color=SHADE, linewidth=0)
        axes.axvline(int(points.loc[points["configured"], "n"].iloc[0]), color=QUIET, linewidth=0.9, linestyle=":")
        for count, (colour, marker) in styles.items():
            of_seeds = points[points["seeds"] == count].sort_values("n")
            axes.plot(of_seeds["n"], of_seeds["power"], color=colour, marker=marker, markersize=3.5, linewidth=1.4)
        axes.set_title(f"{gate}: {GATES[gate].lower()}" if gate in GATES else f"{gate} (all of G1–G6)", fontsize=9)
        axes.set_xscale("log")
        axes.set_xticks([50, 100, 200, 400], ["50", "100", "200", "400"])
        axes.minorticks_off()
        axes.set_xlabel("Members" if gate == "G6" else "Held-out groups", fontsize=9)
        axes.set_ylim(0, 1.03)
    for row in grid:
        row[0].set_ylabel("Power")
    handles = [
        Line2D([], [], color=c, marker=m, markersize=5, label="one seed" if count == 1 else f"all of {count} seeds")
        for count, (c, m) in styles.items()
    ]
    handles.append(Line2D([], [], color=QUIET, linestyle=":", label="the config's size"))
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return figure
