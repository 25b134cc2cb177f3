"""What the audit found, in a few numbers per arm: comprehension, layers, membership, and what is said instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from mmie.equivalence import area, true_positives
from mmie.gate.membership import ATTACKS, strata_of
from mmie.intervals import proportion_interval
from mmie.summary import over_seeds, wilson
from mmie.units import Paired

Data = Mapping[str, Any]
ENOUGH = 0.45
"""Share of meanings of four that base must match before a task says anything about an arm."""
HALF = 0.5
"""Share of base's mass below which a layer is said not to bring the language back."""


def comprehension(scores: pd.DataFrame) -> pd.DataFrame:
    """
    Share of right answers per arm, task and language, with its Wilson interval; attacked variants are left out.

    ``chance`` is guessing; ``weak`` marks a task on which base is no better than that (its interval reaches down to
    chance, or, where meanings are matched, it finds fewer than ENOUGH): such a task says nothing of any arm. Columns:
    arm, task, language, n, value, low, high, chance, weak.
    """
    rows = scores[scores["variant"] == "plain"]
    keys = ["arm", "seed", "task", "language"]
    table = rows.groupby(keys, sort=False).agg(
        n=("correct", "size"), hits=("correct", "sum"), options=("options", "mean")
    ).reset_index()  # fmt: skip
    low, high = wilson(table["hits"], table["n"])
    table = table.assign(value=table["hits"] / table["n"], low=low, high=high)
    chance = table.groupby(["task", "language"])["options"].first().rename("chance").rdiv(1).reset_index()
    found = over_seeds(table, ["arm", "task", "language"]).merge(chance, on=["task", "language"])
    base = found[found["arm"] == "base"]
    weak = (base["low"] <= base["chance"]) | ((base["task"] == "meaning") & (base["value"] < ENOUGH))
    return found.merge(base.assign(weak=weak)[["task", "language", "weak"]], on=["task", "language"])


def masses(inside: pd.DataFrame) -> pd.DataFrame:
    """Mean mass per arm, measure and layer, over prompts and seeds: arm, measure, layer, mass."""
    rows = inside[inside["variant"] == "plain"]
    return rows.groupby(["arm", "measure", "layer"], sort=False)["mass"].mean().reset_index()


def depths(inside: pd.DataFrame) -> dict[str, int | None]:
    """
    Per arm, the layer from which on base, given the arm's states, keeps less than HALF of its mass; None where it never
    does: what the arm took away is there still at the last layer.
    """
    table = masses(inside)
    wide = table[table["measure"] == "patched"].pivot(index="arm", columns="layer", values="mass")
    found: dict[str, int | None] = {}
    for arm in wide.index:
        back = (wide.loc[arm] >= HALF * wide.loc["base"]).to_numpy()
        # The layer after the last one that still brings it back.
        after = int(np.flatnonzero(back).max()) + 1 if back.any() else 0
        found[str(arm)] = int(wide.columns[after]) if after < len(back) else None
    return found


def probe_changes(probes: pd.DataFrame) -> pd.DataFrame:
    """
    What the probes know beyond base's, nats per text, mean over contrasts and seeds: arm, layer, change.

    Nats and not AUC, which is 1 in every layer of most models and then tells nothing.
    """
    rows = probes[probes["variant"] == "plain"]
    means = rows.groupby(["arm", "layer"], sort=False)["nats"].mean().reset_index()
    base = means[means["arm"] == "base"].set_index("layer")["nats"]
    return means.assign(change=means["nats"] - means["layer"].map(base))[["arm", "layer", "change"]]


def membership(metrics: pd.DataFrame, reference: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """
    Every membership attack on every run: AUC with DeLong's interval, true positives at 1 % false ones, and privleak.

    ``privleak`` (2407.06460): (AUC − AUC_r) / AUC_r, where AUC_r is that of a model that never saw the canaries: here
    the pretrained one, which is exactly that. 0 is no trace, above 0 the members show, below 0 they were pushed too
    far. Null for the reference attack, which has no such model of its own, and where AUC_r is 0. Columns: arm, seed,
    attack, n, auc, low, high, tpr, tpr_low, tpr_high, privleak.
    """
    paired, rows = Paired(metrics), []
    for attack, metric in ATTACKS.items():
        unseen = _pretrained_auc(reference, attack)
        for run in paired.runs:
            if strata := strata_of(paired, run, metric):
                found, (hits, members) = area(list(strata.values())), true_positives(list(strata.values()))
                ends = proportion_interval(hits, members)
                rows.append(
                    {
                        "arm": run[0], "seed": run[1], "attack": attack, "n": members, "auc": found.auc,
                        "low": found.interval[0], "high": found.interval[1], "tpr": hits / members,
                        "tpr_low": ends[0], "tpr_high": ends[1],
                        "privleak": found.auc / unseen - 1 if unseen else None,
                    }
                )  # fmt: skip
    columns = ["arm", "seed", "attack", "n", "auc", "low", "high", "tpr", "tpr_low", "tpr_high", "privleak"]
    table = pd.DataFrame(rows, columns=columns)
    places = {arm: i for i, arm in enumerate(arms)}
    return table.sort_values(["arm", "seed"], key=lambda c: c.map(places) if c.name == "arm" else c, kind="stable")


def flows(lid: pd.DataFrame, prompts: pd.DataFrame, families: Sequence[str]) -> pd.DataFrame:
    """
    Where the continuations of base's go in an arm, prompt by prompt: arm, before, after, share (of the arm's prompts).
    """
    asked = prompts.loc[prompts["family"].isin(families), "prompt_id"]
    rows = lid[(lid["variant"] == "plain") & lid["prompt_id"].isin(asked)]
    keys = ["prompt_id", "sample"]
    base = rows[rows["arm"] == "base"][[*keys, "language"]].rename(columns={"language": "before"})
    rows = rows.rename(columns={"language": "after"}).merge(base, on=keys, validate="many_to_one")
    counts = rows.groupby(["arm", "before", "after"], sort=False).size().rename("count").reset_index()
    total = counts.groupby("arm")["count"].transform("sum")
    return counts.assign(share=counts["count"] / total).drop(columns="count")


def passes(lid: pd.DataFrame, prompts: pd.DataFrame) -> pd.DataFrame:
    """Line and word pass rates per arm and prompt family, mean over prompts and seeds: arm, family, line, word."""
    rows = lid[lid["variant"] == "plain"].merge(prompts[["prompt_id", "family"]], on="prompt_id")
    return rows.groupby(["arm", "family"], sort=False).agg(
        line=("line_pass", "mean"), word=("word_pass", "mean")
    ).reset_index()  # fmt: skip


def ratings(judged: pd.DataFrame) -> pd.DataFrame:
    """Mean rating of the judge per arm and prompt family, over prompts and seeds: arm, family, n, rating."""
    rows = judged[(judged["variant"] == "plain") & judged["rating"].notna()]
    return rows.groupby(["arm", "family"], sort=False)["rating"].agg(n="size", rating="mean").reset_index()


def _pretrained_auc(reference: pd.DataFrame, attack: str) -> float | None:
    if attack not in reference.columns:
        return None
    rows = reference.dropna(subset=[attack])
    strata = [
        (part.loc[part["member"], attack].to_numpy(), part.loc[~part["member"], attack].to_numpy())
        for _, part in rows.groupby("language")
    ]
    return area(strata).auc if strata else None
