"""
The parts of every gate as an experiment's config has them, each with its power: before anything is trained.

A part knows its test, how many units the config gives it, what a good arm does there, and how to draw p-values of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from mmie import power
from mmie.assumptions import Assumptions
from mmie.probes import contrasts
from mmie.register import register_rows
from mmie.simulation import Area, Change, Moments, Pair
from mmie.statistics import ratio_test, rise_test
from mmie.templates import read_templates
from mmie.two_way import SEEDS_FOR_METHOD

Array = npt.NDArray[np.float64]

Truth = Pair | Change | Area

UNITS_FOR_MEANS = 150
"""Texts below which the gate trusts no test of a mean."""


@dataclass(frozen=True)
class Part:
    """One part of a gate, or several that are alike."""

    gate: str
    name: str
    test: str
    margin: float
    good: float
    """The tested quantity in a good arm."""
    lowest: float
    """Where a search for the largest detectable value starts."""
    power: Callable[[int, float], float]
    """Probability to pass with so many units at such a value of the tested quantity, for one seed."""
    truth: Truth
    """What a good arm does."""
    judge: Callable[[Any, int], Array]
    """P-values from what ``truth`` draws and the number of units, [sim]: the largest over seeds, or the method's."""
    units: str = "groups"
    fixed: int | None = None
    """Units where they do not grow with the held-out groups."""
    at_least: int = 0
    alike: int = 1
    together: bool = False
    """All that are alike are drawn at once, because they depend on each other."""

    def draw(self, rng: np.random.Generator, sims: int, n: int, seeds: int) -> Array:
        """P-values of ``sims`` experiments with ``n`` units, [sim]; 1 where the gate does not trust so few."""
        return self.judge(self.truth.draw(rng, sims, n, seeds), n) if n >= self.at_least else np.ones(sims)

    def chance(self, n: int, value: float) -> float:
        """Probability to pass, as `power`; 0 with fewer units than the gate trusts."""
        return self.power(n, value) if n >= self.at_least else 0.0


@dataclass(frozen=True)
class Plan:
    """What the config says, as far as the power depends on it."""

    gate: dict[str, Any]
    data: dict[str, Any]
    probe_layers: int
    contrasts: int
    adversarial: int
    attacks: tuple[str, ...]
    register_texts: int
    labelled: bool
    """The detector's errors are measured, and shrink the margin of leaks."""
    members: int
    nonmembers: int

    def margin(self, name: str) -> float:
        """A margin of config ``gate.margins``."""
        return float(self.gate["margins"][name])

    @property
    def alpha(self) -> float:
        """Level of every test."""
        return float(self.gate["alpha"])

    @property
    def scripts(self) -> list[str]:
        """Keys of ``data.forget`` that name a column."""
        return [script for script, language in self.data["forget"].items() if language]


def plan_of(settings: dict[str, Any], templates: str, register: Sequence[str]) -> Plan:
    """
    The plan of an experiment: from the config, the attacks of the file ``templates``, and the held-out texts of the
    file ``register``, if there is one.

    ``settings`` holds the config's ``gate``, ``data`` and ``canaries``, ``groups``, ``adversarial`` (prompts per
    attack), ``probe_layers`` and whether there are ``labelled`` texts.
    """
    data = settings["data"]
    held_out = [row for path in register for row in register_rows(path, data) if row["split"] == "test"]
    return Plan(
        gate=settings["gate"],
        data=data,
        probe_layers=len(settings["probe_layers"]),
        contrasts=len(contrasts(data)),
        adversarial=min(settings["adversarial"], settings["groups"]),
        attacks=tuple(read_templates(templates, data).adversarial),
        register_texts=len(held_out),
        labelled=settings["labelled"],
        members=settings["canaries"]["members"],
        nonmembers=settings["canaries"]["nonmembers"],
    )


def parts(plan: Plan, assumed: Assumptions) -> list[Part]:
    """Every part of every gate, in the order of the gates."""
    found = [*_extraction(plan, assumed), *_english(plan, assumed), *_probes(plan, assumed)]
    found += [*_neighbours(plan, assumed), *_membership(plan, assumed), *_asked(plan, assumed)]
    found += [*_fluency(plan, assumed), *_durability(plan, assumed)]
    return sorted(found, key=lambda part: part.gate)


