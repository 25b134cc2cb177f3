"""The six figures of an experiment, each from tidy tables alone. Make and save them inside ``drawing.style()``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullFormatter

from mmie import summary
from mmie.drawing import INK, QUIET, SHADE, arm_rows, new, whisker
from mmie.labels import families, family_name, forget_name, language_name, sentence
from mmie.palette import arm_colours, arm_markers, language_colours

Data = Mapping[str, Any]
COLUMNS = 4
REACH = (0.5, 4.0)
"""Perplexity ratios outside are drawn at the edge, with their value: one broken arm must not hide the others."""


def tradeoff(metrics: pd.DataFrame, tests: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """What was forgotten against what it cost, in the retained language and the worst neighbour; one point an arm."""
    forgot = summary.over_seeds(summary.extraction(metrics), ["arm"])
    shown = summary.lookup(forgot, "arm")
    ratios = summary.over_seeds(summary.perplexity_ratios(metrics, tests, data), ["arm", "language"])
    neighbours = ratios[ratios["language"].isin(data["neighbours"])]
    worst = neighbours.sort_values("value").groupby("arm").tail(1)
    names = ", ".join(map(language_name, data["neighbours"]))
    panels = [
        (ratios[ratios["language"] == data["retain"]], language_name(data["retain"])),
        (worst, f"Worst of {names}"),
    ]
    limit = [v for f, v in summary.thresholds(tests).items() if f in ("forget_native", "forget_roman")]
    figure, grid = new(4.6, 1, 2, sharey=True)
    for axes, (points, name) in zip(grid[0], panels, strict=True):
        costs = summary.lookup(points, "arm")
        reach = _reach(points)
        if limit and points["margin"].notna().any():
            axes.fill_between([0.1, points["margin"].max()], 0, min(limit), color=SHADE, linewidth=0)
            axes.annotate("within both margins", (reach[0], min(limit) - 0.02), fontsize=8.5, color=QUIET, va="top")
        axes.axvline(1, color="#BBBBBB", linewidth=0.8)
        for arm in arms:
            if (arm,) in shown:
                x = costs.get((arm,), {"value": 1.0, "low": np.nan, "high": np.nan})
                _point(axes, arm, arms, x, shown[arm,], reach)
        _log_axis(axes, reach)
        axes.set_xlabel(f"{name}: perplexity relative to base")
        axes.set_ylim(-0.03, 1.03)
    grid[0][0].set_ylabel(f"Continuations still in {forget_name(data)}\n(mean of its scripts)")
    _arm_legend(figure, [arm for arm in arms if (arm,) in shown], arms)
    return figure


def les(metrics: pd.DataFrame, tests: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """Share of continuations in the forgotten language per prompt family and arm, with Wilson intervals."""
    table = summary.over_seeds(summary.rates(metrics), ["arm", "family"])
    rows = summary.lookup(table, "family", "arm")
    limits, colours, markers = summary.thresholds(tests), arm_colours(arms), arm_markers(arms)
    shown = [family for family in families(data) if family in set(table["family"])]
    figure, panels = _panels(len(shown), len(arms))
    for i, (axes, family) in enumerate(zip(panels, shown, strict=True)):
        axes.set_title(sentence(family_name(family, data)))
        forgotten = family in ("forget_native", "forget_roman", "mixed")
        most = float(table.loc[table["family"] == family, "high"].max())
        top = 1.0 if forgotten else min(1.0, max(0.2, math.ceil(10 * most) / 10))
        if family in limits:
            axes.axvspan(limits[family], top, color=SHADE, linewidth=0)
            axes.axvline(limits[family], color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        for arm, y in arm_rows(axes, arms, labels=i % COLUMNS == 0).items():
            if row := rows.get((family, arm)):
                whisker(axes, y, row["value"], row["low"], row["high"], colours[arm], markers[arm], (0, 1))
        axes.set_xlim(-0.02 * top, 1.02 * top)
        axes.set_xticks([0, top / 2, top], ["0", f"{top / 2:g}", f"{top:g}"])
    figure.supxlabel(
        f"Share of continuations in {forget_name(data)} (dashed: the gate's margin; shaded: fails; the axes differ)",
        fontsize=10,
    )
    return figure


def perplexity(metrics: pd.DataFrame, tests: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """Perplexity relative to base per language and arm: what must stay first, what should rise last."""
    table = summary.over_seeds(summary.perplexity_ratios(metrics, tests, data), ["arm", "language"])
    edited, colours, markers = [arm for arm in arms if arm != "base"], arm_colours(arms), arm_markers(arms)
    kept = [data["retain"], *data["neighbours"], *data["unseen"]]
    forgotten = [code for code in (data["forget"]["native"], data["forget"].get("roman"), data.get("mixed")) if code]
    shown = [code for code in [*kept, *forgotten] if code in set(table["language"])]
    narrow = _reach(table[table["language"].isin(kept)])
    top = max(10.0, float(table["high"].fillna(table["value"]).max()))
    rows = summary.lookup(table, "language", "arm")
    figure, panels = _panels(len(shown), len(edited))
    for i, (axes, code) in enumerate(zip(panels, shown, strict=True)):
        reach = narrow if code in kept else (0.5, top * 1.3)
        role = " (never trained on)" if code in data["unseen"] else "" if code in kept else " (forget)"
        axes.set_title(sentence(language_name(code)) + role)
        limit = float(table.loc[table["language"] == code, "margin"].max())
        if not math.isnan(limit):
            axes.axvspan(limit, reach[1], color=SHADE, linewidth=0)
            axes.axvline(limit, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.axvline(1, color="#BBBBBB", linewidth=0.8)
        for arm, y in arm_rows(axes, edited, labels=i % COLUMNS == 0).items():
            if row := rows.get((code, arm)):
                whisker(axes, y, row["value"], row["low"], row["high"], colours[arm], markers[arm], reach)
        _log_axis(axes, reach)
    figure.supxlabel(
        "Perplexity relative to base (dashed: the gate's margin; shaded: fails; arrows: beyond the axis)", fontsize=10
    )
    return figure


def layers(ranking: pd.DataFrame, count: int, data: Data) -> Figure:
    """Scores and stability of every candidate layer; the ``count`` chosen ones are filled."""
    rows, forget = ranking.sort_values("layer"), forget_name(data)
    panels = [
        ("probe_gap", f"Probe: {forget} told apart\nbetter than neighbours", "AUC difference"),
        ("cka_gap", f"CKA: English nearer to\nneighbours than to {forget}", "CKA difference"),
        ("procrustes_gap", f"Procrustes: English further\nfrom {forget} than neighbours", "Distance difference"),
        ("stability", "Stability: chosen in this\nshare of resamples", "Share of resamples"),
    ]
    figure, grid = new(3.1, 1, len(panels))
    names = [str(layer) for layer in rows["layer"]]
    for axes, (column, title, unit) in zip(grid[0], panels, strict=True):
        axes.set_title(title.replace("English", language_name(data["retain"])))
        x = np.arange(len(rows))
        axes.vlines(x, 0, rows[column], color="#B9CDE0", linewidth=3)
        axes.axhline(0, color="#9A9A9A", linewidth=0.8)
        for i, (value, rank) in enumerate(zip(rows[column], rows["rank"], strict=True)):
            filled = rank <= count
            face = "#0072B2" if filled else "white"
            axes.plot([i], [value], "o", markersize=8, color="#0072B2", markerfacecolor=face, zorder=3, clip_on=False)
        axes.set_xticks(x, names)
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylabel(unit)
        axes.set_xlabel("Decoder layer")
    grid[0][-1].set_ylim(0, 1.02)
    return figure


def training(history: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """Loss per optimizer step and arm, forget and retain part; seeds as thin lines of the same colour."""
    history = history[history["variant"] == "plain"]
    shown, colours = [arm for arm in arms if (history["arm"] == arm).sum() > 1], arm_colours(arms)
    if not shown:
        figure, grid = new(1.2)
        grid[0][0].set_axis_off()
        grid[0][0].text(0.5, 0.5, "No arm of this experiment is trained step by step.", ha="center", va="center")
        return figure
    figure, panels = _panels(len(shown), 6, columns=min(COLUMNS, max(2, len(shown))))
    parts: list[tuple[str, Any, str]] = [
        ("forget_loss", "-", "forget part"),
        ("retain_loss", (0, (3, 1.5)), "retain part"),
        ("gate_loss", (0, (1, 1.2)), "gate"),
    ]
    for axes, arm in zip(panels, shown, strict=True):
        axes.set_title(arm)
        for _, run in history[history["arm"] == arm].groupby("seed"):
            for column, dashes, _ in parts:
                if run[column].notna().any():
                    axes.plot(
                        run["step"],
                        run[column],
                        linestyle=dashes,
                        color=colours[arm] if column == "forget_loss" else INK,
                        linewidth=1.4,
                    )
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_xlabel("Optimizer step")
    panels[0].set_ylabel("Loss")
    gated = history.loc[history["arm"].isin(shown), "gate_loss"].notna().any()
    handles = [
        Line2D([], [], color=INK, linestyle=dashes, label=name)
        for c, dashes, name in parts
        if c != "gate_loss" or gated
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=3)
    return figure


def languages(lid: pd.DataFrame, prompts: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """Which languages an arm's continuations are in, per prompt family, as stacked bars."""
    mix = summary.language_mix(lid, prompts)
    forget = [code for code in (data["forget"]["native"], data["forget"].get("roman")) if code]
    order = [*forget, data["retain"], *data["neighbours"], *data["unseen"]]
    order += [*sorted(set(mix["language"]) - {*order, "other", "und"}), "other", "und"]
    order = [code for code in order if code in set(mix["language"])]
    colours = language_colours(order, forget)
    shares = {key: row["share"] for key, row in summary.lookup(mix, "family", "arm", "language").items()}
    shown = [family for family in families(data) if family in set(mix["family"])]
    figure, panels = _panels(len(shown), len(arms))
    for i, (axes, family) in enumerate(zip(panels, shown, strict=True)):
        axes.set_title(sentence(family_name(family, data)))
        for arm, y in arm_rows(axes, arms, labels=i % COLUMNS == 0).items():
            left = 0.0
            for code in order:
                share = shares.get((family, arm, code), 0.0)
                axes.barh(
                    y,
                    share,
                    left=left,
                    color=colours[code],
                    height=0.74,
                    edgecolor="white",
                    linewidth=0.5 if share else 0,
                )
                left += share
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("Share of continuations; one panel for each language of the prompts", fontsize=10)
    handles = [Patch(color=colours[code], label=language_name(code)) for code in order]
    figure.legend(
        handles=handles, loc="outside upper center", ncols=min(len(handles), 9), handlelength=1, columnspacing=1.4
    )
    return figure


