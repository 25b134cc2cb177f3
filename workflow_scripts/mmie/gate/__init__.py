"""
The gates: what each would have to reject, tested part by part on units paired with base.

A gate states what failing would mean (H0) and is passed only by rejecting it. Everything here reads the metrics table,
the detector's measured errors and the settings, nothing else; ``mmie.verdict`` turns the rows into a decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from mmie import tables
from mmie.gate.durability import durability
from mmie.gate.membership import membership
from mmie.gate.over_seeds import method_parts
from mmie.gate.parts import Evidence, Part, judge, row
from mmie.gate.perplexity import perplexity, retained
from mmie.gate.probes import decodability
from mmie.gate.rates import adversarial, confusion, extraction, fluency, leak, mixed
from mmie.two_way import ALL_SEEDS
from mmie.units import Run


def run_tests(metrics: pd.DataFrame, lid_quality: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """
    Rows of ``tables.TESTS`` for every arm but base, from a metrics table in any row order.

    ``settings`` holds the config's ``gate`` and ``data``. A gate without data gets one row with outcome ``missing``.
    Raises ValueError when a run is not paired with base or a value is missing.
    """
    evidence = Evidence(metrics, lid_quality, settings)
    seeds: dict[str, list[int]] = {}
    for arm, seed in evidence.paired.runs:
        seeds.setdefault(arm, []).append(seed)
    rows = []
    for arm in sorted(seeds):
        if arm == "base":
            continue
        for gate in (
            extraction, retained, mixed, decodability, neighbours, membership, adversarial, fluency, durability,
        ):  # fmt: skip
            by_seed = {seed: list(gate(evidence, (arm, seed))) for seed in sorted(seeds[arm])}
            over_seeds = method_parts(by_seed, evidence.alpha)
            # Where the method is tested, its seeds are told as they are and decide nothing.
            described = {part.part for part in over_seeds}
            deciding = len(over_seeds)
            deciding += sum(part.part not in described for parts in by_seed.values() for part in parts)
            for seed, parts in {ALL_SEEDS: over_seeds, **by_seed}.items():
                for part in parts:
                    judge(part, evidence.alpha, deciding)
                    rows.append(row(part, arm, seed))
    return pd.DataFrame(rows, columns=tables.TESTS.names)


def neighbours(evidence: Evidence, run: Run) -> Iterator[Part]:
    """G5: leak, damage and confusion in each neighbour and each unseen language."""
    data = evidence.data
    languages = [(n, f"neighbour_{n}", "neighbour_perplexity") for n in data["neighbours"]]
    languages += [(n, f"unseen_{n}", "unseen_perplexity") for n in data["unseen"]]
    for language, family, damage in languages:
        yield leak(evidence, run, language, family)
        yield perplexity(evidence, run, "G5", f"{language}:perplexity", language, damage)
        yield confusion(evidence, run, language, family)
