"""
The decision: a verdict per arm from the rows of tests, with its reasons in words and numbers.

PROCEED is an intersection–union test (Berger 1982): every core gate rejects its H0 at alpha, in every part and for
every seed, so p_arm is the largest p and needs no correction. Benjamini–Hochberg says which gates pass within an arm,
and which arms pass among the arms; it leaves PROCEED unchanged as long as q = alpha.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals, sentences
from mmie.labels import CORE, GATES
from mmie.statistics import adjust
from mmie.two_way import ALL_SEEDS, SEEDS_FOR_METHOD

PROCEED, STOP, CANNOT_CERTIFY = "PROCEED", "STOP", "CANNOT CERTIFY"
EXTENDED = tuple(GATES)
TESTED = tuple(gate for gate in CORE if gate != "G6")
SEVERITY = ("pass", "missing", "unclear", "fail")
WHOLE = ("seed", "n", "needed")
NUMBERS = ("n", "base", "value", "estimate", "margin", "p", "alternative", "power", "needed")
Row = dict[str, Any]


def decide(tests: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    """
    The decision from rows of ``tables.TESTS`` in any order: JSON values, floats rounded to ten significant digits.

    Per arm, ``verdict`` covers the core gates and ``extended`` all of them: with one missing, neither is PROCEED.
    ``verdict_g1_g5`` covers G1–G5, for experiments without canaries, and says so in its own text.
    """
    alpha, q = float(settings["gate"]["alpha"]), float(settings["gate"]["q"])
    ordered = tests.sort_values(["arm", "gate", "part", "seed"])
    records = ordered.astype(object).where(ordered.notna(), None).to_dict("records")
    rows = [{str(key): value for key, value in record.items()} for record in records]
    arms = {arm: _arm(arm, found, settings, q) for arm, found in _grouped(rows, "arm").items()}
    _compare_arms(arms)
    missing = {
        row["gate"]: row["reason"] for row in reversed(rows) if row["outcome"] == "missing" and row["gate"] in CORE
    }
    seeds = max((len(arm["seeds"]) for arm in arms.values()), default=1)
    decision = {
        "scope": sentences.scope(seeds),
        "scope_note": sentences.scope_note(seeds, alpha, SEEDS_FOR_METHOD),
        "complete": bool(arms) and not missing,
        "label": sentences.incomplete(missing),
        "missing": missing,
        "alpha": alpha,
        "q": q,
        "config_hash": config_hash(settings),
        "margins": settings["gate"]["margins"],
        "assay": _assay(rows, settings),
        "arms": arms,
    }
    rounded: dict[str, Any] = _rounded(decision)
    return rounded


def config_hash(settings: dict[str, Any]) -> str:
    """Sixteen hex digits over the settings a decision was made with, margins included."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def as_json(decision: dict[str, Any]) -> str:
    """The text of decision.json: the same decision gives the same bytes."""
    return json.dumps(decision, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False) + "\n"


def by_severity(gates: Mapping[str, Any]) -> list[str]:
    """Core gates before others, and what decided first."""
    return sorted(gates, key=lambda g: (not gates[g]["core"], -SEVERITY.index(gates[g]["outcome"]), g))


def _arm(arm: str, rows: list[Row], settings: dict[str, Any], q: float) -> dict[str, Any]:
    gates = {gate: _gate(gate, found) for gate, found in _grouped(rows, "gate").items()}
    tested = [gate for gate in gates if gates[gate]["p"] is not None]
    for gate, value in zip(tested, adjust([gates[g]["p"] for g in tested]) if tested else [], strict=True):
        gates[gate]["q"] = float(value)
        gates[gate]["passes"] = bool(gates[gate]["outcome"] == "pass" and value <= q)
    seeds = sorted({int(row["seed"]) for row in rows} - {ALL_SEEDS})
    core = _over(gates, CORE)
    found: dict[str, Any] = {
        **core,
        "verdict_g1_g5": f"{_over(gates, TESTED)['verdict']} (G1-G5 only)",
        "extended": _over(gates, EXTENDED),
        "scope": sentences.scope(len(seeds)),
        "scopes": {
            name: [gate for gate in gates if any(part["scope"] == name for part in gates[gate]["parts"].values())]
            for name in ("checkpoints", "method")
        },
        "seeds": seeds,
        "gates": gates,
    }
    ordered = {gate: gates[gate] for gate in by_severity(gates)}
    found["reasons"] = [sentences.reason(gate, name, settings["data"]) for name, gate in ordered.items()]
    found["sentence"] = sentences.of_arm(arm, found, ordered, settings["data"])
    return found


