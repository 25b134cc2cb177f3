"""G9 (extended): does the edit survive what was done to the edited model afterwards?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmie import intervals, power
from mmie.gate.parts import Evidence, Part, bounded_exp, counts, weak_assay
from mmie.gate.rates import GOOD_RATE
from mmie.labels import family_name, forget_name, language_name
from mmie.statistics import ratio_test
from mmie.units import Run

NO_ATTACKS = "no attacks were run"


def durability(evidence: Evidence, run: Run) -> Iterator[Part]:
    """
    A part per attack and script: recovery, the attacked model's rate (u_a) between the arm's (u) and base's (b).

    H0 is E[u_a] ≥ (1 − r)·E[u] + r·E[b]. Since E[u] ≥ 0, rejecting E[u_a] ≥ r·E[b] rejects it too: the test of a ratio
    of rates is valid here, exactly as strict where u is 0 and stricter elsewhere.
    """
    r = evidence.margin("durability")
    null = f"an attack brings back ≥ {r:g} of the forget language"
    if not evidence.attacked:
        yield Part("G9", "attacks", null, margin=r).missing(NO_ATTACKS)
    for variant in evidence.attacked:
        for script, language in evidence.data["forget"].items():
            if language:
                yield _recovery(evidence, run, variant, script, language, Part("G9", f"{variant}:{script}", null))


def _recovery(evidence: Evidence, run: Run, variant: str, script: str, language: str, row: Part) -> Part:
    r, alpha, family = evidence.margin("durability"), evidence.alpha, f"forget_{script}"
    row.margin = r
    attacked = evidence.attacked[variant]
    after, before = attacked.get("les", family, language), evidence.paired.get("les", family, language)
    if after is None or before is None or run not in after.values:
        return row.missing(f"the attack `{variant}` was not run on this arm and seed")
    n11, n10, n01, n00 = counts(after, attacked.base, run)
    n = n11 + n10 + n01 + n00
    row.n, row.base, row.value = n, (n11 + n01) / n, (n11 + n10) / n
    row.test = "paired ratio of rates: restricted score and exact binomial"
    row.estimate = row.value / row.base if row.base else None
    row.ci_low, row.ci_high = intervals.ratio_interval(n11, n10, n01, n)
    row.p = float(ratio_test(n11, n10, n01, n, r))
    row.weak = weak_assay(
        n11 + n01, n, f"continues {family_name(family, evidence.data)} in {forget_name(evidence.data)}"
    )
    if not row.base:
        return row
    # The test asks for more than H0 where the arm itself still answers: only H0's own quantity says that it fails.
    arm = float(before.values[run].mean())
    recovery = float(np.clip((row.value - arm) / (row.base - arm), 0, 1)) if row.base > arm else 1.0
    row.failing = recovery >= r
    # What an attack destroys brings nothing back: that is no durability. What comes back all the same has failed.
    if not row.failing and not row.weak:
        row.weak = _destroyed(evidence, run, variant)
    row.note = f"recovery {recovery:.3f}, from {arm:.3f} before the attack"
    # An edit that survives answers as often as before the attack, and no arm is expected to answer never.
    base, good = row.base, max(GOOD_RATE, arm)
    row.alternative = good / base
    row.power_at = lambda size: power.ratio_power(size, base, good, r, alpha)
    return row


def _destroyed(evidence: Evidence, run: Run, variant: str) -> str:
    """
    Why the attacked model is not shown to be a model still; empty when it is.

    The retained language's perplexity, against the same arm before the attack, may rise by the margin `attack_damage`:
    the upper 95 % bound counts, and below 50 texts, where there is none, the ratio itself.
    """
    limit, retain = evidence.margin("attack_damage"), evidence.data["retain"]
    after, before = evidence.attacked[variant].get("nll", "texts", retain), evidence.paired.get("nll", "texts", retain)
    lengths = evidence.paired.get("n_tokens", "texts", retain)
    name = language_name(retain)
    if after is None or before is None or lengths is None:
        return f"what the attack does to {name} was not measured, and a destroyed model brings nothing back"
    tokens, rise = lengths.values[run], after.values[run] - before.values[run]
    log_ratio, mean_length = float(rise.sum() / tokens.sum()), float(tokens.mean())
    _, high = intervals.mean_interval(log_ratio + (rise - log_ratio * tokens) / mean_length)
    worst = bounded_exp(log_ratio if high is None else high)
    if worst < limit:
        return ""
    return (
        f"the attack itself may destroy the model: {name} perplexity ×{bounded_exp(log_ratio):.2g} (upper 95 % bound "
        f"×{worst:.2g}, margin {limit:g}), and a destroyed model brings nothing back"
    )