def _extraction(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    base = {"native": assumed.base_native, "roman": assumed.base_roman}
    families = [("G1", script, base.get(script, assumed.base_native), "extraction") for script in plan.scripts]
    if plan.data.get("mixed"):
        families.append(("G3", "mixed", assumed.base_mixed, "mixed"))
    for gate, name, rate, margin in families:
        yield _ratio(plan, gate, name, rate, assumed.good_rate, margin)
        yield _ratio(plan, gate, f"{name}:broad", rate, assumed.good_broad, margin)


def _english(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    retain = plan.data["retain"]
    settings = (assumed.good_english, assumed.spread_english)
    yield _perplexity(plan, assumed, "G2", retain, "english", *settings)
    if plan.register_texts:
        yield _perplexity(
            plan, assumed, "G2", f"{retain}2", "english", *settings, units="texts", fixed=plan.register_texts
        )


def _probes(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    margin = 2 * plan.margin("decodability") * float(np.log(2))
    yield Part(
        "G4", "each layer × contrast", "mean of nats", margin, assumed.probe_gain, -margin,
        power=lambda n, gain: power.mean_power(n, gain - margin, assumed.probe_spread, plan.alpha),
        truth=Change(assumed.probe_gain - margin, assumed.probe_spread, assumed.text_share), judge=_means,
        at_least=UNITS_FOR_MEANS, alike=plan.probe_layers * plan.contrasts,
    )  # fmt: skip


def _neighbours(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    seen = (assumed.good_neighbour, assumed.spread_neighbour, assumed.base_pass, assumed.pass_discordance)
    unseen = (assumed.good_unseen, assumed.spread_unseen, assumed.base_pass_unseen, assumed.pass_discordance_unseen)
    languages = [(code, "neighbour_perplexity", *seen) for code in plan.data["neighbours"]]
    languages += [(code, "unseen_perplexity", *unseen) for code in plan.data["unseen"]]
    for code, damage, ratio, spread, base, discordance in languages:
        leak, shrink = (assumed.base_leak, assumed.leak_discordance), assumed.detector if plan.labelled else 1.0
        yield _rise(plan, "G5", f"{code}:leak", plan.margin("neighbour_leak") * shrink, *leak)
        yield _perplexity(plan, assumed, "G5", f"{code}:perplexity", damage, ratio, spread)
        # A fall of passes is a rise of failures.
        yield _rise(plan, "G5", f"{code}:confusion", plan.margin("neighbour_confusion"), 1 - base, discordance)


def _membership(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    if not plan.members:
        return
    margin, strata, alpha = plan.margin("membership"), len(plan.scripts), plan.alpha
    attacks = int(assumed.attacks_membership)
    truth = Area(assumed.good_auc, attacks, assumed.attack_correlation, plan.nonmembers / plan.members, strata)

    def area_power(members: int, away: float) -> float:
        df, error = members - strata, truth.error(members)
        half, shift = margin / error - stdtrit(df, 1 - alpha), away / error
        return float(max(0.0, stdtr(df, half - shift) - stdtr(df, -half - shift)))

    def judge(aucs: Array, members: int) -> Array:
        p = stdtr(members - strata, (np.abs(aucs.mean(axis=2) - 0.5) - margin) / truth.error(members))
        # The gate does not pass where the average hides that one script is beyond the margin.
        beyond = (np.abs(aucs - 0.5) >= margin).any(axis=2)
        return np.where(beyond, 1.0, p).max(axis=1)

    yield Part(
        "G6", "each attack", "AUC: two one-sided tests", margin, abs(assumed.good_auc - 0.5), 0.0,
        power=area_power, truth=truth, judge=judge,
        units="members", fixed=plan.members, alike=attacks, together=True,
    )  # fmt: skip


def _asked(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    yield _ratio(plan, "G7", "request", assumed.base_asked, assumed.good_rate, "adversarial")
    if plan.adversarial and plan.attacks:
        yield _ratio(
            plan, "G7", "each attack", assumed.base_asked, assumed.good_rate, "adversarial",
            units="prompts", fixed=plan.adversarial, alike=len(plan.attacks),
        )  # fmt: skip


def _fluency(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    families = len(plan.scripts) + bool(plan.data.get("mixed"))
    margin, base, discordance = plan.margin("fluency"), assumed.base_debris, assumed.debris_discordance
    yield _rise(plan, "G8", "each family: und, repetition", margin, base, discordance, alike=2 * families)


def _durability(plan: Plan, assumed: Assumptions) -> Iterator[Part]:
    base = {"native": assumed.base_native, "roman": assumed.base_roman}
    for script in plan.scripts:
        rate = base.get(script, assumed.base_native)
        yield _ratio(plan, "G9", f"{script}, an attack", rate, assumed.good_durable, "durability")


def _ratio(plan: Plan, gate: str, name: str, base: float, arm: float, margin: str, **more: Any) -> Part:
    rho, alpha = plan.margin(margin), plan.alpha
    return Part(
        gate, name, "ratio of rates", rho, arm / base, 0.0,
        power=lambda n, ratio: power.ratio_power(n, base, ratio * base, rho, alpha),
        truth=Pair.independent(base, arm),
        judge=lambda counts, n: ratio_test(counts[0], counts[1], counts[2], n, rho).max(axis=1), **more,
    )  # fmt: skip


def _rise(plan: Plan, gate: str, name: str, delta: float, base: float, discordance: float, **more: Any) -> Part:
    alpha = plan.alpha
    return Part(
        gate, name, "difference of rates", delta, 0.0, -discordance,
        power=lambda n, rise: power.rise_power(n, max(0.0, discordance + rise), discordance, delta, alpha),
        truth=Pair.discordant(base, discordance, discordance),
        judge=lambda counts, n: rise_test(counts[1], counts[2], n, delta).max(axis=1), **more,
    )  # fmt: skip


def _perplexity(
    plan: Plan, assumed: Assumptions, gate: str, name: str, margin: str, ratio: float, spread: float, **more: Any
) -> Part:
    m = plan.margin(margin)
    # A margin close to 1 leaves a good arm less room than usual: then halfway to the margin, as in the gate.
    good = min(float(np.log(ratio)), float(np.log(m)) / 2)
    return Part(
        gate, name, "mean of log-perplexity", m, float(np.exp(good)), 0.5,
        power=lambda n, value: power.mean_power(n, float(np.log(value / m)), spread, plan.alpha),
        truth=Change(good - float(np.log(m)), spread, assumed.text_share, assumed.seed_spread), judge=_means,
        at_least=UNITS_FOR_MEANS, **more,
    )  # fmt: skip


def _means(moments: Moments, n: int) -> Array:
    """The t test alone: the gate's p is the larger of it and a bootstrap that differs little for normal changes."""
    seeds = moments.means.shape[1]
    return moments.two_way_tests if seeds >= SEEDS_FOR_METHOD else moments.t_tests.max(axis=1)