def _over(gates: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """
    The verdict over some gates: STOP where one failed, PROCEED where all passed; and its p, the largest of theirs.

    A gate that was not tested adds no p: ``p_covers`` names those that did, and the verdict is then never PROCEED.
    """
    outcomes = [gates[gate]["outcome"] if gate in gates else "missing" for gate in names]
    covered = [gate for gate in names if gate in gates and gates[gate]["p"] is not None]
    verdict = CANNOT_CERTIFY
    if "fail" in outcomes:
        verdict = STOP
    elif all(outcome == "pass" for outcome in outcomes):
        verdict = PROCEED
    outcome = max(outcomes, key=SEVERITY.index)
    return {
        "verdict": verdict,
        "outcome": outcome,
        "p": max((gates[gate]["p"] for gate in covered), default=None),
        "p_covers": covered,
    }


def _gate(gate: str, rows: list[Row]) -> dict[str, Any]:
    """The gate's worst part, in the worst seed, speaks for it; p is the largest over parts and seeds."""
    parts = {name: _part(seeds) for name, seeds in _grouped(rows, "part").items()}
    name = max(sorted(parts), key=lambda part: _badness(parts[part]))
    ps = [part["p"] for part in parts.values() if part["p"] is not None]
    needed = [part["needed"] for part in parts.values() if part["needed"] is not None]
    shown = {key: value for key, value in parts[name].items() if key not in ("null", "alternative")}
    return {
        **shown,
        "title": GATES[gate],
        "core": gate in CORE,
        "passes": False,
        "part": name,
        "p": max(ps, default=None),
        "q": None,
        "needed": max(needed, default=None),
        "vacuous": all(part["vacuous"] for part in parts.values()),
        "parts": parts,
    }


def _part(rows: list[Row]) -> dict[str, Any]:
    """The test over all seeds where there is one, and the worst seed otherwise."""
    method = [row for row in rows if row["seed"] == ALL_SEEDS]
    deciding = method or rows
    worst = max(deciding, key=_badness)
    return {
        **{key: _plain(worst[key], key in WHOLE) for key in ("seed", *NUMBERS)},
        "ci": [_plain(worst["ci_low"]), _plain(worst["ci_high"])],
        **{key: worst[key] for key in ("test", "null", "outcome", "reason", "note")},
        "p": max((float(row["p"]) for row in deciding if row["p"] is not None), default=None),
        "scope": "method" if method else "checkpoints",
        "vacuous": all(bool(row["vacuous"]) for row in deciding),
    }


def _grouped(rows: list[Row], key: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    return dict(sorted(found.items()))


def _badness(part: Row) -> tuple[float, ...]:
    """Orders parts from good to bad; ties go to the one nearest to its margin, then to the lower seed."""
    p = part["p"] if part["p"] is not None else -1.0
    near = -math.inf
    if part["estimate"] is not None and part["margin"] is not None:
        near = float(part["estimate"]) - float(part["margin"])
    return (SEVERITY.index(part["outcome"]), float(p), near, -float(part["seed"]))


def _compare_arms(arms: dict[str, Any]) -> None:
    """
    Adjust p over the arms, in place: Benjamini–Hochberg, and beside it Benjamini–Yekutieli and Holm.

    For the core gates in the arm itself, for all gates in ``extended``.
    """
    for family in (list(arms.values()), [arm["extended"] for arm in arms.values()]):
        tested = [one for one in family if one["p"] is not None]
        for key, method in (("q", "fdr_bh"), ("p_by", "fdr_by"), ("p_holm", "holm")):
            values = adjust([one["p"] for one in tested], method) if tested else np.empty(0)
            for one in family:
                one[key] = None
            for one, value in zip(tested, values, strict=True):
                one[key] = float(value)


def _assay(rows: list[Row], settings: dict[str, Any]) -> dict[str, Any]:
    """How often base speaks the forget language in the families that the gates read."""
    found = {}
    for part, family in [*((s, f"forget_{s}") for s in settings["data"]["forget"]), ("mixed", "mixed")]:
        seen = next((row for row in rows if row["gate"] in ("G1", "G3") and row["part"] == part and row["n"]), None)
        if seen is None:
            continue
        n, rate = int(seen["n"]), float(seen["base"])
        low, high = intervals.proportion_interval(round(rate * n), n)
        reason = "" if low > 0.5 else "base itself does not surely answer in the forget language more often than not"
        found[family] = {"les": rate, "ci": [low, high], "n": n, "ok": low > 0.5, "reason": reason}
    return found


def _plain(value: Any, whole: bool = False) -> float | int | None:
    """A JSON number; None for a value that is missing or not finite."""
    if value is None or not math.isfinite(value):
        return None
    return int(value) if whole else float(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, (list, tuple)) else value
