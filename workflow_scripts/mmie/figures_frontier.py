"""The frontier of every swept arm: how much is forgotten at which damage, dose by dose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmie import summary
from mmie.drawing import QUIET, SHADE, new
from mmie.labels import forget_name
from mmie.palette import ARMS

COLUMNS = 3
REACH = (0.7, 4.0)
"""Damage beyond is drawn at the edge as an arrow: one broken dose must not hide the others."""


def frontier(
    metrics: pd.DataFrame, tests: pd.DataFrame, sweeps: Mapping[str, Mapping[str, str]], data: Mapping[str, Any]
) -> Figure:
    """
    One panel per swept entry of config `arms`, its arms in the order of the sweep.

    Across: the largest perplexity ratio relative to its margin, over all languages that a gate tests and all seeds. Up:
    extraction, mean of scripts and seeds. Filled points are the frontier: no other dose forgets as much for less. Made
    for any ``sweeps`` (entry → arm → label), none included.
    """
    if not sweeps:
        figure, grid = new(1.2)
        grid[0][0].set_axis_off()
        grid[0][0].text(0.5, 0.5, "No arm of this experiment is swept.", ha="center", va="center")
        return figure
    lines = math.ceil(len(sweeps) / COLUMNS)
    figure, grid = new(3.4 * lines + 0.4, lines, min(COLUMNS, max(2, len(sweeps))), sharey=True)
    limits = [v for f, v in summary.thresholds(tests).items() if f in ("forget_native", "forget_roman")]
    for axes in grid.ravel()[len(sweeps) :]:
        axes.set_axis_off()
    for i, (axes, (entry, labels)) in enumerate(zip(grid.ravel(), sweeps.items(), strict=False)):
        found = points(metrics, tests, list(labels))
        at = found["damage"].clip(*REACH).to_numpy()
        colour = ARMS[i % len(ARMS)]
        axes.set_title(entry)
        if limits:
            axes.fill_between([REACH[0] / 2, 1], -0.1, min(limits), color=SHADE, linewidth=0)
        axes.axvline(1, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.plot(at, found["les"], color=colour, linewidth=0.8, alpha=0.5)
        axes.vlines(at, found["low"], found["high"], color=colour, linewidth=1.4)
        for x, row in zip(at, found.to_dict("records"), strict=True):
            marker = "o" if x == row["damage"] else ">" if x < row["damage"] else "<"
            face = colour if row["frontier"] else "white"
            axes.plot([x], [row["les"]], marker, color=colour, markerfacecolor=face, markersize=6.5, clip_on=False)
            axes.annotate(labels[row["arm"]], (x, row["les"]), (6, 5), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.set_xlim(min(0.8, at.min() / 1.1), max(1.5, at.max() * 1.25))
        ticks = [tick for tick in (0.7, 0.8, 1, 1.5, 2, 3, 4) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_ylim(-0.03, 1.03)
    grid[0][0].set_ylabel(f"Continuations still in {forget_name(data)}")
    figure.supxlabel(
        "Largest perplexity ratio, as a share of its margin (shaded: within all margins; filled: on the frontier)",
        fontsize=10,
    )
    return figure


def points(metrics: pd.DataFrame, tests: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    """Per arm, in this order: arm, les, low, high, damage, and whether it is on the frontier."""
    forgot = summary.lookup(summary.over_seeds(summary.extraction(metrics), ["arm"]), "arm")
    rows = []
    for arm in arms:
        _, ratio, margin = summary.worst_ratio(arm, tests)
        row = forgot[arm,]
        rows.append({"arm": arm, "les": row["value"], "low": row["low"], "high": row["high"], "damage": ratio / margin})
    found = pd.DataFrame(rows)
    les, damage = found["les"].to_numpy(), found["damage"].to_numpy()
    better = (les[None] <= les[:, None]) & (damage[None] <= damage[:, None])
    better &= (les[None] < les[:, None]) | (damage[None] < damage[:, None])
    return found.assign(frontier=~np.asarray(better).any(axis=1))
