"""Figures of the audit: comprehension against production, layers against arms, and what is said instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from mmie import audit, summary
from mmie.drawing import INK, QUIET, SHADE, new
from mmie.labels import forget_name, language_name, sentence
from mmie.palette import arm_colours, arm_markers, language_colours

Data = Mapping[str, Any]
COLUMNS = 4
OWN = ("hi", "hi_latn", "en")


def comprehension(scores: pd.DataFrame, metrics: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """
    What each arm understands (meanings matched) against what it still writes, one panel per script.

    An arm at the top left no longer writes the language and understands it still.
    """
    scripts = {script: code for script, code in data["forget"].items() if code}
    understood = summary.lookup(audit.comprehension(scores), "arm", "task", "language")
    written = summary.lookup(summary.over_seeds(summary.rates(metrics), ["arm", "family"]), "arm", "family")
    colours, markers = arm_colours(arms), arm_markers(arms)
    figure, grid = new(4.4, 1, max(len(scripts), 2), sharey=True)
    for axes in grid[0][len(scripts) :]:
        axes.set_axis_off()
    for axes, (script, code) in zip(grid[0], scripts.items(), strict=False):
        rows = {arm: understood.get((arm, "meaning", code)) for arm in arms}
        base = rows.get("base")
        name = sentence(language_name(code))
        axes.set_title(name if base is None or not base["weak"] else f"{name}: base itself is too weak to tell")
        if base is not None and base["weak"]:
            axes.set_facecolor(SHADE)
        for arm, row in rows.items():
            at = written.get((arm, f"forget_{script}"))
            if row is not None and at is not None:
                _cross(axes, at, row, colours[arm], markers[arm], arm)
        if base is not None:
            axes.axhline(base["chance"], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.annotate("guessing", (1.0, base["chance"]), (0, 2), textcoords="offset points", ha="right",
                          fontsize=8.5, color=QUIET)  # fmt: skip
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel(f"Continuations still in {forget_name(data)}")
    grid[0][0].set_ylabel("Meanings matched (one of four)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), 8))
    else:
        figure.supxlabel("Comprehension was not measured", fontsize=10)
    return figure


def inside(found: pd.DataFrame, probes: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """
    Layer by arm: what the probes know beyond base, logit-lens mass of the native script, and what base makes of it all.

    A line marks the layer from which on base, given the arm's states, no longer finds the language.
    """
    script = sentence(language_name(data["forget"]["native"]))
    changes = audit.probe_changes(probes).pivot(index="arm", columns="layer", values="change")
    edited = [arm for arm in arms if arm != "base"]
    figure, grid = new(1.5 + 0.3 * len(arms), 1, 3, width_ratios=[0.7, 1, 1])
    reach = max(0.1, float(np.nanmax(np.abs(changes.to_numpy()))) if changes.size else 0.1)
    _heat(figure, grid[0][0], changes.reindex(edited), "Probes: nats − base's", "RdBu_r", (-reach, reach))
    masses, depth = audit.masses(found), audit.depths(found) if len(found) else {}
    for axes, measure, title in (
        (grid[0][1], "lens", f"Logit lens: script of {script}"),
        (grid[0][2], "patched", "The same, base going on from it"),
    ):
        wide = masses[masses["measure"] == measure].pivot(index="arm", columns="layer", values="mass")
        _heat(figure, axes, wide.reindex([arm for arm in arms if arm in wide.index]), title, "viridis", (0, 1))
        if measure == "patched":
            for y, arm in enumerate(arm for arm in arms if arm in wide.index):
                if depth[arm] is not None:
                    x = list(wide.columns).index(depth[arm]) - 0.5
                    axes.plot([x, x], [y - 0.5, y + 0.5], color="#D55E00", linewidth=2.5)
    return figure


def flow(lid: pd.DataFrame, prompts: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """What an arm says where base speaks the forgotten language: base's languages left, the arm's right."""
    families = [f"forget_{script}" for script, code in data["forget"].items() if code]
    shares = audit.flows(lid, prompts, families)
    edited = [arm for arm in arms if arm != "base" and arm in set(shares["arm"])]
    codes = sorted(set(shares["before"]) | set(shares["after"]), key=lambda code: (code not in OWN, code))
    colours = language_colours(codes, [code for code in data["forget"].values() if code])
    columns = min(COLUMNS, max(len(edited), 1))
    lines = max(1, -(-len(edited) // columns))
    figure, grid = new(0.8 + 2.3 * lines, lines, columns)
    for axes in grid.ravel():
        axes.set_axis_off()
    for axes, arm in zip(grid.ravel(), edited, strict=False):
        axes.set_title(arm)
        _ribbons(axes, shares[shares["arm"] == arm], codes, colours)
    handles = [Patch(color=colours[code], label=sentence(language_name(code))) for code in codes]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 9), handlelength=1)
    figure.supxlabel(
        f"Continuations of {forget_name(data)} prompts: base on the left, the arm on the right", fontsize=10
    )
    return figure


def _cross(axes: Axes, x: Mapping[str, float], y: Mapping[str, float], colour: str, marker: str, label: str) -> None:
    axes.plot([x["low"], x["high"]], [y["value"]] * 2, color=colour, linewidth=1.6)
    axes.plot([x["value"]] * 2, [y["low"], y["high"]], color=colour, linewidth=1.6)
    axes.plot([x["value"]], [y["value"]], marker, color=colour, markersize=7.5, markeredgecolor="white", label=label)


def _heat(
    figure: Figure, axes: Axes, table: pd.DataFrame, title: str, colours: str, reach: tuple[float, float]
) -> None:
    axes.set_title(title)
    if table.empty or not len(table.columns):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "not measured", ha="center", va="center", transform=axes.transAxes)
        return
    image = axes.imshow(table.to_numpy(float), cmap=colours, vmin=reach[0], vmax=reach[1], aspect="auto")
    axes.set_yticks(range(len(table)), list(table.index))
    step = max(1, len(table.columns) // 9)
    axes.set_xticks(range(0, len(table.columns), step), [str(layer) for layer in table.columns[::step]])
    axes.set_xlabel("Decoder layer")
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)


def _ribbons(axes: Axes, rows: pd.DataFrame, codes: Sequence[str], colours: Mapping[str, str]) -> None:
    """One band per pair of languages, as thick as its share; both sides stacked in the order of ``codes``."""
    order = {code: i for i, code in enumerate(codes)}
    left, right = 0.0, {}
    total = rows.groupby("after")["share"].sum()
    height = 0.0
    for code in codes:
        right[code] = height
        height += float(total.get(code, 0.0))
    rows = rows.sort_values(["before", "after"], key=lambda column: column.map(order))
    for row in rows.to_dict("records"):
        a, b, share = left, right[row["after"]], row["share"]
        corners = [
            (0, a),
            (0.5, a),
            (0.5, b),
            (1, b),
            (1, b + share),
            (0.5, b + share),
            (0.5, a + share),
            (0, a + share),
        ]
        moves = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3]
        axes.add_patch(PathPatch(Path(corners, moves), facecolor=colours[row["after"]], alpha=0.75, linewidth=0))
        axes.add_patch(PathPatch(Path([(-0.06, a), (0, a), (0, a + share), (-0.06, a + share)]),
                                 facecolor=colours[row["before"]], linewidth=0))  # fmt: skip
        left, right[row["after"]] = left + share, b + share
        if share >= 0.08:
            axes.annotate(f"{share:.0%}", (1.02, b + share / 2), va="center", fontsize=8.5, color=INK)
    axes.set_xlim(-0.08, 1.2)
    axes.set_ylim(1.02, -0.02)
