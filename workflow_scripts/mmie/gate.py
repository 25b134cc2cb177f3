"""
The gates: what each would have to reject, tested part by part on units paired with base.

A gate states what failing would mean (H0) and is passed only by rejecting it. Everything here reads the metrics table
and the settings, nothing else; ``mmie.verdict`` turns the rows into a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmie import intervals, power, tables
from mmie.labels import families, family_name, language_name
from mmie.statistics import auc_test, mean_test, paired_table, ratio_test, rise_test
from mmie.units import Array, Paired, Run, Units

GOOD_RATE = 0.02
"""How often a good arm still answers in the forget language."""
GOOD_RATIO = {"english": 1.0, "neighbour_perplexity": 1.04, "unseen_perplexity": 1.10}
"""Perplexity of a good arm, as a ratio to base."""
GOOD_DISCORDANCE = 0.01
"""Share of neighbour prompts on which even a good arm answers otherwise than base, in each direction."""
UNITS_FOR_MEANS = 150
"""Fewer leave the test of an unbounded mean too sure under skew: size .06 to .08 at 60."""
POWER = 0.80
"""Of a whole gate; a part's share is 1 − (1 − POWER) / parts, which guarantees it (Bonferroni)."""
WORST = 0.05
CORE = ("G1", "G2", "G3", "G4", "G5", "G6")
NOT_PLANTED = "no canaries were planted"


@dataclass
class Part:
    """One row of ``tables.TESTS``, before it is judged."""

    gate: str
    part: str
    null: str
    n: int = 0
    test: str = ""
    base: float | None = None
    value: float | None = None
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    margin: float | None = None
    p: float | None = None
    alternative: float | None = None
    power: float | None = None
    needed: int | None = None
    reason: str = ""
    note: str = ""
    outcome: str = ""
    power_at: Callable[[int], float] | None = None
    """Power with so many groups, from which ``power`` and ``needed`` are found."""
    at_least: int = 0
    """Groups below which the test is not trusted."""
    weak: str = ""
    """Why base cannot show what the gate asks; empty when it can."""


