"""The decision in words: what was measured, what decided, of what it is said, and what it does not say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mmie.labels import (
    GATES,
    attack_name,
    families,
    family_name,
    forget_name,
    interval,
    language_name,
    listed,
    margin,
    number,
    p_text,
    part_family,
    sentence,
)

_QUANTITIES = {
    "G1": "ratio",
    "G3": "ratio",
    "G4": "difference",
    "G6": "distance from one half",
    "G7": "ratio",
    "G9": "ratio",
}
_SIGNS = {
    "G1": "ratio ",
    "G3": "ratio ",
    "G4": "rise ",
    "G6": "distance from one half ",
    "G7": "ratio ",
    "G9": "ratio ",
}
Gate = Mapping[str, Any]
Data = Mapping[str, Any]


def scope(seeds: int) -> str:
    """Of what the rates are said."""
    return "this checkpoint" if seeds == 1 else f"all {seeds} checkpoints"


def scope_note(seeds: int, alpha: float, for_method: int) -> str:
    """What the number of seeds allows to say, and what it does not."""
    if seeds == 1:
        return "One training run was judged: this checkpoint, not the method. Another seed may behave differently."
    chance = alpha ** (1 / seeds)
    note = (
        f"All {seeds} training runs were judged, each on its own, and the worst counts. If all of them pass, another "
        f"seed passes with a probability of at least {chance:.0%}; nothing is said about rare bad seeds."
    )
    if seeds < for_method:
        return note
    return (
        f"{note} Perplexities and probes vary so little between seeds that they are tested over all of them at once, "
        "which says something of the method: of its mean, not of each of its seeds."
    )


def incomplete(missing: Mapping[str, str]) -> str:
    """Which core gates were not tested; empty when all were."""
    if not missing:
        return ""
    what = "; ".join(f"{gate} ({GATES[gate].lower()}) was not tested: {reason}" for gate, reason in missing.items())
    return f"incomplete: {what}"


def of_arm(arm: str, found: Mapping[str, Any], gates: Mapping[str, Gate], data: Data) -> str:
    """The verdict on an arm and its ground; ``gates`` in the order of severity."""
    seeds = len(found["seeds"])
    who = f"{arm}, {scope(1) if seeds == 1 else f'{seeds} seeds'}"
    return " ".join(
        filter(None, [f"{who}: {found['verdict']}.", _because(gates, data), _vacuous(gates), _said_of(found, seeds)])
    )


def _because(gates: Mapping[str, Gate], data: Data) -> str:
    """The verdict's ground in a line or two: what was achieved, then what decided."""
    core = {name: gate for name, gate in gates.items() if gate["core"]}
    worst = next(iter(core.values()))["outcome"] if core else "missing"
    extraction = core.get("G1")
    achieved = [_brief(extraction, "G1", data)] if extraction and extraction["outcome"] == "pass" else []
    if worst == "pass":
        shown = [_brief(gate, name, data) for name, gate in core.items() if not gate["vacuous"]]
        return sentence(f"{'; '.join(shown)}.")
    outcomes = ("fail",) if worst == "fail" else ("unclear", "missing")
    decided = [_brief(gate, name, data) for name, gate in core.items() if gate["outcome"] in outcomes]
    joint = "; but " if worst != "fail" else " but "
    text = joint.join([*achieved, "; ".join(decided)]) + "."
    return sentence(f"{text} {_needed(core)}".strip() if worst == "unclear" else text)


def _needed(core: Mapping[str, Gate]) -> str:
    """How much data would do for a good arm; members of G6 apart from the groups of the others."""
    unclear = {name: gate for name, gate in core.items() if gate["outcome"] == "unclear" and gate["n"]}
    kinds = {
        "groups in every family": [gate["needed"] or math.inf for name, gate in unclear.items() if name != "G6"],
        "planted canaries": [gate["needed"] or math.inf for name, gate in unclear.items() if name == "G6"],
    }
    wanted = [
        f"{'more than 10 000' if max(numbers) == math.inf else f'about {max(numbers)}'} {kind}"
        for kind, numbers in kinds.items()
        if numbers
    ]
    return f"A good arm would need {listed(wanted)} to be certified." if wanted else ""


def _vacuous(gates: Mapping[str, Gate]) -> str:
    """Passing a gate that nothing could fail is no achievement."""
    empty = [name for name, gate in gates.items() if gate["vacuous"]]
    return f"{listed(empty)} could not have failed here: base leaves no room to get worse." if empty else ""


def _said_of(found: Mapping[str, Any], seeds: int) -> str:
    """Of what the verdict is said."""
    if seeds == 1:
        return "This says nothing of other training seeds."
    of_method = "; its perplexities and probes, of the method" if found["scopes"]["method"] else ""
    return f"This is said of all {seeds} checkpoints{of_method}; a rare bad seed is not ruled out."


