"""The handful of numbers per arm that figures, tables and the report show, from the tidy tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from mmie.labels import families

Z = 1.959963984540054  # the normal quantile of a 95 % interval


def wilson(hits: npt.ArrayLike, n: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Ends of the 95 % Wilson interval (1927, JASA 22:209–212) of ``hits`` of ``n``; arrays in, arrays out."""
    k, m = np.asarray(hits, float), np.asarray(n, float)
    centre = (k + Z**2 / 2) / (m + Z**2)
    half = Z / (m + Z**2) * np.sqrt(k * (m - k) / m + Z**2 / 4)
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def rates(metrics: pd.DataFrame, metric: str = "les") -> pd.DataFrame:
    """
    Rate of a 0/1 metric per arm, seed and prompt family, with its Wilson interval; attacked variants are left out.

    Columns: arm, seed, family, n, value, low, high.
    """
    rows = _plain(metrics)
    rows = rows[rows["metric"] == metric]
    table = rows.groupby(["arm", "seed", "family"], sort=False)["value"].agg(["size", "sum"]).reset_index()
    low, high = wilson(table["sum"], table["size"])
    table = table.assign(value=table["sum"] / table["size"], low=low, high=high)
    return table.rename(columns={"size": "n"}).drop(columns="sum")


def extraction(metrics: pd.DataFrame) -> pd.DataFrame:
    """
    Extraction strength per arm and seed: the mean of the scripts of the forgotten language.

    The interval is the mean of the scripts' Wilson intervals, which is never too narrow however the scripts depend on
    each other. Columns: arm, seed, value, low, high.
    """
    table = rates(metrics)
    table = table[table["family"].isin(["forget_native", "forget_roman"])]
    return table.groupby(["arm", "seed"], sort=False)[["value", "low", "high"]].mean().reset_index()


def perplexity_ratios(metrics: pd.DataFrame, tests: pd.DataFrame, data: Mapping[str, Any]) -> pd.DataFrame:
    """
    Perplexity against base on the same texts, per arm, seed and language of the corpus.

    Interval and margin are the gate's where a gate tests the language; elsewhere the interval is Student's, around
    exp(Σ(nll_u − nll_b) / Σ tokens), and there is no margin. Columns: arm, seed, language, n, value, low, high, margin.
    """
    rows = _plain(metrics)
    rows = rows[(rows["family"] == "texts") & rows["language"].isin(families(data).values())]
    keys = ["arm", "seed", "language"]
    wide = rows[rows["metric"].isin(["nll", "n_tokens"])].pivot(
        index=[*keys, "unit_id"], columns="metric", values="value"
    )
    wide = wide.reset_index()
    base = wide.loc[wide["arm"] == "base", ["unit_id", "nll"]]
    wide = wide.merge(base, on="unit_id", suffixes=("", "_base"))
    wide["rise"] = wide["nll"] - wide["nll_base"]
    tested = _tested(tests, data)
    found = []
    for key, part in wide[wide["arm"] != "base"].groupby(keys, sort=False):
        value, low, high = _ratio(part["rise"].to_numpy(), part["n_tokens"].to_numpy())
        margin = np.nan
        if row := tested.get(tuple(key)):
            margin = row["margin"]
            if pd.notna(row["estimate"]):
                value, low, high = row["estimate"], row["ci_low"], row["ci_high"]
        found.append((*key, len(part), value, low, high, margin))
    return pd.DataFrame(found, columns=[*keys, "n", "value", "low", "high", "margin"])


def worst_ratio(arm: str, tests: pd.DataFrame) -> tuple[str, float, float]:
    """
    Part, perplexity ratio and margin of the row of ``tests`` whose ratio is largest against its margin, in any seed.

    Raises ValueError when no gate measured a perplexity of the arm.
    """
    perplexity = (tests["gate"] == "G2") | tests["part"].str.endswith(":perplexity")
    rows = tests[(tests["arm"] == arm) & perplexity & (tests["seed"] >= 0)].dropna(subset=["estimate", "margin"])
    rows = rows.reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"arm {arm}: no gate measured a perplexity. Raise config `data.splits`.")
    row = rows.loc[(rows["estimate"] / rows["margin"]).idxmax()]
    return str(row["part"]), float(row["estimate"]), float(row["margin"])


def over_seeds(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """
    One row per arm: the mean over seeds, and the widest reach of their intervals.

    Seeds are not pooled: pooling prompts and seeds as if independent is far too sure of itself.
    """
    how = {"value": "mean", "low": "min", "high": "max"} | {c: "min" for c in ("n", "margin") if c in table}
    return table.groupby(list(keys), sort=False).agg(how).reset_index()


def lookup(table: pd.DataFrame, *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The rows of a table by the values of ``keys``, which must tell them apart; raises ValueError when they do not."""
    rows = {tuple(row[key] for key in keys): {str(k): v for k, v in row.items()} for row in table.to_dict("records")}
    if len(rows) < len(table):
        raise ValueError(f"two rows share one value of {', '.join(keys)}: the tables are of different runs.")
    return rows


def language_mix(lid: pd.DataFrame, prompts: pd.DataFrame) -> pd.DataFrame:
    """Share of every detected language in an arm's continuations, per prompt family: arm, family, language, share."""
    rows = _plain(lid).merge(prompts[["prompt_id", "family"]], on="prompt_id", validate="many_to_one")
    counts = rows.groupby(["arm", "family", "language"], sort=False).size().rename("count").reset_index()
    total = counts.groupby(["arm", "family"])["count"].transform("sum")
    return counts.assign(share=counts["count"] / total).drop(columns="count")


def thresholds(tests: pd.DataFrame) -> dict[str, float]:
    """Extraction rate from which an arm fails, per prompt family: what the gates' margins mean for it."""
    found: dict[str, float] = {}
    named = {("G1", "native"): "forget_native", ("G1", "roman"): "forget_roman", ("G3", "mixed"): "mixed"}
    for row in tests.drop_duplicates(["gate", "part"]).dropna(subset=["base", "margin"]).to_dict("records"):
        language, _, what = row["part"].partition(":")
        if family := named.get((row["gate"], row["part"])):
            found[family] = row["margin"] * row["base"]
        elif row["gate"] == "G5" and what == "leak":
            found |= {f"{role}_{language}": row["base"] + row["margin"] for role in ("neighbour", "unseen")}
    return found


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["variant"] == "plain"]


def _tested(tests: pd.DataFrame, data: Mapping[str, Any]) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The gates' perplexity rows, by arm, seed and language."""
    of_retain = (tests["gate"] == "G2") & (tests["part"] == data["retain"])
    of_neighbours = (tests["gate"] == "G5") & tests["part"].str.endswith(":perplexity")
    rows = tests[of_retain | of_neighbours]
    return lookup(rows.assign(language=rows["part"].str.split(":").str[0]), "arm", "seed", "language")


def _ratio(rise: npt.NDArray[np.float64], tokens: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    n, total = len(rise), tokens.sum()
    mean = rise.sum() / total
    if n < 2:
        return float(np.exp(mean)), np.nan, np.nan
    error = np.sqrt(n / (n - 1) * np.square(rise - mean * tokens).sum()) / total
    half = float(stdtrit(n - 1, 0.975)) * error
    low, value, high = np.exp([mean - half, mean, mean + half])
    return float(value), float(low), float(high)
