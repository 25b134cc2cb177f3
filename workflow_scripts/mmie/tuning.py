"""
Choose among configurations of an arm, on the tune split alone.

A choice by the test split would be judged on what it was chosen by: the test's error rates would no longer hold.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mmie import summary, tables

RULES = {"least_extraction": ("ratio_share", "les"), "least_damage": ("les_share", "ratio_share")}
"""Rule → what must be at most 1, and what is then made small."""


def tune_rows(metrics: pd.DataFrame, tests: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    """
    Rows of ``tables.TUNE``, by entry and rank.

    ``settings``: ``arms`` (name → entry, method, params), ``split``, ``rule``, ``extraction`` (its margin). Extraction
    is read from ``metrics``, perplexity ratios and their margins from the gate's own rows of ``tests``. An arm's
    extraction is its mean over seeds, its damage that of the worst seed. Ties go to the smaller damage, then to the
    smaller extraction, then by name.

    Raises ValueError when the split is not ``tune``, or a perplexity of an arm was not measured.
    """
    if settings["split"] != "tune":
        raise ValueError(
            f"config `evaluation.split: {settings['split']}`: arms are chosen on the tune split only. Run "
            "`snakemake tune --cores all --configfile configs/tune.yaml --directory runs/tune`."
        )
    limit, small = RULES[settings["rule"]]
    arms = {name: arm for name, arm in settings["arms"].items() if arm["method"] != "base"}
    rows = pd.DataFrame([_row(name, arm, metrics, tests, settings["extraction"]) for name, arm in arms.items()])
    rows = rows if len(rows) else tables.TUNE.empty_table().to_pandas()
    rows["allowed"] = rows[limit] <= 1
    order = ["entry", "allowed", small, "ratio_share", "les", "arm"]
    rows = rows.sort_values(order, ascending=[True, False, True, True, True, True], ignore_index=True)
    rows["rank"] = rows.groupby("entry").cumcount() + 1
    rows["chosen"] = rows["allowed"] & (rows["rank"] == 1)
    return rows[tables.TUNE.names]


def as_text(rows: pd.DataFrame) -> str:
    """The table for a terminal, best first, with what was chosen marked."""
    shown = rows.assign(chosen=np.where(rows["chosen"], "*", ""), allowed=np.where(rows["allowed"], "yes", "no"))
    columns = ["chosen", "entry", "arm", "les_native", "les_roman", "worst", "ratio", "ratio_share", "allowed"]
    return str(shown[columns].to_string(index=False, float_format="{:.3f}".format))


def overlay(rows: pd.DataFrame, before: Mapping[str, int], rule: str) -> str:
    """
    The choice as YAML for ``--configfile``: the chosen arms, and how many configurations of each method were tried.

    ``before`` is config `tune.tried`: configurations of earlier tuning runs count as well.
    """
    arms = {}
    for row in rows[rows["chosen"]].to_dict("records"):
        named = {} if row["entry"] == row["method"] else {"method": row["method"]}
        arms[row["entry"]] = {**named, **json.loads(row["params"])}
    tried = Counter(before) + Counter(rows["method"].tolist())
    left_out = sorted(set(rows["entry"]) - set(arms))
    lines = [f"# Chosen by `{rule}` on the tune split."]
    lines += [f"# {entry}: none of {(rows['entry'] == entry).sum()} stays within the margins." for entry in left_out]
    return "\n".join(lines) + "\n" + yaml.safe_dump({"arms": arms, "tune": {"tried": dict(tried)}})


def _row(
    name: str, arm: Mapping[str, Any], metrics: pd.DataFrame, tests: pd.DataFrame, margin: float
) -> dict[str, Any]:
    rates = summary.over_seeds(summary.rates(metrics[metrics["arm"].isin([name, "base"])]), ["arm", "family"])
    rate = {key: row["value"] for key, row in summary.lookup(rates, "arm", "family").items()}
    scripts = [f for f in ("forget_native", "forget_roman") if (name, f) in rate]
    extracted = [rate[name, family] for family in scripts]
    with np.errstate(divide="ignore"):  # where base never speaks the language, any extraction is too much
        shares = [np.divide(rate[name, f], margin * rate["base", f]) if rate[name, f] else 0.0 for f in scripts]
    part, ratio, limit = summary.worst_ratio(name, tests)
    return {
        "entry": arm["entry"],
        "arm": name,
        "method": arm["method"],
        "params": json.dumps(arm["params"], sort_keys=True),
        "seeds": metrics.loc[metrics["arm"] == name, "seed"].nunique(),
        "les_native": rate[name, "forget_native"],
        "les_roman": rate.get((name, "forget_roman"), np.nan),
        "les": float(np.mean(extracted)),
        "les_share": float(max(shares)),
        "worst": part.partition(":")[0],
        "ratio": ratio,
        "ratio_share": ratio / limit,
    }