def reason(gate: Gate, name: str, data: Data) -> str:
    """One gate in words: what was measured in the deciding part, its interval and margin, and why it did not pass."""
    if gate["outcome"] == "missing":
        return f"{name} ({GATES[name].lower()}) was not tested: {gate['reason']}"
    text = f"{name} ({GATES[name].lower()}): {_measured(gate, name, data)}"
    detail = f"95 % interval {interval(*gate['ci'])}, margin {margin(gate['margin'])}, {p_text(_part(gate)['p'])}"
    note = f"; {gate['note']}" if gate["note"] else ""
    if gate["vacuous"]:
        note += "; the gate could not have failed"
    if not gate["reason"]:
        return f"{text} ({detail}){note}"
    others = sum(part["outcome"] == gate["outcome"] for part in gate["parts"].values()) - 1
    more = f" ({others + 1} of its {len(gate['parts'])} parts)" if others else ""
    verb = "fails" if gate["outcome"] == "fail" else "cannot be certified"
    return f"{text} ({detail}); {verb}: {gate['reason']}{more}{note}"


def _brief(gate: Gate, name: str, data: Data) -> str:
    """One gate in a sentence on the arm: the change, its worst plausible size, margin and p."""
    if gate["outcome"] == "missing":
        return f"{name} ({GATES[name].lower()}) was not tested: {gate['reason']}"
    high = gate["ci"][1]
    most = f"{number(gate['estimate'])}, " if high is None else f"{_SIGNS.get(name, '')}≤ {number(high)}, "
    text = f"{_change_of(gate, name, data)} ({most}margin {margin(gate['margin'])}, {p_text(_part(gate)['p'])})"
    why = gate["reason"].partition(":")[0].partition(";")[0] if gate["outcome"] == "unclear" else ""
    return f"{text}: {why}" if why else text


def _part(gate: Gate) -> dict[str, Any]:
    part: dict[str, Any] = gate["parts"][gate["part"]]
    return part


def _measured(gate: Gate, name: str, data: Data) -> str:
    """What the deciding part measured: base, the arm, and the tested quantity."""
    text = sentence(_change_of(gate, name, data))
    if _is_perplexity(gate, name):
        return text
    what = _QUANTITIES.get(name, "rise")
    if str(gate["part"]).endswith(":confusion"):
        what = "fall"
    return f"{text}, {what} {number(gate['estimate'])}"


def _change_of(gate: Gate, name: str, data: Data) -> str:
    """The subject of the deciding part and how it changed, without a capital letter."""
    first, _, second = str(gate["part"]).partition(":")
    forget, change = forget_name(data), _change(gate["base"], gate["value"])
    if _is_perplexity(gate, name):
        return f"{language_name(first)} perplexity {_times(gate['estimate'])}"
    if name in ("G1", "G3"):
        where = family_name(part_family(name, first), data)
        counted = f", undetermined output counted as {forget}" if second else ""
        return f"{forget} extraction from {where} prompts{counted} {change}"
    if name == "G4":
        positive, _, negative = second.partition("-")
        against = f"{language_name(positive)} against {language_name(negative)} at layer {first.removeprefix('layer')}"
        unit = "nats" if gate["test"].startswith("mean") else "AUC"
        return f"probe of {against} {change} ({unit})"
    if name == "G5" and second == "leak":
        return f"{forget} in answers to {language_name(first)} prompts {change}"
    if name == "G5":
        return f"{language_name(first)} prompts answered in {language_name(first)} {change}"
    if name == "G6":
        return f"AUC of the membership attack by {attack_name(first)} {change}"
    if name == "G7":
        counted = f", undetermined output counted as {forget}" if second else ""
        return f"{forget} in answers when {family_name(part_family(name, first), data)}{counted} {change}"
    if name == "G9":
        where = family_name(f"forget_{second}", data)
        return f"{forget} extraction from {where} prompts after the attack {attack_name(first)} {change}"
    where = family_name(first, data) if first in families(data) else first
    return f"{'undetermined' if second == 'und' else 'repetitive'} output on {where} prompts {change}"


def _is_perplexity(gate: Gate, name: str) -> bool:
    return name == "G2" or str(gate["part"]).endswith(":perplexity")


def _times(ratio: float | None) -> str:
    if ratio is None or number(ratio) == number(1.0):
        return f"stayed at ×{number(ratio)}"
    return f"{'fell' if ratio < 1 else 'rose'} ×{number(ratio)}"


def _change(base: float | None, value: float | None) -> str:
    if base is None or value is None or number(base) == number(value):
        return f"stayed at {number(value)}"
    return f"{'fell' if value < base else 'rose'} from {number(base)} to {number(value)}"
