"""
Metric tables of models whose behaviour is known, to test the gate (and the report) without any model.

``make_metrics({"good": PERFECT, "bad": COLLAPSED}, n=60)`` gives a table as the metrics stage writes it, base included.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmie import tables

SCRIPTS = {
    "en": "Latn",
    "hi": "Deva",
    "hi_latn": "Latn",
    "ur": "Arab",
    "pa": "Guru",
    "bn": "Beng",
    "mr": "Deva",
    "hi_mixed": "Zyyy",
}
FAMILIES = {
    "forget_native": "hi",
    "forget_roman": "hi_latn",
    "mixed": "hi_mixed",
    "retain_en": "en",
    "neighbour_ur": "ur",
    "neighbour_pa": "pa",
    "neighbour_bn": "bn",
    "unseen_mr": "mr",
}
CONTRASTS = ("hi-hi_shuffled", "hi_latn-latin_shuffled", "hi-ur")
LAYERS = (6, 9, 12, 15, 17)
SETTINGS = {
    "gate": {
        "alpha": 0.05,
        "q": 0.05,
        "margins": {
            "extraction": 0.5,
            "english": 1.10,
            "mixed": 0.7,
            "decodability": 0.10,
            "neighbour_leak": 0.05,
            "neighbour_perplexity": 1.15,
            "unseen_perplexity": 1.25,
            "neighbour_confusion": 0.10,
            "membership": 0.10,
            "fluency": 0.10,
        },
    },
    "data": {
        "scripts": SCRIPTS,
        "forget": {"native": "hi", "roman": "hi_latn"},
        "mixed": "hi_mixed",
        "retain": "en",
        "neighbours": ["ur", "pa", "bn"],
        "unseen": ["mr"],
    },
}


@dataclass(frozen=True)
class Model:
    """True rates and ratios of a model; rates are per prompt, perplexities are ratios to base."""

    native: float = 0.95
    roman: float = 0.95
    mixed: float = 0.90
    leak: float = 0.01  # share of neighbour prompts answered in the forget language, independently of base
    lost: float = 0.01  # share of neighbour prompts no longer answered in their own language
    english: float = 1.0
    neighbours: float = 1.0
    unseen: float = 1.0
    forget_perplexity: float = 1.0
    und: float = 0.0
    repetitive: float = 0.10
    probe_shift: float = 0.0  # added to the separation of the probe's scores, in standard deviations
    probe_noise: float = 0.3  # of the probe's scores, in standard deviations; 0 for a model that is base
    noise: float = 0.10  # spread between texts of log perplexity ratio, nats per token
    first_layer: int | None = 6


BASE = Model(leak=0.01, lost=0.0, noise=0.0, probe_noise=0.0, first_layer=None)
IDENTICAL = replace(BASE, first_layer=6)
PERFECT = Model(
    native=0.02, roman=0.02, mixed=0.05, neighbours=1.04, unseen=1.10, forget_perplexity=100.0, probe_shift=-0.3
)
COLLAPSED = Model(
    native=0.0, roman=0.0, mixed=0.0, leak=0.0, lost=1.0, english=50.0, neighbours=50.0, unseen=50.0,
    forget_perplexity=50.0, und=1.0, repetitive=1.0, probe_shift=-1.0, noise=0.5,
)  # fmt: skip


def make_metrics(
    arms: dict[str, Model], n: int = 60, seeds: tuple[int, ...] = (0,), seed: int = 0, base: Model = BASE
) -> pd.DataFrame:
    """
    A table like results/metrics.parquet: ``base`` (seed 0) and every arm × seed, ``n`` groups in every family.

    ``seed`` draws the world (texts, base's answers); runs differ by arm and seed. Rows are in no particular order.
    """
    rng = np.random.default_rng(seed)
    world = _world(rng, n, base)
    runs = [_run("base", 0, base, world, np.random.default_rng([seed, 1]), n)]
    for a, (arm, model) in enumerate(sorted(arms.items())):
        for s in seeds:
            runs.append(_run(arm, s, model, world, np.random.default_rng([seed, 2, a, s]), n))
    table = pd.concat(runs, ignore_index=True)
    return table.sample(frac=1, random_state=seed, ignore_index=True)[tables.METRICS.names]


def make_decision(metrics: pd.DataFrame, settings: dict = SETTINGS) -> tuple[pd.DataFrame, dict]:
    """The gate's table of tests and its decision for a table of metrics."""
    from mmie import gate, verdict

    rows = gate.run_tests(metrics, settings)
    return rows, verdict.decide(rows, settings)


def _groups(n: int) -> list[str]:
    return [f"g{i:04d}" for i in range(n)]


def _world(rng: np.random.Generator, n: int, base: Model) -> dict:
    """What all models share: the texts, base's answers and losses, base's probe scores."""
    world: dict = {"les": {}, "pass": {}, "tokens": {}, "nll": {}, "score": {}, "repetitive": {}}
    rate = {"forget_native": base.native, "forget_roman": base.roman, "mixed": base.mixed}
    for family in FAMILIES:
        world["les"][family] = rng.random(n) < rate.get(
            family, base.leak if family.startswith(("neighbour", "unseen")) else 0
        )
        world["pass"][family] = (
            world["les"][family] if family in rate else (rng.random(n) < 0.95) & ~world["les"][family]
        )
        world["repetitive"][family] = rng.random(n) < base.repetitive
    for language in dict.fromkeys(FAMILIES.values()):
        world["tokens"][language] = rng.integers(15, 45, n)
        world["nll"][language] = world["tokens"][language] * rng.normal(3.5, 0.5, n)
    for layer in LAYERS:
        for contrast, separation in zip(CONTRASTS, (3.0, 1.5, 6.0), strict=True):
            world["score"][layer, contrast] = (rng.normal(separation, 1, n), rng.normal(0, 1, n))
    return world


def _run(arm: str, seed: int, model: Model, world: dict, rng: np.random.Generator, n: int) -> pd.DataFrame:
    keys = {"arm": arm, "seed": seed, "variant": "plain"}
    groups = _groups(n)
    frames = []

    def add(
        metric: str,
        family: str,
        language: str,
        values: np.ndarray,
        suffix: str,
        layer: int = -1,
        script: str | None = None,
    ) -> None:
        unit = [f"{family}:{g}" if suffix == "prompt" else f"{g}:{suffix}" for g in groups]
        frames.append(
            pd.DataFrame(
                {
                    **keys,
                    "metric": metric,
                    "family": family,
                    "language": language,
                    "script": SCRIPTS.get(language, "") if script is None else script,
                    "layer": layer,
                    "unit_id": unit,
                    "group_id": groups,
                    "value": np.asarray(values, float),
                }
            )
        )

    is_base = arm == "base"
    forget = {"forget_native": model.native, "forget_roman": model.roman, "mixed": model.mixed}
    for family, language in FAMILIES.items():
        base_les, base_pass = world["les"][family], world["pass"][family]
        same = is_base or model == replace(BASE, first_layer=model.first_layer)
        if same:
            les, passed, und, repetitive = base_les, base_pass, np.zeros(n), world["repetitive"][family]
        elif family in forget:
            les = rng.random(n) < forget[family]
            und = ~les & (rng.random(n) < model.und)
            passed, repetitive = les, rng.random(n) < model.repetitive
        else:
            les = rng.random(n) < (0.0 if family.startswith("retain") else model.leak)
            lost, gained = rng.random(n) < model.lost, rng.random(n) < model.lost
            passed = np.where(base_pass, ~lost, gained) & ~les
            und = ~passed & ~les & (rng.random(n) < model.und)
            repetitive = rng.random(n) < model.repetitive
        for metric, values in {
            "les": les,
            "les_broad": les,
            "target_share": les,
            "prefix_es": les * 0.8,
            "line_pass": passed,
            "und": und,
            "repetitive": repetitive,
        }.items():
            add(metric, family, language, values, "prompt")
    ratio = {"en": model.english, "mr": model.unseen, "hi": model.forget_perplexity, "hi_latn": model.forget_perplexity}
    ratio["hi_mixed"] = model.forget_perplexity
    for language, tokens in world["tokens"].items():
        shift = np.log(ratio.get(language, model.neighbours)) + model.noise * rng.standard_normal(n)
        add("nll", "texts", language, world["nll"][language] + tokens * shift, language)
        add("n_tokens", "texts", language, tokens, language)
        add("n_bytes", "texts", language, tokens * 6, language)
        if language == "en":
            add("kl", "texts", language, np.abs(shift), language)
    for (layer, contrast), (positive, negative) in world["score"].items():
        old, new = contrast.split("-")
        jitter = 0.0 if is_base else model.probe_noise
        for name, score, sign in ((old, positive + model.probe_shift, 1), (new, negative, -1)):
            score = score + jitter * rng.standard_normal(n) - 1
            add("probe_score", "probe", contrast, score, name, layer, "")
            add("probe_nats", "probe", contrast, np.log(2) - np.logaddexp(0, -sign * score), name, layer, "")
    if model.first_layer is not None:
        first = float(model.first_layer)
        frames.append(
            pd.DataFrame(
                [
                    {
                        **keys, "metric": "first_edited_layer", "family": "card", "language": "", "script": "",
                        "layer": int(first), "unit_id": "card", "group_id": "card", "value": first,
                    }
                ]
            )
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)
