"""The figure of what attacks bring back: recovery per attack and arm, and what the attack left of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mmie.drawing import QUIET, SHADE, arm_rows, new, whisker
from mmie.labels import forget_name, language_name
from mmie.palette import arm_colours, arm_markers
from mmie.summary import over_seeds, wilson

Data = Mapping[str, Any]
KEYS = ["arm", "seed", "variant"]
REACH = (0.5, 4.0)
"""Perplexity ratios that the axis shows; what lies beyond is an arrow with its value."""


def recovery(metrics: pd.DataFrame, arms: Sequence[str], data: Data, margin: float) -> Figure:
    """
    One line of panels per attack: recovery in each script, and perplexity in the retain language, against base.

    The latter says what recovery means: an attack that destroys the model brings nothing back either. So does base, the
    last row where it was attacked. ``margin`` is the gate's, the recovery from which an arm fails.
    """
    shares, ratios = recoveries(metrics, data), damage(metrics, data)
    attacks = sorted(set(shares["variant"]))
    edited = [arm for arm in arms if arm != "base"] + ["base"] * bool((shares["arm"] == "base").any())
    scripts = [script for script, language in data["forget"].items() if language]
    colours, markers = arm_colours(arms), arm_markers(arms)
    lines = max(len(attacks), 1)
    figure, grid = new(lines * (0.55 + 0.24 * max(len(edited), 1)) + 0.9, lines, len(scripts) + 1, sharex="col")
    for i, row in enumerate(grid):
        for axes in row:
            arm_rows(axes, edited, labels=axes is row[0])
        if attacks:
            row[0].set_title(attacks[i])
        for axes in row[:-1]:
            axes.axvspan(0, margin, color=SHADE, linewidth=0)
            axes.set_xlim(-0.02, 1.02)
            axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        row[-1].set_xscale("log")
        row[-1].set_xlim(*REACH)
        row[-1].set_xticks([0.5, 1, 2, 4], ["0.5", "1", "2", "4"], minor=False)
        row[-1].minorticks_off()
        row[-1].axvline(1, color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        for y, arm in enumerate(edited):
            of_arm = {"arm": arm, "variant": attacks[i]} if attacks else {"arm": arm, "variant": ""}
            for axes, script in zip(row, scripts, strict=False):
                for found in _rows(shares, {**of_arm, "script": script}):
                    whisker(axes, y, found["value"], found["low"], found["high"], colours[arm], markers[arm], (0, 1))
            for found in _rows(ratios, of_arm):
                whisker(row[-1], y, found["value"], found["value"], found["value"], colours[arm], markers[arm], REACH)
    for axes, script in zip(grid[-1], scripts, strict=False):
        axes.set_xlabel(f"Recovery, {language_name(data['forget'][script])}")
    grid[-1][-1].set_xlabel(f"{language_name(data['retain'])} perplexity ÷ base")
    what = (
        f"How much {forget_name(data)} each attack brings back (shaded: passes)" if attacks else "No arm was attacked"
    )
    figure.supxlabel(what, fontsize=10)
    return figure


def recoveries(metrics: pd.DataFrame, data: Data) -> pd.DataFrame:
    """
    Recovery (m_attacked − m_u) / (m_b − m_u) of the extraction rate, clipped to [0, 1], per arm, attack and script.

    The interval is that of the attacked rate (Wilson), carried over; the other two rates are taken as they are. There
    is no row where base answers no more than the arm: nothing was forgotten that could come back. Of base itself, the
    attacked rate as a share of its own: what the attack leaves to a model that has forgotten nothing. Over seeds the
    mean, and the widest reach. Columns: arm, variant, script, value, low, high.
    """
    families = {f"forget_{script}": script for script, language in data["forget"].items() if language}
    rows = metrics[(metrics["metric"] == "les") & metrics["family"].isin(families)]
    table = rows.groupby([*KEYS, "family"], sort=False)["value"].agg(["size", "sum"]).reset_index()
    table["rate"] = table["sum"] / table["size"]
    plain = table[table["variant"] == "plain"]
    base = plain[plain["arm"] == "base"].set_index("family")["rate"]
    attacked = table[table["variant"] != "plain"]
    found = attacked.merge(
        plain[["arm", "seed", "family", "rate"]], on=["arm", "seed", "family"], suffixes=("", "_arm")
    )
    found.loc[found["arm"] == "base", "rate_arm"] = 0.0
    found["gap"] = found["family"].map(base) - found["rate_arm"]
    found = found[found["gap"] > 0]
    low, high = wilson(found["sum"], found["size"])
    for name, rate in (("value", found["rate"]), ("low", low), ("high", high)):
        found = found.assign(**{name: np.clip((rate - found["rate_arm"]) / found["gap"], 0, 1)})
    found["script"] = found["family"].map(families)
    return over_seeds(found, ["arm", "variant", "script"])[["arm", "variant", "script", "value", "low", "high"]]


def damage(metrics: pd.DataFrame, data: Data) -> pd.DataFrame:
    """Perplexity in the retain language against base, per arm and attack, mean over seeds: arm, variant, value."""
    rows = metrics[(metrics["family"] == "texts") & (metrics["language"] == data["retain"])]
    sums = rows.groupby([*KEYS, "metric"], sort=False)["value"].sum().unstack()
    if not {"nll", "n_tokens"} <= set(sums.columns):
        return pd.DataFrame({"arm": [], "variant": [], "value": []})
    perplexity = np.exp(sums["nll"] / sums["n_tokens"]).rename("value").reset_index()
    plain = perplexity["variant"] == "plain"
    base = float(perplexity.loc[plain & (perplexity["arm"] == "base"), "value"].iloc[0])
    found = perplexity[~plain]
    found = found.assign(value=found["value"] / base)
    return found.groupby(["arm", "variant"], sort=False)["value"].mean().reset_index()


def _rows(table: pd.DataFrame, keys: Mapping[str, str]) -> list[dict[str, Any]]:
    for key, value in keys.items():
        table = table[table[key] == value]
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]
