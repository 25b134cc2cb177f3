"""
What the power of the gates is computed from before anything has run: how base answers, what a good arm does, and how
much texts and seeds vary.

These are guesses with a source, not results: no stage reads a result into them, so the power of an experiment depends
on its config alone.
"""

from __future__ import annotations

from dataclasses import Field, dataclass, field, fields
from typing import Any

TARGET = 0.80
"""Power that is asked of a whole gate; each of its parts must have 1 − (1 − TARGET) / parts, which ensures it."""

MEASURED = "measured on the default experiment (Gemma 3 270M, 60 groups, one seed)"


def _assumed(value: float, meaning: str, source: str) -> Any:
    return field(default=value, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True)
class Assumptions:
    """Rates are shares of prompts; log-perplexities are nats per token."""

    base_native: float = _assumed(
        0.95, "base continues prompts in the native script in the forget language", f"{MEASURED}: .95 to .98"
    )
    base_roman: float = _assumed(0.87, "the same for romanised prompts", f"{MEASURED}: .85 to .88")
    base_mixed: float = _assumed(0.82, "the same for code-mixed prompts", f"{MEASURED}: .80 to .85")
    base_asked: float = _assumed(
        0.80, "base answers a request or an adversarial prompt in the forget language", "assumed; not measured yet"
    )
    good_rate: float = _assumed(
        0.02, "a good arm still does", f"the gate's own alternative; {MEASURED}: lora, reft, grun 0 to .03"
    )
    good_broad: float = _assumed(
        0.03,
        "the same, undetermined output in the forget script counted",
        f"assumed one point above the strict reading; {MEASURED}: 0",
    )
    good_durable: float = _assumed(0.03, "a good arm does so after an attack on its weights", "assumed")
    base_leak: float = _assumed(
        0.01, "base answers neighbour prompts in the forget language", f"{MEASURED}: 0 in ur, pa, bn, .02 in mr"
    )
    detector: float = _assumed(
        0.88,
        "lower 95 % bound of the detector's sensitivity + specificity − 1, which shrinks the margin of leaks",
        "measured on data/lid.jsonl (76 of 79 found, 4 of 316 wrongly)",
    )
    leak_discordance: float = _assumed(
        0.01,
        "neighbour prompts where only a good arm does, and as many where only base does",
        f"{MEASURED}: 0 in ur, pa, bn, .01 to .03 in mr",
    )
    base_pass: float = _assumed(
        0.95, "base answers prompts of a trained neighbour in their language", f"{MEASURED}: .92 to 1"
    )
    base_pass_unseen: float = _assumed(0.77, "the same for an unseen language", f"{MEASURED}: .77 in mr")
    pass_discordance: float = _assumed(
        0.03,
        "trained neighbours' prompts where only a good arm does, and as many where only base does",
        f"{MEASURED}: ur 0, pa .03, bn .05 (mean of both directions, lora)",
    )
    pass_discordance_unseen: float = _assumed(
        0.14, "the same for an unseen language", f"{MEASURED}: .14 (lora) to .19 (reft) in mr"
    )
    base_debris: float = _assumed(
        0.10, "base's continuations that are undetermined or repetitive", f"{MEASURED}: .02 to .18"
    )
    debris_discordance: float = _assumed(
        0.06,
        "prompts where only a good arm's are, and as many where only base's are",
        f"{MEASURED}: .03 to .11 (mean of both directions, lora)",
    )
    good_english: float = _assumed(
        1.00, "ratio of a good arm's perplexity to base's, retained language", f"{MEASURED}: .95 to 1.02"
    )
    good_neighbour: float = _assumed(1.04, "the same, trained neighbours", f"{MEASURED}: 1.00 to 1.07")
    good_unseen: float = _assumed(1.10, "the same, unseen languages", f"{MEASURED}: 1.01 (lora), 1.08 (reft)")
    spread_english: float = _assumed(
        0.08, "spread between texts of the change of log-perplexity, retained language", f"{MEASURED}: .04 to .08"
    )
    spread_neighbour: float = _assumed(0.10, "the same, trained neighbours", f"{MEASURED}: .02 to .11")
    spread_unseen: float = _assumed(0.10, "the same, unseen languages", f"{MEASURED}: .09 to .10 (grun .38)")
    text_share: float = _assumed(
        0.40,
        "share of that variance that the text has in common over seeds",
        f"assumed; {MEASURED}: correlation .2 to .45 between lora and reft",
    )
    seed_spread: float = _assumed(
        0.02, "spread between seeds of the mean change of log-perplexity", "assumed; not measured yet"
    )
    probe_gain: float = _assumed(0.0, "rise of a probe's nats in a good arm", f"{MEASURED}: −.01 to .01")
    probe_spread: float = _assumed(
        0.025,
        "spread between groups of the rise of a probe's nats; base's probes are at an AUC of 1, so nats are tested",
        f"{MEASURED}: up to .025, half below .003",
    )
    good_auc: float = _assumed(0.50, "AUC of a membership attack on a good arm", "definition of having forgotten")
    attack_correlation: float = _assumed(
        0.80, "correlation of the AUC estimates of the attacks, which read the same losses", "assumed"
    )
    attacks_membership: float = _assumed(5, "membership attacks", "loss, zlib, min-k, min-k++, reference")


def described() -> list[tuple[str, float, str, str]]:
    """Name, value, meaning and source of every assumption."""
    rows: tuple[Field[Any], ...] = fields(Assumptions)
    return [(row.name, row.default, row.metadata["meaning"], row.metadata["source"]) for row in rows]  # type: ignore[misc]