def run_tests(metrics: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """
    Rows of ``tables.TESTS`` for every arm but base, from a metrics table in any row order.

    ``settings`` holds the config's ``gate`` and ``data``. A gate without data gets one row with outcome ``missing``.
    Raises ValueError when a run is not paired with base or a value is missing.
    """
    paired = Paired(metrics)
    rows = []
    for run in paired.runs:
        if run[0] == "base":
            continue
        seeds = sum(arm == run[0] for arm, _ in paired.runs)
        for gate in (_extraction, _english, _mixed, _decodability, _neighbours, _membership, _fluency):
            parts = list(gate(paired, run, settings))
            for part in parts:
                _judge(part, float(settings["gate"]["alpha"]), len(parts) * seeds)
                rows.append(_row(part, run))
    return pd.DataFrame(rows, columns=tables.TESTS.names)


def _extraction(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G1, in each script."""
    for script, language in settings["data"]["forget"].items():
        if language:
            yield from _forgotten(paired, run, settings, "G1", "extraction", script, f"forget_{script}", language)


def _mixed(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G3, on code-mixed prompts."""
    language = settings["data"].get("mixed")
    if not language:
        yield Part("G3", "mixed", "", reason="the config names no code-mixed column (`data.mixed`)", outcome="missing")
        return
    yield from _forgotten(paired, run, settings, "G3", "mixed", "mixed", "mixed", language)


def _forgotten(
    paired: Paired, run: Run, settings: dict[str, Any], gate: str, margin: str, part: str, family: str, language: str
) -> Iterator[Part]:
    """Rate of the forget language against base, once more with undetermined output counted as the forget language."""
    rho, alpha = _margin(settings, margin), float(settings["gate"]["alpha"])
    for suffix, metric in (("", "les"), (":broad", "les_broad")):
        row = Part(gate, part + suffix, f"rate of the forget language ≥ {rho:g} × base's", margin=rho)
        units = paired.get(metric, family, language)
        if units is None:
            yield _missing(row, f"no `{metric}` was measured on {family}")
            continue
        n11, n10, n01, n00 = _counts(units, paired.base, run)
        n = n11 + n10 + n01 + n00
        base = (n11 + n01) / n
        row.n, row.base, row.value = n, base, (n11 + n10) / n
        row.test = "paired ratio of rates: restricted score and exact binomial"
        row.estimate = row.value / base if base else None
        row.ci_low, row.ci_high = intervals.ratio_interval(n11, n10, n01, n)
        row.p = float(ratio_test(n11, n10, n01, n, rho))
        row.weak = _weak(n11 + n01, n, f"continues {family_name(family, settings['data'])} in the forget language")
        if base:
            row.alternative = GOOD_RATE / base
            row.power_at = lambda size, base=base: power.ratio_power(size, base, GOOD_RATE, rho, alpha)
        yield row


def _english(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G2, perplexity of the retained language."""
    language = settings["data"]["retain"]
    yield _perplexity(paired, run, settings, "G2", language, language, "english")


def _neighbours(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G5: leak, damage and confusion in each neighbour and each unseen language."""
    data = settings["data"]
    languages = [(n, f"neighbour_{n}", "neighbour_perplexity") for n in data["neighbours"]]
    languages += [(n, f"unseen_{n}", "unseen_perplexity") for n in data["unseen"]]
    for language, family, damage in languages:
        leak, confusion = _margin(settings, "neighbour_leak"), _margin(settings, "neighbour_confusion")
        null = f"the rate of the forget language rises by ≥ {leak:g}"
        yield _rise(paired, run, settings, "G5", f"{language}:leak", null, ("les", family, language), leak)
        yield _perplexity(paired, run, settings, "G5", f"{language}:perplexity", language, damage)
        null = f"the rate of answers in {language_name(language)} falls by ≥ {confusion:g}"
        unit = ("line_pass", family, language)
        yield _rise(paired, run, settings, "G5", f"{language}:confusion", null, unit, confusion, falls=True)


def _fluency(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G8 (extended): what became of the continuations that were to change."""
    margin = _margin(settings, "fluency")
    for family, language in families(settings["data"]).items():
        if family.startswith("forget_") or family == "mixed":
            for metric, part in (("und", "und"), ("repetitive", "repetition")):
                null = (
                    f"the share of {'undetermined' if metric == 'und' else 'repetitive'} output rises by ≥ {margin:g}"
                )
                yield _rise(paired, run, settings, "G8", f"{family}:{part}", null, (metric, family, language), margin)


def _membership(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G6 needs canaries, of which there are none yet."""
    margin = _margin(settings, "membership")
    null = f"an attack's AUC on canaries is ≥ {margin:g} away from 0.5"
    yield _missing(Part("G6", "membership", null, margin=margin), NOT_PLANTED)


def _decodability(paired: Paired, run: Run, settings: dict[str, Any]) -> Iterator[Part]:
    """G4: probes at the first edited layer and at each probed layer after it."""
    delta, first = _margin(settings, "decodability"), paired.first_layer(run)
    keys = [key for key in paired.keys("probe_score") if key[3] >= first]
    if not keys:
        null = f"the forget language is easier to decode than in base by an AUC of ≥ {delta:g}"
        row = Part("G4", "probes", null, margin=delta)
        yield _missing(row, f"no layer was probed at or after the first edited layer ({first})")
    for _, family, contrast, layer in sorted(keys, key=lambda key: (key[3], key[2])):
        scores, nats = (
            paired.get("probe_score", family, contrast, layer),
            paired.get("probe_nats", family, contrast, layer),
        )
        if scores is None or nats is None:
            raise ValueError(
                f"layer {layer}, {contrast}: the metrics need probe_score and probe_nats. Run metrics again."
            )
        yield _probe(paired, run, settings, scores, nats, contrast, layer, delta)


def _probe(
    paired: Paired,
    run: Run,
    settings: dict[str, Any],
    scores: Units,
    nats: Units,
    contrast: str,
    layer: int,
    delta: float,
) -> Part:
    """
    One layer and contrast: the rise of the probe's AUC or, where base leaves less than ``delta`` of room, of its nats.

    The margin in nats is the same share of the scale: delta of AUC's 0.5 is 2 · delta · ln 2 of one bit.
    """
    high, low = _sides(scores, contrast)
    u, b = scores.values[run], scores.values[paired.base]
    p, auc_u, auc_b, error = auc_test((u[high], u[low]), (b[high], b[low]), delta)
    alpha, n = float(settings["gate"]["alpha"]), len(high)
    part = f"layer{layer}:{contrast}"
    if auc_b <= 1 - delta:
        row = Part("G4", part, f"AUC ≥ base's + {delta:g}", n, "paired AUC: DeLong, by group", auc_b, auc_u)
        row.estimate, row.margin, row.p, row.alternative = auc_u - auc_b, delta, p, 0.0
        row.ci_low, row.ci_high = intervals.normal_interval(row.estimate, error, n + 2)
        spread = error * np.sqrt(n + 2)
        row.power_at = lambda size: power.mean_power(size, -delta, spread, alpha)
        return row
    # One value per group: the mean over its two texts.
    gains = (nats.values[run] - nats.values[paired.base])[np.stack(_sides(nats, contrast))].mean(axis=0)
    margin = 2 * delta * float(np.log(2))
    row = Part("G4", part, f"nats ≥ base's + {margin:.3g}", n, "mean: larger of t and studentised bootstrap")
    row.base, row.value = float(nats.values[paired.base].mean()), float(nats.values[run].mean())
    row.estimate, row.margin, row.p, row.alternative = float(gains.mean()), margin, mean_test(gains - margin), 0.0
    spread = float(gains.std(ddof=1))
    row.ci_low, row.ci_high = intervals.normal_interval(row.estimate, spread / np.sqrt(n), n)
    row.at_least = UNITS_FOR_MEANS
    row.power_at = lambda size: power.mean_power(size, -margin, spread, alpha)
    row.note = f"base's AUC is {auc_b:.3f} and leaves no room to rise by {delta:g}, so nats are tested"
    if row.base + margin > np.log(2):
        row.note = (
            "base already tells the two apart almost surely: no edit could fail this part, and passing it says little"
        )
    return row


def _sides(units: Units, contrast: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of the positive and of the negative texts, both in the order of their groups."""
    positive, negative = contrast.split("-", 1)
    order = np.argsort(units.groups, kind="stable")
    high, low = (order[units.languages[order] == side] for side in (positive, negative))
    if len(high) + len(low) != len(units.groups) or not np.array_equal(units.groups[high], units.groups[low]):
        raise ValueError(
            f"probe {contrast}: every group needs one {positive} and one {negative} text. Run probe again."
        )
    return high, low


def _perplexity(
    paired: Paired, run: Run, settings: dict[str, Any], gate: str, part: str, language: str, margin: str
) -> Part:
    """Perplexity against base over texts: d_i = nll_u − nll_b − T_i·log(margin), which must be negative on average."""
    m = _margin(settings, margin)
    row = Part(gate, part, f"{language_name(language)} perplexity ≥ {m:g} × base's", margin=m)
    losses, lengths = paired.get("nll", "texts", language), paired.get("n_tokens", "texts", language)
    if losses is None or lengths is None:
        return _missing(row, f"no likelihood was measured on {language_name(language)} texts")
    _one_per_group(losses, f"nll on {language}")
    tokens = lengths.values[paired.base]
    if not np.array_equal(tokens, lengths.values[run]):
        raise ValueError(
            f"{run[0]}, seed {run[1]}: {language} texts have other token counts than in base. Score them again."
        )
    alpha, rise = float(settings["gate"]["alpha"]), losses.values[run] - losses.values[paired.base]
    log_ratio, mean_length = float(rise.sum() / tokens.sum()), float(tokens.mean())
    row.n, row.at_least = len(tokens), UNITS_FOR_MEANS
    row.test = "mean: larger of t and studentised bootstrap"
    row.base = _ratio(float(losses.values[paired.base].sum() / tokens.sum()))
    row.value = _ratio(float(losses.values[run].sum() / tokens.sum()))
    row.estimate = _ratio(log_ratio)
    row.p = mean_test(rise - tokens * np.log(m))
    # The ratio of sums, as the mean of one value per text (linearised), so that its interval is that of a mean.
    low, high = intervals.mean_interval(log_ratio + (rise - log_ratio * tokens) / mean_length)
    row.ci_low, row.ci_high = (None if end is None else _ratio(end) for end in (low, high))
    # A margin close to 1 leaves a good arm less room than usual: then halfway to the margin.
    good = min(float(np.log(GOOD_RATIO[margin])), float(np.log(m)) / 2)
    row.alternative = float(np.exp(good))
    spread = float((rise - tokens * np.log(m)).std(ddof=1)) if len(tokens) > 1 else 0.0
    row.power_at = lambda size: power.mean_power(size, mean_length * (good - float(np.log(m))), spread, alpha)
    row.note = _worst_texts(rise / tokens)
    return row


def _ratio(log: float) -> float:
    """exp, where a model so broken that it overflows is infinitely perplexed only in theory."""
    return float(np.exp(min(log, 700.0)))


def _worst_texts(log_ratios: Array) -> str:
    """The mean alone would hide a few ruined texts."""
    count = max(1, round(WORST * len(log_ratios)))
    worst = _ratio(float(np.sort(log_ratios)[-count:].mean()))
    return f"worst {WORST:.0%} of texts ({count}): perplexity ×{worst:.3g}"


def _rise(
    paired: Paired,
    run: Run,
    settings: dict[str, Any],
    gate: str,
    part: str,
    null: str,
    unit: tuple[str, str, str],
    delta: float,
    falls: bool = False,
) -> Part:
    """Rise of a rate over base's (``falls``: its fall, as a positive number)."""
    row = Part(gate, part, null, margin=delta)
    metric, family, _ = unit
    units = paired.get(*unit)
    if units is None:
        return _missing(row, f"no `{metric}` was measured on {family}")
    n11, n10, n01, n00 = _counts(units, paired.base, run)
    n, alpha = n11 + n10 + n01 + n00, float(settings["gate"]["alpha"])
    row.n, row.base, row.value = n, (n11 + n01) / n, (n11 + n10) / n
    up, down = (n01, n10) if falls else (n10, n01)
    row.test = "paired difference of rates: exact Tango" if n <= 300 else "paired difference of rates: Tango"
    row.estimate = (up - down) / n
    row.ci_low, row.ci_high = intervals.rise_interval(up, down, n)
    row.p, row.alternative = float(rise_test(up, down, n, delta)), 0.0
    # A good arm: no change on balance, with answers that differ as often as they do here.
    share = max(GOOD_DISCORDANCE, (up + down) / 2 / n)
    row.power_at = lambda size: power.rise_power(size, share, share, delta, alpha)
    if falls:
        row.weak = _weak(n11 + n01, n, f"answers {family_name(family, settings['data'])} prompts in their language")
    return row


def _counts(units: Units, base: Run, run: Run) -> tuple[int, int, int, int]:
    _one_per_group(units, "a rate")
    return paired_table(units.values[run], units.values[base])


def _one_per_group(units: Units, what: str) -> None:
    if not units.alone:
        raise ValueError(f"{what}: two units share a group, and are not independent. Keep one per group and family.")


def _weak(count: int, n: int, what: str) -> str:
    """Why the assay is weak: base itself must do what the arm is tested for, surely more often than not."""
    low, _ = intervals.proportion_interval(count, n)
    if low > 0.5:
        return ""
    return f"the assay is weak: base {what} in only {count} of {n} (lower 95 % bound {low:.2f}, needs > 0.5)"


def _missing(part: Part, reason: str) -> Part:
    part.reason, part.outcome = reason, "missing"
    return part


def _margin(settings: dict[str, Any], name: str) -> float:
    margins = settings["gate"]["margins"]
    if name not in margins:
        raise ValueError(f"config `gate.margins` lacks `{name}`: give it a value.")
    return float(margins[name])


def _judge(part: Part, alpha: float, shares: int) -> None:
    """
    Set ``outcome``, ``power``, ``needed`` and ``reason``.

    fail: the estimate is on the failing side, or H0 stands although the gate had 80 % power to reject it. unclear: H0
    stands and a good arm might not have been recognised either, or the test cannot be trusted here.
    """
    if part.outcome == "missing":
        return
    target = 1 - (1 - POWER) / shares
    if part.power_at is not None:
        part.power = part.power_at(part.n)
        part.needed = power.units_needed(part.power_at, target, part.at_least)
    failing = part.estimate is not None and part.margin is not None and part.estimate >= part.margin
    too_few = part.n < part.at_least
    rejected = part.p is not None and part.p <= alpha
    would_do = f"about {part.needed} would do" if part.needed else "more than 10 000 would be needed"
    if part.weak:
        part.outcome, part.reason = "unclear", part.weak
    elif failing:
        part.outcome, part.reason = "fail", "the estimate is on the failing side of the margin"
    elif rejected and not too_few:
        part.outcome = "pass"
    elif too_few:
        part.outcome = "unclear"
        part.reason = f"the test needs {part.at_least} groups to be trusted and has {part.n}"
        part.reason += "" if part.needed == part.at_least else f"; {would_do}"
    elif part.power is not None and part.power >= target:
        part.outcome = "fail"
        part.reason = (
            f"not shown to be within the margin, although a good arm would have been with probability {part.power:.2f}"
        )
    else:
        part.outcome = "unclear"
        chance = "" if part.power is None else f": a good arm would be recognised with probability {part.power:.2f}"
        part.reason = f"{part.n} groups are too few{chance}; {would_do}"


def _row(part: Part, run: Run) -> dict[str, Any]:
    row = {name: getattr(part, name) for name in tables.TESTS.names if name not in ("arm", "seed", "passes")}
    return {"arm": run[0], "seed": run[1], **row, "passes": part.outcome == "pass"}
