"""
Models whose behaviour is known, at the level of what the tests read: which gates do they pass, and do they PROCEED?

They are drawn in the parts of the default config, as the rule `power` draws a good arm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from mmie.assumptions import Assumptions
from mmie.config import PROJECT
from mmie.labels import CORE
from mmie.power_parts import Part, Plan, Truth, parts, plan_of
from mmie.power_table import PROCEED, largest_p
from mmie.simulation import Area, Change, Pair
from mmie.two_way import SEEDS_FOR_METHOD

ALPHA = 0.05
HARDLY = 1e-6
"""Spread of a change that is not one."""
BASE_REMEMBERS = 0.95
"""AUC of an attack on base."""


def default_plan(**changes: Any) -> Plan:
    """The plan of config.yaml, with changes."""
    config = yaml.safe_load((PROJECT / "config.yaml").read_text(encoding="utf-8"))
    settings = {
        "gate": config["gate"],
        "data": config["data"],
        "canaries": config["canaries"],
        "groups": config["data"]["splits"]["test"],
        "adversarial": config["prompts"]["adversarial"],
        "probe_layers": config["texts"]["probe_layers"],
        "labelled": config["lid"]["labelled"] is not None,
    }
    templates, register = (
        PROJECT / path for path in (config["prompts"]["templates"], config["data"]["second_register"])
    )
    return replace(plan_of(settings, str(templates), [str(register)]), **changes)


def identical(part: Part) -> Truth:
    """Base itself: the same answers, the same losses, and it remembers the canaries."""
    truth = part.truth
    if isinstance(truth, Pair):
        return Pair(truth.base, 1.0, 0.0)
    if isinstance(truth, Area):
        return replace(truth, auc=BASE_REMEMBERS)
    return Change(-_log_margin(part), HARDLY)


def perfect(part: Part) -> Truth:
    """It forgot everything and nothing else changed."""
    truth = part.truth
    if isinstance(truth, Pair):
        return Pair(truth.base, 0.0, 0.0) if part.test == "ratio of rates" else Pair(truth.base, 1.0, 0.0)
    return truth if isinstance(truth, Area) else Change(-_log_margin(part), HARDLY)


def collapsed(part: Part) -> Truth:
    """Debris: never Hindi, never the neighbours' languages, perplexity × 50, all output repetitive, no memory."""
    truth = part.truth
    if isinstance(truth, Pair):
        broken = part.gate == "G8" or part.name.endswith("confusion")
        return Pair(truth.base, 1.0, 1.0) if broken else Pair(truth.base, 0.0, 0.0)
    if isinstance(truth, Area):
        return replace(truth, auc=0.5)
    if part.gate == "G4":
        return replace(truth, mean=truth.mean - 0.5)
    return replace(truth, mean=float(np.log(50)) - _log_margin(part), spread=0.5)


def over_unlearned(part: Part) -> Truth:
    """A good arm that likes its canaries less than what it never saw."""
    return replace(part.truth, auc=0.25) if isinstance(part.truth, Area) else part.truth


def good(part: Part) -> Truth:
    """What the assumptions say."""
    return part.truth


def boundary(part: Part, seeds: int) -> Truth:
    """
    H0 holds, and nothing more: for the checkpoint with fewer seeds than a claim about the method needs, so that its own
    mean is at the margin; and for the method with more, whose seeds lie around the margin.
    """
    truth = part.truth
    if isinstance(truth, Area):
        return replace(truth, auc=0.5 + part.margin)
    if isinstance(truth, Change):
        return replace(truth, mean=0.0, seed_spread=truth.seed_spread if seeds >= SEEDS_FOR_METHOD else 0.0)
    if part.test == "ratio of rates":
        return Pair.independent(truth.base, part.margin * truth.base)
    down = truth.base * (1 - truth.stay)
    return Pair.discordant(truth.base, part.margin + down, down)


MODELS: dict[str, Callable[[Part], Truth]] = {
    "identical": identical,
    "perfect": perfect,
    "collapsed": collapsed,
    "over-unlearned": over_unlearned,
    "good": good,
}


