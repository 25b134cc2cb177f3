"""The config: checked against its schema before anything starts, and cut into canonical params."""

import difflib
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

PROJECT = Path(__file__).parents[2]
SCHEMA = PROJECT / "config.schema.json"


def canonical(settings: Any) -> str:
    """
    Settings as one string, the same whatever the order of their keys.

    Snakemake compares params as an unordered set of ``repr(value)``: swapped scalars would rerun nothing, and a
    reordered dict everything.
    """
    return json.dumps(settings, sort_keys=True, ensure_ascii=False)


def project_path(path: str) -> str:
    """
    A path of the config, absolute or relative to the folder of the Snakefile, as seen from the working directory.

    A relative path stays one, so that a project that moves, results and all, has nothing to rerun.
    """
    return path if Path(path).is_absolute() else os.path.relpath(PROJECT / path)


def check_config(config: dict[str, Any]) -> dict[str, Any]:
    """
    The config as plain dicts, without the arms and attacks that are switched off (``name: false``).

    Raises ValueError naming key, value and remedy; all errors are listed at once.
    """
    config = json.loads(json.dumps(config))
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    errors = sorted(Draft202012Validator(schema).iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    problems = [message for error in errors for message in _explain(error)] or list(_contradictions(config))
    if problems:
        raise ValueError("config:\n  " + "\n  ".join(problems))
    for section in ("arms", "attacks"):
        config[section] = {name: settings for name, settings in config[section].items() if settings is not False}
    return config


def _explain(error: ValidationError) -> Iterator[str]:
    where = ".".join(str(part) for part in error.absolute_path)
    about = f" ({error.schema['description']})" if "description" in error.schema else ""
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = list(error.schema.get("properties", {}))
        for key in sorted(set(error.instance) - set(known)):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean `{near[0]}`?" if near else f" Known keys: {', '.join(known)}."
            yield f"unknown key `{f'{where}.{key}'.lstrip('.')}`.{hint}"
    elif error.validator == "required" and isinstance(error.instance, dict):
        for key in sorted(set(error.validator_value) - set(error.instance)):
            yield f"key `{f'{where}.{key}'.lstrip('.')}` is missing."
    elif error.instance is None:
        remedy = (
            "Write `{}` for the defaults, or `false` to leave it out."
            if where.startswith(("arms.", "attacks."))
            else "Give it a value."
        )
        yield f"`{where}` is empty. {remedy}{about}"
    else:
        yield f"`{where or 'the whole config'}`: {error.message}.{about}"


def _contradictions(config: dict[str, Any]) -> Iterator[str]:
    """What a schema cannot say."""
    data = config["data"]
    named = {
        **{f"data.forget.{key}": language for key, language in data["forget"].items()},
        "data.retain": data["retain"],
        **{f"data.neighbours.{i}": language for i, language in enumerate(data["neighbours"])},
        **{f"data.unseen.{i}": language for i, language in enumerate(data["unseen"])},
    }
    if data["mixed"] is not None:
        named["data.mixed"] = data["mixed"]
    for key, language in named.items():
        if language not in data["scripts"]:
            yield f"`{key}`: {language!r} is not a language of `data.scripts` ({', '.join(data['scripts'])})."
    for language in sorted({x for x in named.values() if list(named.values()).count(x) > 1}):
        roles = ", ".join(key for key, value in named.items() if value == language)
        yield f"`data`: {language!r} has two roles ({roles}). Give it one."
    model = config["model"]
    if model["source"] == "hub" and not model["revision"]:
        yield "`model.revision` is empty: with `model.source: hub` pin a commit, so that the model stays the same."
    if model["quantisation"] == "nf4" and model["dtype"] == "float32":
        yield "`model.quantisation: nf4` computes in 16 bits; use `model.dtype: auto` or bfloat16."
    yield from _devices(model, config["resources"])
    count, candidates = config["layers"]["count"], config["layers"]["candidates"]
    if count > len(candidates):
        yield f"`layers.count: {count}` is more than the {len(candidates)} of `layers.candidates`."
    yield from _autoencoders(config["sae"], candidates)
    yield from _further_texts(data)
    files = {
        "data.corpus": data["corpus"],
        "data.second_register": data["second_register"],
        "prompts.templates": config["prompts"]["templates"],
        "lid.labelled": config["lid"]["labelled"],
        "comprehension.templates": config["comprehension"]["templates"],
        "comprehension.knowledge": config["comprehension"]["knowledge"],
        "canaries.grammar": config["canaries"]["grammar"] if config["canaries"]["members"] else None,
    }
    for key, path in files.items():
        if path is not None and not Path(project_path(path)).exists():
            yield (
                f"`{key}: {path}`: no such file ({project_path(path)}). "
                "Relative paths start at the folder of the Snakefile."
            )
    if model["source"] == "local" and not (Path(project_path(model["name"])) / "config.json").exists():
        yield (
            f"`model.name: {model['name']}`: no model folder there (config.json not found). With `model.source: local` "
            "give a folder that AutoModelForCausalLM can read."
        )
    if config["judge"]["endpoint"] and not config["judge"]["model"]:
        yield "`judge.model` is empty: with `judge.endpoint` name the model that is asked."
    if config["generation"]["max_new_tokens"] < 8:
        yield "`generation.max_new_tokens` below 8 leaves too few words to tell a language."


def _devices(model: dict[str, Any], asked: dict[str, Any]) -> Iterator[str]:
    device, device_map, gpus, replicas = model["device"], model["device_map"], asked["gpus"], asked["replicas"]
    if device_map != "none" and (device != "cuda" or gpus == 1):
        yield (
            f"`model.device_map: {device_map}` spreads the model over the GPUs of a job: it needs `model.device: cuda` "
            f"(here {device}) and `resources.gpus` of 2 or more (here {gpus})."
        )
    if device_map == "none" and gpus > 1:
        yield (
            f"`resources.gpus: {gpus}`: without `model.device_map` the model is on one GPU. Set that, or "
            "`resources.replicas`."
        )
    if replicas > 1 and device_map != "none":
        yield f"`resources.replicas: {replicas}` with `model.device_map: {device_map}`: choose one of them."
    if replicas > 1 and device.startswith("cuda:"):
        yield f"`resources.replicas: {replicas}` need a GPU each, and `model.device: {device}` is one: write `cuda`."


def check_contrasts(pairs: Sequence[Sequence[str]], arms: Collection[str]) -> list[list[str]]:
    """
    Config `report.contrasts`, whose arms must be among ``arms`` and differ.

    Raises ValueError naming the pair and what it could be.
    """
    for first, second in pairs:
        for arm in (first, second):
            if arm not in arms:
                raise ValueError(f"config `report.contrasts`: {arm!r} is no arm of this run ({', '.join(arms)}).")
        if first == second:
            raise ValueError(f"config `report.contrasts`: {first!r} is set against itself.")
    return [list(pair) for pair in pairs]


def _autoencoders(sae: dict[str, Any], candidates: list[int]) -> Iterator[str]:
    source, ids = sae["source"], sae["ids"]
    if (source == "pretrained") != (sae["release"] is not None):
        yield f"`sae.release: {sae['release']}` with `sae.source: {source}`: `pretrained` needs a release, others none."
    if source == "train":
        if ids:
            yield "`sae.ids` names autoencoders and `sae.source: train` uses none: empty the one or change the other."
        return
    for layer in candidates:
        if str(layer) not in ids:
            yield f"`sae.ids.{layer}` is missing: layer {layer} is one of `layers.candidates`, and may be chosen."
    for layer, path in ids.items():
        if source == "local" and not (Path(project_path(path)) / "cfg.json").exists():
            yield f"`sae.ids.{layer}: {path}`: no SAELens folder there (no {project_path(path)}/cfg.json)."


def _further_texts(data: dict[str, Any]) -> Iterator[str]:
    source, trained = data["source"], [*data["forget"].values(), data["retain"], *data["neighbours"]]
    if (source == "corpus") != (not data["texts"]):
        yield f"`data.source: {source}` and {len(data['texts'])} keys in `data.texts`: further texts need both."
        return
    needed = {"files": ["files"], "hub": ["dataset", "revision"]}.get(source, [])
    for language, entry in data["texts"].items():
        if language not in trained:
            known = ", ".join(filter(None, trained))
            yield f"`data.texts.{language}`: not a language that is trained on, which are {known}."
        for key in needed:
            if key not in entry:
                yield f"`data.texts.{language}.{key}` is missing, which `data.source: {source}` needs."
        for path in entry.get("files", []):
            if source == "files" and not Path(project_path(path)).exists():
                yield f"`data.texts.{language}.files`: no such file: {path} ({project_path(path)})."
