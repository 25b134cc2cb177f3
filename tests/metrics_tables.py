"""
Metric tables of models whose behaviour is known, to test the gate (and the report) without any model.

``make_metrics({"good": PERFECT, "bad": COLLAPSED}, n=60)`` gives a table as the metrics stage writes it, base included;
``make_decision`` what the gate makes of it.
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
ATTACKS = {
    "few_shot": "hi",
    "translation": "hi",
    "transliteration": "hi_latn",
    "neighbour_pivot": "hi",
    "prefix": "hi",
    "meta": "hi",
    "spelling": "hi_latn",
    "persona": "hi",
}
ADVERSARIAL = 25  # prompts per attack
FAMILIES = {
    "forget_native": "hi",
    "forget_roman": "hi_latn",
    "mixed": "hi_mixed",
    "retain_en": "en",
    "neighbour_ur": "ur",
    "neighbour_pa": "pa",
    "neighbour_bn": "bn",
    "unseen_mr": "mr",
    "request": "hi",
    **{f"adversarial:{attack}": language for attack, language in ATTACKS.items()},
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
            "adversarial": 0.7,
            "durability": 0.10,
            "attack_damage": 2.0,
        },
    },
    "data": {
        "scripts": SCRIPTS,
        "forget": {"native": "hi", "roman": "hi_latn"},
        "mixed": "hi_mixed",
        "retain": "en",
        "neighbours": ["ur", "pa", "bn"],
        "unseen": ["mr"],
        "second_register": "data/en2.jsonl",
    },
}
NO_QUALITY = tables.LID_QUALITY.empty_table().to_pandas()


@dataclass(frozen=True)
class Model:
    """True rates and ratios of a model; rates are per prompt, perplexities are ratios to base."""

    native: float = 0.95
    roman: float = 0.95
    mixed: float = 0.90
    asked: float = 0.95  # answers in the forget language where it is asked for, by request or by attack
    leak: float = 0.01  # share of neighbour prompts answered in the forget language, independently of base
    lost: float = 0.01  # share of neighbour prompts no longer answered in their own language
    english: float = 1.0
    register: float = 1.0  # perplexity ratio in the second register of English
    neighbours: float = 1.0
    unseen: float = 1.0
    forget_perplexity: float = 1.0
    und: float = 0.0
    repetitive: float = 0.10
    probe_shift: float = 0.0  # added to the separation of the probe's scores, in standard deviations
    probe_noise: float = 0.3  # of the probe's scores, in standard deviations; 0 for a model that is base
    noise: float = 0.10  # spread between texts of log perplexity ratio, nats per token
    first_layer: int | None = 6
    member_shift: tuple[float, float] = (3.0, 3.0)  # scores of members over those of non-members, per script, in sd
    seed_spread: float = 0.0  # spread between seeds of log perplexity ratio
    after: tuple[tuple[str, float], ...] = ()  # attacks on the edited model: (variant, rate of the forget language)


BASE = Model(leak=0.01, lost=0.0, noise=0.0, probe_noise=0.0, first_layer=None)
IDENTICAL = replace(BASE, first_layer=6)
PERFECT = Model(
    native=0.02, roman=0.02, mixed=0.05, asked=0.02, neighbours=1.04, unseen=1.10, forget_perplexity=100.0,
    probe_shift=-0.3, member_shift=(0.0, 0.0),
)  # fmt: skip
COLLAPSED = Model(
    native=0.0, roman=0.0, mixed=0.0, asked=0.0, leak=0.0, lost=1.0, english=50.0, register=50.0, neighbours=50.0,
    unseen=50.0, forget_perplexity=50.0, und=1.0, repetitive=1.0, probe_shift=-1.0, noise=0.5, member_shift=(0.0, 0.0),
)  # fmt: skip


def make_metrics(
    arms: dict[str, Model],
    n: int = 60,
    seeds: tuple[int, ...] = (0,),
    seed: int = 0,
    base: Model = BASE,
    members: int = 200,
) -> pd.DataFrame:
    """
    A table like results/metrics.parquet: ``base`` (seed 0) and every arm × seed, ``n`` groups in every family.

    ``members`` canaries and three times as many non-members, half in each script; 0 for none. ``seed`` draws the world
    (texts, base's answers); runs differ by arm and seed. Rows are in no particular order.
    """
    world = _world(np.random.default_rng(seed), n, base, members)
    runs = [_run("base", 0, base, world, np.random.default_rng([seed, 1]))]
    for a, (arm, model) in enumerate(sorted(arms.items())):
        for s in seeds:
            runs.append(_run(arm, s, model, world, np.random.default_rng([seed, 2, a, s])))
            for v, (variant, rate) in enumerate(model.after):
                attacked = replace(model, native=rate, roman=rate, mixed=rate)
                rng = np.random.default_rng([seed, 3, a, s, v])
                runs.append(_run(arm, s, attacked, world, rng).assign(variant=variant))
    table = pd.concat(runs, ignore_index=True)
    return table.sample(frac=1, random_state=seed, ignore_index=True)[tables.METRICS.names]


def make_quality(sensitivity: float = 0.95, specificity: float = 0.99, n: int = 200) -> pd.DataFrame:
    """A table of the detector's errors, with ``n`` texts of the forget language and three times as many others."""
    row = dict.fromkeys(tables.LID_QUALITY.names, 0.0)
    row |= {"label": "forget", "half": "measure", "kind": "text", "positives": n, "hits": round(sensitivity * n)}
    row |= {"negatives": 3 * n, "false_alarms": round((1 - specificity) * 3 * n)}
    return pd.DataFrame([row, {**row, "label": "en"}, {**row, "half": "tune"}])


def make_decision(
    metrics: pd.DataFrame, settings: dict = SETTINGS, lid_quality: pd.DataFrame = NO_QUALITY
) -> tuple[pd.DataFrame, dict]:
    """The gate's table of tests and its decision for a table of metrics."""
    from mmie import gate, verdict

    rows = gate.run_tests(metrics, lid_quality, settings)
    return rows, verdict.decide(rows, settings)


def _groups(n: int, what: str = "g") -> list[str]:
    return [f"{what}{i:04d}" for i in range(n)]


def _speaks(family: str) -> str:
    """The field of ``Model`` with the family's rate of the forget language; empty where it should not be spoken."""
    asked = family == "request" or family.startswith("adversarial")
    return {"forget_native": "native", "forget_roman": "roman", "mixed": "mixed"}.get(family, "asked" if asked else "")


def _world(rng: np.random.Generator, n: int, base: Model, members: int) -> dict:
    """What all models share: the texts, base's answers and losses, base's probe scores, the canaries."""
    world: dict = {
        "n": n,
        "les": {},
        "pass": {},
        "tokens": {},
        "nll": {},
        "score": {},
        "repetitive": {},
        "canaries": {},
    }
    for family in FAMILIES:
        size = min(n, ADVERSARIAL) if family.startswith("adversarial") else n
        rate = getattr(base, _speaks(family)) if _speaks(family) else 0 if family.startswith("retain") else base.leak
        les = rng.random(size) < rate
        world["les"][family] = les
        world["pass"][family] = les if _speaks(family) else (rng.random(size) < 0.95) & ~les
        world["repetitive"][family] = rng.random(size) < base.repetitive
    for language in dict.fromkeys([*SCRIPTS, "en2"]):
        world["tokens"][language] = rng.integers(15, 45, n)
        world["nll"][language] = world["tokens"][language] * rng.normal(3.5, 0.5, n)
    for layer in LAYERS:
        for contrast, separation in zip(CONTRASTS, (3.0, 1.5, 6.0), strict=True):
            world["score"][layer, contrast] = (rng.normal(separation, 1, n), rng.normal(0, 1, n))
    for language in ("hi", "hi_latn"):
        world["canaries"][language] = (rng.normal(size=members // 2), rng.normal(size=3 * members // 2))
    return world


def _run(arm: str, seed: int, model: Model, world: dict, rng: np.random.Generator) -> pd.DataFrame:
    keys = {"arm": arm, "seed": seed, "variant": "plain"}
    n, frames, is_base = world["n"], [], arm == "base"

    def add(metric, family, language, values, units, groups, layer=-1, script=None) -> None:
        script = SCRIPTS.get(language, "Latn" if language == "en2" else "") if script is None else script
        columns = {"metric": metric, "family": family, "language": language, "script": script, "layer": layer}
        columns |= {"unit_id": units, "group_id": groups, "value": np.asarray(values, float)}
        frames.append(pd.DataFrame({**keys, **columns}))

    same = is_base or model == replace(BASE, first_layer=model.first_layer)
    for family, language in FAMILIES.items():
        base_les, base_pass = world["les"][family], world["pass"][family]
        size = len(base_les)
        if same:
            les, passed, und, repetitive = base_les, base_pass, np.zeros(size), world["repetitive"][family]
        elif _speaks(family):
            les = rng.random(size) < getattr(model, _speaks(family))
            und = ~les & (rng.random(size) < model.und)
            passed, repetitive = les, rng.random(size) < model.repetitive
        else:
            les = rng.random(size) < (0.0 if family.startswith("retain") else model.leak)
            lost, gained = rng.random(size) < model.lost, rng.random(size) < model.lost
            passed = np.where(base_pass, ~lost, gained) & ~les
            und = ~passed & ~les & (rng.random(size) < model.und)
            repetitive = rng.random(size) < model.repetitive
        groups = _groups(size)
        rates = {"les": les, "les_broad": les, "line_pass": passed, "und": und, "repetitive": repetitive}
        for metric, values in (rates | {"target_share": les, "prefix_es": les * 0.8}).items():
            add(metric, family, language, values, [f"{family}:{g}" for g in groups], groups)
    ratio = {"en": model.english, "en2": model.register, "mr": model.unseen}
    ratio |= dict.fromkeys(("hi", "hi_latn", "hi_mixed"), model.forget_perplexity)
    own = model.seed_spread * rng.standard_normal()
    for language, tokens in world["tokens"].items():
        groups = _groups(n, "r" if language == "en2" else "g")
        units = [f"{g}:{language}" for g in groups]
        shift = np.log(ratio.get(language, model.neighbours)) + model.noise * rng.standard_normal(n) + own
        add("nll", "texts", language, world["nll"][language] + tokens * shift, units, groups)
        add("n_tokens", "texts", language, tokens, units, groups)
        add("n_bytes", "texts", language, tokens * 6, units, groups)
        if language == "en":
            add("kl", "texts", language, np.abs(shift), units, groups)
    jitter, groups = 0.0 if is_base else model.probe_noise, _groups(n)
    for (layer, contrast), (positive, negative) in world["score"].items():
        old, new = contrast.split("-")
        for name, score, sign in ((old, positive + model.probe_shift, 1), (new, negative, -1)):
            score = score + jitter * rng.standard_normal(n) - 1
            units = [f"{g}:{name}" for g in groups]
            add("probe_score", "probe", contrast, score, units, groups, layer, "")
            add("probe_nats", "probe", contrast, np.log(2) - np.logaddexp(0, -sign * score), units, groups, layer, "")
    for (language, sides), shift in zip(world["canaries"].items(), model.member_shift, strict=True):
        for family, scores, moved in zip(("member", "nonmember"), sides, (shift, 0.0), strict=True):
            units = _groups(len(scores), f"canary:{family}:{language}:")
            for metric in ("mia_loss", "mia_zlib", "mia_min_k", "mia_min_k_plus", "mia_reference"):
                noise = 0.0 if same else 0.3 * rng.standard_normal(len(scores))
                add(metric, family, language, scores + moved + noise, units, units)
    if model.first_layer is not None:
        layer = int(model.first_layer)
        add("first_edited_layer", "card", "", [layer], ["card"], ["card"], layer)
    return pd.concat(frames, ignore_index=True)
