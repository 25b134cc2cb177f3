"""Figures of what the verdict stands on: the make-up of the corpus, attack by attack, and membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmie import summary
from mmie.drawing import QUIET, SHADE, arm_rows, new, whisker
from mmie.gate.membership import ATTACKS
from mmie.labels import attack_name, forget_name, language_name, sentence
from mmie.palette import arm_colours, arm_markers

Data = Mapping[str, Any]
SPLITS = {"train": "#3B6EA8", "tune": "#C9A227", "test": "#B5482F"}
COLUMNS = 5


def corpus(texts: pd.DataFrame, checks: pd.DataFrame, data: Data) -> Figure:
    """The corpus: groups per topic and split; words per text, and agreement of the detector, per language."""
    parallel = texts[texts["language"] == data["retain"]]
    parallel = parallel[parallel["group_id"].isin(checks["group_id"])]
    counts = parallel.groupby(["topic", "split"]).size().unstack(fill_value=0)
    figure, grid = new(0.9 + 0.23 * max(len(counts), 8), 1, 3, width_ratios=[1.2, 1, 0.7])
    topics, words, agreement = grid[0]
    left = np.zeros(len(counts))
    for split, colour in SPLITS.items():
        if split in counts:
            topics.barh(counts.index, counts[split], left=left, color=colour, height=0.74)
            left += counts[split].to_numpy()
    topics.invert_yaxis()
    topics.set_xlabel("Groups (one meaning in every language)")
    topics.legend(
        handles=[Patch(color=colour, label=split) for split, colour in SPLITS.items()],
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, handlelength=1,
    )  # fmt: skip
    languages = list(dict.fromkeys(checks["language"]))
    for axes in (words, agreement):
        axes.set_yticks(range(len(languages)), [sentence(language_name(code)) for code in languages])
        axes.set_ylim(len(languages) - 0.45, -0.55)
    words.boxplot(
        [checks.loc[checks["language"] == code, "words"] for code in languages],
        positions=range(len(languages)), orientation="horizontal", widths=0.6, whis=(0, 100), manage_ticks=False,
        medianprops={"color": SPLITS["test"]}, boxprops={"color": QUIET},
    )  # fmt: skip
    words.set_xlim(left=0)
    words.set_xlabel("Words per text: quartiles and range")
    shares = [checks.loc[checks["language"] == code, "agrees"].mean() for code in languages]
    agreement.barh(range(len(languages)), shares, color=SPLITS["train"], height=0.6)
    agreement.set_yticks([])
    agreement.set_xlim(0.8, 1.0)
    agreement.set_xlabel("Detector agrees, share of texts\n(axis from 0.8)")
    return figure


def attacks(metrics: pd.DataFrame, arms: Sequence[str], data: Data) -> Figure:
    """Share of continuations in the forgotten language per adversarial attack and arm, with Wilson intervals."""
    table = summary.over_seeds(summary.rates(metrics), ["arm", "family"])
    table = table[table["family"].str.startswith("adversarial:")]
    rows, names = summary.lookup(table, "family", "arm"), sorted(set(table["family"]))
    colours, markers = arm_colours(arms), arm_markers(arms)
    columns = min(COLUMNS, max(len(names), 1))
    lines = max(1, -(-len(names) // columns))
    figure, grid = new(lines * (0.75 + 0.24 * len(arms)) + 0.5, lines, columns)
    for i, axes in enumerate(grid.ravel()):
        if i >= len(names):
            axes.set_axis_off()
            continue
        axes.set_title(sentence(names[i].partition(":")[2].replace("_", " ")))
        for arm, y in arm_rows(axes, arms, labels=i % columns == 0).items():
            if row := rows.get((names[i], arm)):
                whisker(axes, y, row["value"], row["low"], row["high"], colours[arm], markers[arm], (0, 1))
        axes.set_xlim(-0.02, 1.02)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    what = f"Share of continuations in {forget_name(data)}" if names else "No adversarial prompts were asked"
    figure.supxlabel(f"{what}; one panel for each attack", fontsize=10)
    return figure


def membership(tests: pd.DataFrame, arms: Sequence[str]) -> Figure:
    """AUC of every membership attack per arm, with its interval and the gate's margins around 0.5."""
    rows = tests[(tests["gate"] == "G6") & tests["value"].notna()]
    names = [name for name in ATTACKS if name in set(rows["part"])]
    edited = [arm for arm in arms if arm != "base"]
    colours, markers = arm_colours(arms), arm_markers(arms)
    figure, grid = new(0.9 + 0.28 * max(len(edited), 1), 1, max(len(names), 1))
    for i, axes in enumerate(grid[0]):
        places = arm_rows(axes, edited, labels=i == 0)
        axes.set_xlim(0, 1)
        if i >= len(names):
            continue
        part = rows[rows["part"] == names[i]]
        axes.set_title(sentence(attack_name(names[i])))
        margin = float(part["margin"].iloc[0])
        axes.axvspan(0.5 - margin, 0.5 + margin, color=SHADE, linewidth=0)
        axes.axvline(0.5, color="#BBBBBB", linewidth=0.8)
        base = part["base"].dropna()
        if len(base):
            axes.axvline(float(base.iloc[0]), color=QUIET, linewidth=0.9, linestyle=(0, (4, 3)))
        for row in part.groupby("arm").head(1).to_dict("records"):
            if row["arm"] in places:
                colour, marker = colours[row["arm"]], markers[row["arm"]]
                half = (row["ci_high"] - row["ci_low"]) / 2
                y = places[row["arm"]]
                whisker(axes, y, row["value"], row["value"] - half, row["value"] + half, colour, marker, (0, 1))
    what = "AUC of members against non-members" if names else "No canaries were planted"
    figure.supxlabel(f"{what} (shaded: passes; dashed: base)", fontsize=10)
    return figure
