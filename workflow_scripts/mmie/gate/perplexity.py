"""Gates on perplexity: G2 in the retained language, in every register measured, and G5's damage to the neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mmie import intervals, power
from mmie.gate.parts import UNITS_FOR_MEANS, Contrast, Evidence, Part, bounded_exp, one_per_group
from mmie.labels import language_name, second_register
from mmie.statistics import mean_test
from mmie.units import Array, Run

GOOD_RATIO = {"english": 1.0, "neighbour_perplexity": 1.04, "unseen_perplexity": 1.10}
"""Perplexity of a good arm, as a ratio to base, by margin."""
WORST = 0.05
"""Share of texts whose damage is told beside the mean's."""


def retained(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G2: texts of the retained language in the corpus's register and, where the config has one, in another."""
    for language in (evidence.data["retain"], second_register(evidence.data)):
        if language:
            yield perplexity(evidence, run, "G2", language, language, "english")


def perplexity(evidence: Evidence, run: Run, gate: str, part: str, language: str, margin: str) -> Part:
    """Perplexity against base over texts: d_i = nll_u − nll_b − T_i·log(margin), which must be negative on average."""
    m, paired = evidence.margin(margin), evidence.paired
    row = Part(gate, part, f"{language_name(language)} perplexity ≥ {m:g} × base's", margin=m)
    losses, lengths = paired.get("nll", "texts", language), paired.get("n_tokens", "texts", language)
    if losses is None or lengths is None:
        return row.missing(f"no likelihood was measured on {language_name(language)} texts")
    one_per_group(losses, f"nll on {language}")
    tokens = lengths.values[paired.base]
    if not np.array_equal(tokens, lengths.values[run]):
        raise ValueError(
            f"{run[0]}, seed {run[1]}: {language} texts have other token counts than in base. Score them again."
        )
    rise = losses.values[run] - losses.values[paired.base]
    log_ratio, mean_length, log_m = float(rise.sum() / tokens.sum()), float(tokens.mean()), float(np.log(m))
    # A margin close to 1 leaves a good arm less room than usual: then halfway to the margin.
    good = min(float(np.log(GOOD_RATIO[margin])), log_m / 2)
    values = rise - tokens * log_m
    row.contrast = Contrast(values, mean_length * (good - log_m), log_m, mean_length, ratio=True)
    row.n, row.at_least = len(tokens), UNITS_FOR_MEANS
    row.test = "mean: larger of t and studentised bootstrap"
    row.base = bounded_exp(float(losses.values[paired.base].sum() / tokens.sum()))
    row.value = bounded_exp(float(losses.values[run].sum() / tokens.sum()))
    row.estimate, row.alternative = bounded_exp(log_ratio), float(np.exp(good))
    row.p = mean_test(values)
    # The ratio of sums, as the mean of one value per text (linearised), so that its interval is that of a mean.
    low, high = intervals.mean_interval(log_ratio + (rise - log_ratio * tokens) / mean_length)
    row.ci_low, row.ci_high = (None if end is None else bounded_exp(end) for end in (low, high))
    spread, alpha = float(values.std(ddof=1)) if len(values) > 1 else 0.0, evidence.alpha
    row.power_at = lambda size: power.mean_power(size, mean_length * (good - log_m), spread, alpha)
    row.note = _worst_texts(rise / tokens)
    return row


def _worst_texts(log_ratios: Array) -> str:
    """The mean alone would hide a few ruined texts."""
    count = max(1, round(WORST * len(log_ratios)))
    worst = bounded_exp(float(np.sort(log_ratios)[-count:].mean()))
    return f"worst {WORST:.0%} of texts ({count}): perplexity ×{worst:.3g}"