Passes = dict[str, np.ndarray]
"""Per gate, and for PROCEED, whether each simulated experiment passes, [sim]."""


def outcome(
    model: Callable[[Part], Truth],
    groups: int,
    seeds: int,
    sims: int,
    assumed: Assumptions | None = None,
    plan: Plan | None = None,
) -> Passes:
    """Simulate a model in the parts of a plan, by default config.yaml's."""
    found = [replace(part, truth=model(part)) for part in _parts(assumed, plan)]
    return _outcome(found, groups, seeds, sims)


BOUNDARIES = (
    ("G1", "native:broad"), ("G2", "en"), ("G3", "mixed:broad"), ("G4", "each layer × contrast"), ("G5", "mr:leak"),
    ("G5", "mr:perplexity"), ("G5", "mr:confusion"), ("G6", "each attack"),
)  # fmt: skip
"""One part of each kind in the core gates."""


def at_boundary(gate: str, name: str, groups: int, seeds: int, sims: int) -> np.ndarray:
    """Whether a good arm but for one part at its boundary PROCEEDs, wrongly, [sim]."""
    found = [replace(part, alike=1) if (part.gate, part.name) == (gate, name) else part for part in _parts(None, None)]
    chosen = [(part.gate, part.name) == (gate, name) for part in found]
    if sum(chosen) != 1:
        raise ValueError(f"{gate} has no part {name}: {', '.join(part.name for part in found if part.gate == gate)}.")
    found = [
        replace(part, truth=boundary(part, seeds)) if hit else part for part, hit in zip(found, chosen, strict=True)
    ]
    return _outcome(found, groups, seeds, sims)[PROCEED]


def method_at_margin(groups: int, sims: int) -> dict[int, np.ndarray]:
    """Whether G2's first part passes, with one seed and with five, where the method's mean is at the margin."""
    part = next(part for part in _parts(None, None) if part.gate == "G2")
    part = replace(part, truth=replace(part.truth, mean=0.0))
    return {seeds: largest_p([part], groups, seeds, sims) <= ALPHA for seeds in (1, SEEDS_FOR_METHOD)}


def _parts(assumed: Assumptions | None, plan: Plan | None) -> list[Part]:
    return parts(default_plan() if plan is None else plan, assumed or Assumptions())


def _outcome(found: Sequence[Part], groups: int, seeds: int, sims: int) -> Passes:
    passes = {}
    for gate in sorted({part.gate for part in found}):
        of_gate = [part for part in found if part.gate == gate]
        n = of_gate[0].fixed if of_gate[0].units == "members" else groups
        passes[gate] = largest_p(of_gate, n, seeds, sims) <= ALPHA
    return passes | {PROCEED: np.all([passes[gate] for gate in CORE], axis=0)}


def _log_margin(part: Part) -> float:
    """The margin of a mean, on the scale of its changes."""
    return part.margin if part.gate == "G4" else float(np.log(part.margin))


CLAIM = Assumptions(
    base_native=0.95, base_roman=0.95, base_mixed=0.95, base_asked=0.95, good_rate=0.02, good_broad=0.02,
    good_english=1.0, good_neighbour=1.04, good_unseen=1.10, leak_discordance=0.01, pass_discordance=0.01,
    pass_discordance_unseen=0.01, detector=1.0,
)  # fmt: skip
"""The good arm of the claim: LES .95 to .02, English unchanged, neighbours +4 %, Marathi +10 %, no leak on balance."""


def what_it_takes() -> dict[str, Assumptions]:
    """From the claim's good arm to the assumptions as measured, one difference after the other."""
    measured = Assumptions()
    detector = replace(CLAIM, detector=measured.detector)
    trained = replace(detector, pass_discordance=measured.pass_discordance)
    return {
        "the claim: 1 % of neighbour prompts turn in each direction, a detector without error": CLAIM,
        "and the detector's measured error, which shrinks the margin of leaks": detector,
        "and trained neighbours' prompts turn as often as measured (3 %)": trained,
        "and Marathi's as often as measured (14 %), and all else as measured": measured,
    }
