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
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals
from mmie.gate import CORE
from mmie.labels import GATES, families, family_name, forget_name, interval, language_name, margin, number, p_text
from mmie.statistics import adjust

PROCEED, STOP, CANNOT_CERTIFY = "PROCEED", "STOP", "CANNOT CERTIFY"
TESTED = tuple(gate for gate in CORE if gate != "G6")
SEVERITY = ("pass", "missing", "unclear", "fail")
WHOLE = ("seed", "n", "needed")
NUMBERS = ("n", "base", "value", "estimate", "margin", "p", "alternative", "power", "needed")


def decide(tests: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    """
    The decision from rows of ``tables.TESTS`` in any order: JSON values, floats rounded to ten significant digits.

    ``verdict`` covers all core gates: with one of them missing it is never PROCEED. ``verdict_g1_g5`` covers G1–G5 and
    says so in its own text.
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
        "scope": _scope(seeds),
        "scope_note": _scope_note(seeds, alpha),
        "complete": bool(arms) and not missing,
        "label": _label(missing),
        "missing": missing,
        "alpha": alpha,
        "q": q,
        "config_hash": config_hash(settings),
        "margins": settings["gate"]["margins"],
        "tried": settings.get("tried", {}),
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


def _arm(arm: str, rows: list[dict[str, Any]], settings: dict[str, Any], q: float) -> dict[str, Any]:
    gates = {gate: _gate(gate, found) for gate, found in _grouped(rows, "gate").items()}
    tested = [gate for gate in gates if gates[gate]["p"] is not None]
    for gate, value in zip(tested, adjust([gates[g]["p"] for g in tested]) if tested else [], strict=True):
        gates[gate]["q"] = float(value)
        gates[gate]["passes"] = bool(gates[gate]["outcome"] == "pass" and value <= q)
    covered = [gate for gate in CORE if gate in tested]
    seeds = sorted({int(row["seed"]) for row in rows})
    found: dict[str, Any] = {
        "verdict": _verdict([gates[g]["outcome"] if g in gates else "missing" for g in CORE]),
        "verdict_g1_g5": f"{_verdict([gates[g]['outcome'] if g in gates else 'missing' for g in TESTED])} (G1-G5 only)",
        "scope": _scope(len(seeds)),
        "seeds": seeds,
        "p": max((gates[g]["p"] for g in covered), default=None),
        "p_covers": covered,
        "gates": gates,
    }
    found["reasons"] = [_reason(gates[g], g, settings) for g in _by_severity(gates)]
    found["sentence"] = f"{arm}, {found['scope']}: {found['verdict']}. {_because(gates, settings)}".strip()
    return found


def _gate(gate: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The gate's worst part, in the worst seed, speaks for it; p is the largest over parts and seeds."""
    parts: dict[str, Any] = {}
    for name, seeds in _grouped(rows, "part").items():
        worst = max(seeds, key=_badness)
        parts[name] = {
            **{key: _plain(worst[key], key in WHOLE) for key in ("seed", *NUMBERS)},
            "ci": [_plain(worst["ci_low"]), _plain(worst["ci_high"])],
            **{key: worst[key] for key in ("test", "null", "outcome", "reason", "note")},
        }
        parts[name]["p"] = max((float(row["p"]) for row in seeds if row["p"] is not None), default=None)
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
        "parts": parts,
    }


