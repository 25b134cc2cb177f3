"""The report's tables as files: tidy CSV with every digit, LaTeX for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmie import latex, summary
from mmie.labels import (
    CORE,
    GATES,
    families,
    family_name,
    forget_name,
    interval,
    language_name,
    margin,
    number,
    p_value,
    sentence,
)

Data = Mapping[str, Any]
_SHORT = dict(zip(CORE, ("Extraction", "Retained", "Mixed", "Layers", "Neighbours", "Membership"), strict=True))
_MEASURES = {
    "extraction": "{}: still {}",
    "confusion": "{}: answers in another language",
    "perplexity": "{}: perplexity",
}
_WORDS = {"pass": "pass", "fail": "fail", "unclear": "?", "missing": "–"}


def verdicts(decision: Mapping[str, Any], arms: Sequence[str]) -> pd.DataFrame:
    """One row per arm × gate with the gate's deciding part; the arm's verdict and p are repeated on each."""
    rows = []
    for arm in arms:
        found = decision["arms"].get(arm)
        for gate, one in sorted(found["gates"].items()) if found else []:
            rows.append(
                {
                    "arm": arm,
                    "verdict": found["verdict"],
                    "verdict_g1_g5": found["verdict_g1_g5"],
                    "arm_p": found["p"],
                    "arm_q": found["q"],
                    "arm_p_by": found["p_by"],
                    "arm_p_holm": found["p_holm"],
                    "extended": found["extended"]["verdict"],
                    "extended_p": found["extended"]["p"],
                    "gate": gate,
                    "title": GATES[gate],
                    "core": one["core"],
                    **{key: one[key] for key in ("outcome", "passes", "part", "n", "base", "value", "estimate")},
                    "ci_low": one["ci"][0],
                    "ci_high": one["ci"][1],
                    **{key: one[key] for key in ("margin", "p", "q", "power", "needed", "vacuous", "reason")},
                }
            )
    return pd.DataFrame(rows).astype({"n": "Int64", "needed": "Int64"} if rows else {})


def glance(units: pd.DataFrame, tests: pd.DataFrame, arms: Sequence[str], data: Data) -> dict[str, Any]:
    """The main numbers, one row per arm, with their intervals: caption, header and rows as text."""
    rates = summary.lookup(summary.over_seeds(summary.rates(units), ["arm", "family"]), "arm", "family")
    ratio_rows = summary.over_seeds(summary.perplexity_ratios(units, tests, data), ["arm", "language"])
    ratios = summary.lookup(ratio_rows, "arm", "language")
    unasked = ("retain", "neighbour", "unseen", "adversarial")
    asked = [family for family in families(data) if not family.startswith(unasked)]
    kept = [data["retain"], *data["neighbours"], *data["unseen"]]

    def cell(row: dict[str, Any] | None, otherwise: str) -> str:
        if row is None:
            return otherwise
        ends = interval(row["low"], row["high"])
        return number(row["value"]) if ends == "–" else f"{number(row['value'])} ({ends})"

    forget = forget_name(data)
    header = [f"{sentence(family_name(family, data))}: still {forget}" for family in asked]
    header += [f"{language_name(code)}: perplexity" for code in kept]
    rows = [
        [
            arm,
            *(cell(rates.get((arm, family)), "–") for family in asked),
            *(cell(ratios.get((arm, code)), "1" if arm == "base" else "–") for code in kept),
        ]
        for arm in arms
    ]
    caption = f"Share of continuations in {forget} by prompt, and perplexity relative to base; 95 % intervals."
    return {"caption": caption, "header": ["Arm", *header], "rows": rows}


def contrasts(table: pd.DataFrame, data: Data) -> list[dict[str, Any]]:
    """Per pair of arms, what one does against the other: caption, header and rows as text."""
    found = []
    for (first, second), rows in table.groupby(["first", "second"], sort=False):
        shown = [
            [
                _MEASURES[row["measure"]].format(_place(row, data), forget_name(data)),
                *(number(row[key]) for key in ("first_value", "second_value")),
                f"×{number(row['estimate'])}" if row["measure"] == "perplexity" else number(row["estimate"]),
                interval(row["low"], row["high"]),
                "the methods" if row["scope"] == "method" else "these models",
            ]
            for row in rows.to_dict("records")
        ]
        seeds = int(rows["seeds"].iloc[0])
        over = f"; means over {seeds} seeds, intervals as wide as any seed's where they are about these models"
        caption = f"{first} against {second}{over if seeds > 1 else ''}. 95 % intervals, not adjusted for their number."
        header = ["", str(first), str(second), "Difference or ratio", "95 % interval", "Says something about"]
        found.append({"caption": caption, "header": header, "rows": shown})
    return found


def _place(row: Mapping[str, Any], data: Data) -> str:
    where = str(row["where"])
    return language_name(where) if row["measure"] == "perplexity" else family_name(where, data)


def gates(table: pd.DataFrame, arms: Sequence[str], data: Data) -> list[dict[str, Any]]:
    """How often the gates are open, by language: one table, none where no arm has a gate."""
    half = table[table["threshold"] == 0.5]
    if half.empty:
        return []
    spoken = [*data["forget"].values(), data["retain"], *data["neighbours"]]
    present = list(half["language"].unique())
    languages = [*(code for code in spoken if code in present), *sorted(set(present) - set(spoken))]
    shares, aucs = half.groupby(["arm", "language"])["open"].mean(), half.groupby("arm")["auc"].min()
    rows = [
        [arm, *(number(shares.get((arm, code))) for code in languages), number(aucs[arm])]
        for arm in arms
        if arm in aucs.index
    ]
    caption = (
        "Share of held-out tokens (tune split) on which a gate is more than half open, mean over gates and seeds. "
        "Worst AUC: of any gate, against the language that it confuses most. Nothing is judged by it."
    )
    return [{"caption": caption, "header": ["Arm", *map(language_name, languages), "Worst AUC"], "rows": rows}]


def verdicts_tex(decision: Mapping[str, Any], arms: Sequence[str]) -> str:
    """Verdict and gates per arm: outcome, and estimate of the deciding part."""
    gates = [gate for gate in CORE if any(gate in found["gates"] for found in decision["arms"].values())]
    header = ["Arm\n", "Verdict\n", *(f"{gate}\n{_SHORT[gate]}" for gate in gates), "p\n"]
    rows = []
    for arm in arms:
        if found := decision["arms"].get(arm):
            cells = [_outcome(found["gates"].get(gate)) for gate in gates]
            rows.append([arm, found["verdict"].lower(), *(outcome for outcome, _ in cells), p_value(found["p"])])
            rows.append(["", "", *(numbers for _, numbers in cells), ""])
    notes = "Worst part of each gate: whether its estimate is shown to be below the margin (? = cannot be certified)."
    if decision["label"]:
        notes += f" {decision['label'][:1].upper()}{decision['label'][1:]}."
    caption = f"Verdicts ({decision['scope']}; α = {decision['alpha']:g})"
    return latex.booktabs(header, rows, "ll" + "l" * len(gates) + "r", caption, "tab:mmie-verdicts", notes)


def metrics_tex(units: pd.DataFrame, tests: pd.DataFrame, arms: Sequence[str], data: Data) -> str:
    """The main numbers per arm, intervals on a line of their own."""
    table = glance(units, tests, arms, data)
    rows = []
    for arm, *cells in table["rows"]:
        values = [cell.partition(" (") for cell in cells]
        rows.append([arm, *(value for value, _, _ in values)])
        if any(rest for _, _, rest in values):
            rows.append(["", *(rest.rstrip(")").replace(" to ", "–") for _, _, rest in values)])
    heads = [name.partition(": ")[0].split() for name in table["header"]]
    lines = max(map(len, heads))
    header = ["\n".join([*words, *[""] * (lines - len(words))]) for words in heads]
    rates = sum(": still " in name for name in table["header"])
    groups = [(1, ""), (rates, f"Still {forget_name(data)}"), (len(header) - 1 - rates, "Perplexity ÷ base")]
    return latex.booktabs(
        header, rows, "l" + "r" * (len(header) - 1), table["caption"].rstrip("."), "tab:mmie-metrics", groups=groups
    )


def _outcome(gate: Mapping[str, Any] | None) -> tuple[str, str]:
    """A gate's outcome, and its estimate against its margin."""
    if gate is None or gate["estimate"] is None:
        return _WORDS["missing"], ""
    sign = "<" if gate["estimate"] < gate["margin"] else "≥"
    return _WORDS[gate["outcome"]], f"{number(gate['estimate'])} {sign} {margin(gate['margin'])}"


def csv(table: pd.DataFrame) -> str:
    """The table as CSV: every digit, empty where there is no value."""
    return table.to_csv(index=False, lineterminator="\n")