def _panels(count: int, rows: int, columns: int = COLUMNS) -> tuple[Figure, list[Axes]]:
    """``count`` panels of ``rows`` rows each, side by side and below each other."""
    lines = max(1, math.ceil(count / columns))
    figure, grid = new(lines * (0.75 + 0.24 * rows) + 0.5, lines, columns)
    flat = list(grid.ravel())
    for axes in flat[count:]:
        axes.set_axis_off()
    return figure, flat[:count]


def _point(
    axes: Axes,
    arm: str,
    arms: Sequence[str],
    x: Mapping[str, float],
    y: Mapping[str, float],
    reach: tuple[float, float],
) -> None:
    """One arm of the trade-off, with its interval in both directions."""
    colour, marker = arm_colours(arms)[arm], arm_markers(arms)[arm]
    at = float(np.clip(x["value"], *reach))
    axes.plot([at, at], [y["low"], y["high"]], color=colour, linewidth=1.6)
    whisker(axes, y["value"], x["value"], x["low"], x["high"], colour, marker, reach)


def _reach(ratios: pd.DataFrame) -> tuple[float, float]:
    """Ends of an axis of perplexity ratios: as far as the points need, and never beyond REACH."""
    far, near = ratios["high"].fillna(ratios["value"]).max(), ratios["low"].fillna(ratios["value"]).min()
    right = float(np.clip(np.nan_to_num(far, nan=1.5) * 1.1, 1.5, REACH[1]))
    return float(np.clip(np.nan_to_num(near, nan=0.8) / 1.1, REACH[0], 0.8)), right


def _log_axis(axes: Axes, reach: tuple[float, float]) -> None:
    """A logarithmic axis with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(reach[0] / 1.02, reach[1] * 1.02)
    if reach[1] > 10:
        ticks = [10.0**k for k in range(0, math.ceil(math.log10(reach[1])), math.ceil(math.log10(reach[1]) / 4))]
    else:
        ticks = [0.8, 1, 1.2, 1.5] if reach[1] < 2 else [0.5, 1, 1.5, 2, 3] if reach[1] < 3.5 else [0.5, 1, 2, 4]
    ticks = [tick for tick in ticks if reach[0] <= tick <= reach[1]]
    axes.set_xticks(ticks, [f"{tick:g}" if tick < 1e4 else f"1e{math.log10(tick):.0f}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", bottom=False)


def _arm_legend(figure: Figure, shown: Sequence[str], arms: Sequence[str]) -> None:
    colours, markers = arm_colours(arms), arm_markers(arms)
    handles = [
        Line2D([], [], color=colours[a], marker=markers[a], linewidth=1.6, markersize=6.5, label=a) for a in shown
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 8))
