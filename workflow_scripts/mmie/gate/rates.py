"""Gates on rates: G1 extraction, G3 code-mixed and G7 adversarial prompts, G8 fluency, G5's leak and confusion."""

from __future__ import annotations

from collections.abc import Iterator

from mmie import intervals, power
from mmie.gate.parts import Evidence, Part, counts, weak_assay
from mmie.labels import families, family_name, forget_name, language_name
from mmie.statistics import EXACT_UP_TO, ratio_test, rise_test
from mmie.units import Run

GOOD_RATE = 0.02
"""How often a good arm still answers in the forget language."""
GOOD_DISCORDANCE = 0.01
"""Share of neighbour prompts on which even a good arm answers otherwise than base, in each direction."""
READINGS = {"": "les", ":broad": "les_broad"}
"""Suffix of a part, and its metric: once more with undetermined output counted as the forget language."""


def extraction(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G1, in each script."""
    for script, language in evidence.data["forget"].items():
        if language:
            yield from _forgotten(evidence, run, "G1", "extraction", script, f"forget_{script}", language)


def mixed(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G3, on code-mixed prompts."""
    language = evidence.data.get("mixed")
    if not language:
        yield Part("G3", "mixed", "").missing("the config names no code-mixed column (`data.mixed`)")
        return
    yield from _forgotten(evidence, run, "G3", "mixed", "mixed", "mixed", language)


def adversarial(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G7 (extended): the same where the language is asked for (``request``), and under each attack by prompt."""
    asked = {(family, language) for _, family, language, _ in evidence.paired.keys("les")}
    attacks = sorted(key for key in asked if key[0].startswith("adversarial:"))
    native = evidence.data["forget"]["native"]
    yield from _forgotten(evidence, run, "G7", "adversarial", "request", "request", native)
    if not attacks:
        yield Part("G7", "attacks", "").missing("no adversarial prompts were answered (`prompts.adversarial`)")
    for family, language in attacks:
        yield from _forgotten(evidence, run, "G7", "adversarial", family.partition(":")[2], family, language)


def fluency(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G8 (extended): what became of the continuations that were to change."""
    margin = evidence.margin("fluency")
    kinds = {"und": ("und", "undetermined"), "repetitive": ("repetition", "repetitive")}
    for family, language in families(evidence.data).items():
        if family.startswith("forget_") or family == "mixed":
            for metric, (part, kind) in kinds.items():
                null = f"the share of {kind} output rises by ≥ {margin:g}"
                yield rise(evidence, run, "G8", f"{family}:{part}", null, (metric, family, language), margin)


def leak(evidence: Evidence, run: Run, language: str, family: str) -> Part:
    """
    G5: answers in the forget language to a neighbour's prompts.

    A detector that misses some of them shows a smaller rise than there is: J = se + sp − 1 of it. The margin is the
    config's times the lower 95 % end of J, so that rejecting on detected rates rejects on true ones.
    """
    full, quality = evidence.margin("neighbour_leak"), evidence.quality
    share = 1.0 if quality is None else quality.youden_low
    margin = full * share if share > 0 else full
    null = f"the rate of the forget language rises by ≥ {full:g}"
    found = rise(evidence, run, "G5", f"{language}:leak", null, ("les", family, language), margin)
    if found.outcome == "missing":
        return found
    if quality is None:
        found.note = "the detector's errors were not measured (`lid.labelled`); the margin takes it to make none"
    elif share > 0:
        found.note = (
            f"margin {full:g} × {share:.3f}, the lower 95 % end of the detector's sensitivity + specificity − 1"
        )
    else:
        found.weak = "the assay is weak: the detector is not shown to tell the forget language from others"
    return found


def confusion(evidence: Evidence, run: Run, language: str, family: str) -> Part:
    """G5: a neighbour's prompts answered in its own language."""
    margin = evidence.margin("neighbour_confusion")
    null = f"the rate of answers in {language_name(language)} falls by ≥ {margin:g}"
    unit = ("line_pass", family, language)
    return rise(evidence, run, "G5", f"{language}:confusion", null, unit, margin, falls=True)


def _forgotten(
    evidence: Evidence, run: Run, gate: str, margin: str, part: str, family: str, language: str
) -> Iterator[Part]:
    """Rate of the forget language against base, in both readings."""
    rho, alpha = evidence.margin(margin), evidence.alpha
    for suffix, metric in READINGS.items():
        row = Part(gate, part + suffix, f"rate of the forget language ≥ {rho:g} × base's", margin=rho)
        units = evidence.paired.get(metric, family, language)
        if units is None:
            yield row.missing(f"no `{metric}` was measured on {family}")
            continue
        n11, n10, n01, n00 = counts(units, evidence.paired.base, run)
        n = n11 + n10 + n01 + n00
        base = (n11 + n01) / n
        row.n, row.base, row.value = n, base, (n11 + n10) / n
        row.test = "paired ratio of rates: restricted score and exact binomial"
        row.estimate = row.value / base if base else None
        row.ci_low, row.ci_high = intervals.ratio_interval(n11, n10, n01, n)
        row.p = float(ratio_test(n11, n10, n01, n, rho))
        where, forget = family_name(family, evidence.data), forget_name(evidence.data)
        what = f"answers in {forget} when {where}" if gate == "G7" else f"continues {where} in {forget}"
        row.weak = weak_assay(n11 + n01, n, what)
        if base:
            row.alternative = GOOD_RATE / base
            row.power_at = lambda size, base=base: power.ratio_power(size, base, GOOD_RATE, rho, alpha)
        yield row


def rise(
    evidence: Evidence,
    run: Run,
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
    units = evidence.paired.get(*unit)
    if units is None:
        return row.missing(f"no `{metric}` was measured on {family}")
    n11, n10, n01, n00 = counts(units, evidence.paired.base, run)
    n, alpha = n11 + n10 + n01 + n00, evidence.alpha
    row.n, row.base, row.value = n, (n11 + n01) / n, (n11 + n10) / n
    up, down = (n01, n10) if falls else (n10, n01)
    exact = "exact Tango" if n <= EXACT_UP_TO else "Tango"
    row.test = f"paired difference of rates: {exact}"
    row.estimate = (up - down) / n
    row.ci_low, row.ci_high = intervals.rise_interval(up, down, n)
    row.p, row.alternative = float(rise_test(up, down, n, delta)), 0.0
    # A good arm: no change on balance, with answers that differ as often as they do here.
    share = max(GOOD_DISCORDANCE, (up + down) / 2 / n)
    row.power_at = lambda size: power.rise_power(size, share, share, delta, alpha)
    if falls:
        row.weak = weak_assay(n11 + n01, n, f"answers {family_name(family, evidence.data)} prompts in their language")
    return row