def _grouped(rows: list[dict[str, Any]], key: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    return dict(sorted(found.items()))


def _badness(part: dict[str, Any]) -> tuple[float, ...]:
    """Orders parts from good to bad; ties go to the one nearest to its margin, then to the lower seed."""
    p = part["p"] if part["p"] is not None else -1.0
    near = -math.inf
    if part["estimate"] is not None and part["margin"] is not None:
        near = float(part["estimate"]) - float(part["margin"])
    return (SEVERITY.index(part["outcome"]), float(p), near, -float(part["seed"]))


def _verdict(outcomes: list[str]) -> str:
    if "fail" in outcomes:
        return STOP
    return PROCEED if all(outcome == "pass" for outcome in outcomes) else CANNOT_CERTIFY


def _compare_arms(arms: dict[str, Any]) -> None:
    """Adjust p over the arms, in place: Benjamini–Hochberg, and beside it Benjamini–Yekutieli and Holm."""
    tested = [arm for arm in arms if arms[arm]["p"] is not None]
    for key, method in (("q", "fdr_bh"), ("p_by", "fdr_by"), ("p_holm", "holm")):
        values = adjust([arms[arm]["p"] for arm in tested], method) if tested else np.empty(0)
        for arm in arms:
            arms[arm][key] = None
        for arm, value in zip(tested, values, strict=True):
            arms[arm][key] = float(value)


def _by_severity(gates: dict[str, Any]) -> list[str]:
    """Core gates before others, and what decided first."""
    return sorted(gates, key=lambda g: (not gates[g]["core"], -SEVERITY.index(gates[g]["outcome"]), g))


def _because(gates: dict[str, Any], settings: dict[str, Any]) -> str:
    """The verdict's ground in a line or two: what was achieved, then what decided."""
    core = {g: gates[g] for g in _by_severity(gates) if gates[g]["core"]}
    worst = next(iter(core.values()))["outcome"] if core else "missing"
    achieved = [_brief(core["G1"], "G1", settings)] if core.get("G1", {}).get("outcome") == "pass" else []
    if worst == "pass":
        return f"{'; '.join(_brief(gate, g, settings) for g, gate in core.items())}."
    outcomes = ("fail",) if worst == "fail" else ("unclear", "missing")
    decided = [_brief(gate, g, settings) for g, gate in core.items() if gate["outcome"] in outcomes]
    text = "; but ".join([*achieved, "; ".join(decided)]) + "."
    needed = [gate["needed"] or math.inf for gate in core.values() if gate["outcome"] == "unclear" and gate["n"]]
    if worst == "unclear" and needed:
        most = "more than 10 000" if max(needed) == math.inf else f"about {max(needed)}"
        text += f" A good arm would need {most} groups in every family to be certified."
    return text


def _brief(gate: dict[str, Any], name: str, settings: dict[str, Any]) -> str:
    if gate["outcome"] == "missing":
        return f"{name} ({GATES[name].lower()}) was not tested: {gate['reason']}"
    most = "" if gate["ci"][1] is None else f"at most {number(gate['ci'][1])}, "
    text = f"{_measured(gate, name, settings)} ({most}margin {margin(gate['margin'])}, {p_text(_part(gate)['p'])})"
    why = gate["reason"].partition(":")[0].partition(";")[0] if gate["outcome"] == "unclear" else ""
    return f"{text}: {why}" if why else text


def _reason(gate: dict[str, Any], name: str, settings: dict[str, Any]) -> str:
    """One gate in words: what was measured in the deciding part, its interval and margin, and why it did not pass."""
    if gate["outcome"] == "missing":
        return f"{name} ({GATES[name].lower()}) was not tested: {gate['reason']}"
    text = f"{name} ({GATES[name].lower()}): {_measured(gate, name, settings)}"
    detail = f"95 % interval {interval(*gate['ci'])}, margin {margin(gate['margin'])}, {p_text(_part(gate)['p'])}"
    note = f"; {gate['note']}" if gate["note"] else ""
    if not gate["reason"]:
        return f"{text} ({detail}){note}"
    others = sum(part["outcome"] == gate["outcome"] for part in gate["parts"].values()) - 1
    more = f" ({others + 1} of its {len(gate['parts'])} parts)" if others else ""
    verb = "fails" if gate["outcome"] == "fail" else "cannot be certified"
    return f"{text} ({detail}); {verb}: {gate['reason']}{more}{note}"


def _part(gate: dict[str, Any]) -> dict[str, Any]:
    part: dict[str, Any] = gate["parts"][gate["part"]]
    return part


def _measured(gate: dict[str, Any], name: str, settings: dict[str, Any]) -> str:
    data, part = settings["data"], str(gate["part"])
    estimate = number(gate["estimate"])
    forget = forget_name(data)
    change = _change(gate["base"], gate["value"])
    if name in ("G1", "G3"):
        script, _, broad = part.partition(":")
        where = family_name(f"forget_{script}" if name == "G1" else "mixed", data)
        counted = f", undetermined output counted as {forget}" if broad else ""
        return f"{forget} extraction from {where} prompts{counted} {change}, ratio {estimate}"
    if name == "G2" or part.endswith(":perplexity"):
        return f"{language_name(part.partition(':')[0])} perplexity ×{estimate}"
    if name == "G4":
        layer, _, contrast = part.partition(":")
        positive, _, negative = contrast.partition("-")
        against = f"{language_name(positive)} against {language_name(negative)} at layer {layer.removeprefix('layer')}"
        unit = "nats" if gate["test"].startswith("mean") else "AUC"
        return f"Probe of {against} {change} ({unit}), difference {estimate}"
    subject, _, what = part.partition(":")
    if name == "G5":
        language = language_name(subject)
        if what == "leak":
            return f"{forget} in answers to {language} prompts {change}, rise {estimate}"
        return f"{language} prompts answered in {language} {change}, fall {estimate}"
    where = family_name(subject, data) if subject in families(data) else subject
    kind = "Undetermined" if what == "und" else "Repetitive"
    return f"{kind} output on {where} prompts {change}, rise {estimate}"


def _change(base: float | None, value: float | None) -> str:
    if base is None or value is None or number(base) == number(value):
        return f"stayed at {number(value)}"
    return f"{'fell' if value < base else 'rose'} from {number(base)} to {number(value)}"


def _scope(seeds: int) -> str:
    return "this checkpoint" if seeds == 1 else f"all {seeds} checkpoints"


def _scope_note(seeds: int, alpha: float) -> str:
    if seeds == 1:
        return "One training run was judged: this checkpoint, not the method. Another seed may behave differently."
    chance = alpha ** (1 / seeds)
    return (
        f"All {seeds} training runs were judged, each on its own, and the worst counts. If all of them pass, another "
        f"seed passes with a probability of at least {chance:.0%}; nothing is said about rare bad seeds."
    )


def _label(missing: dict[str, str]) -> str:
    if not missing:
        return ""
    what = "; ".join(f"{gate} ({GATES[gate].lower()}) was not tested: {reason}" for gate, reason in missing.items())
    return f"incomplete: {what}"


def _assay(rows: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
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
