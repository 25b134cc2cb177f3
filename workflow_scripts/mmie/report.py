"""What the report says: the tables of an experiment, put into words and rows for ``mmie.page``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmie import prose, report_latents, report_tables, samples
from mmie.labels import (
    ASKS,
    CORE,
    GATES,
    family_name,
    forget_name,
    interval,
    language_name,
    listed,
    margin,
    number,
    p_text,
    p_value,
    part_name,
    quantity,
    sentence,
)
from mmie.palette import arm_colours, language_colours
from mmie.summary import lookup
from mmie.two_way import ALL_SEEDS

Context = dict[str, Any]
OUTCOMES = {
    "pass": ("✓", "passed"),
    "fail": ("✗", "failed"),
    "unclear": ("?", "cannot be certified"),
    "missing": ("–", "not tested"),
}


FIGURES = {
    "tradeoff": "", "les": "", "perplexity": "", "languages": "", "flow": "", "attacks": "", "recovery": "attacked",
    "comprehension": "understood", "inside": "looked_inside", "membership": "", "training_curves": "",
    "layer_scores": "", "corpus": "", "frontier": "swept",
}  # fmt: skip
"""Figures of the page, in its order; and the setting without which one would be empty."""


def shown_figures(settings: Mapping[str, Any]) -> list[str]:
    """Names of the figures that have something to show."""
    return [name for name, wanted in FIGURES.items() if not wanted or settings[wanted]]


def compose(
    settings: Mapping[str, Any],
    decision: Mapping[str, Any],
    tests: pd.DataFrame,
    contrasts: pd.DataFrame,
    prompts: pd.DataFrame,
    corpus: pd.DataFrame,
    generations: pd.DataFrame,
    lid: pd.DataFrame,
    features: pd.DataFrame,
    quality: pd.DataFrame,
    latent_tokens: pd.DataFrame,
    storage: pd.DataFrame,
    transfer: pd.DataFrame,
    requirements: str,
) -> Context:
    """
    Everything the page shows, as plain values; no HTML and no files.

    ``settings``: ``arms`` (list of arm, method, params, about), ``data``, ``model``, ``samples``, ``seed``,
    ``selector``.
    """
    data, arms = settings["data"], [entry["arm"] for entry in settings["arms"]]
    judged = [arm for arm in arms if arm in decision["arms"]]
    return {
        "title": f"Did the model forget {forget_name(data)}?",
        "forget": forget_name(data),
        "model": prose.model_name(settings["model"]),
        "decision": decision,
        "lead": prose.lead(settings, decision, prompts, corpus),
        "headline": prose.headline(decision, judged),
        "assay": _assay(decision, data),
        "gates": _gates(decision),
        "asks": _gates(decision, tuple(GATES)),
        "verdicts": [_verdict(arm, decision, settings) for arm in judged],
        "why": [_why(arm, decision, tests, settings) for arm in judged],
        "contrasts": report_tables.contrasts(contrasts, data),
        "samples": _samples(settings, prompts, corpus, generations, lid),
        "sample_arms": [{"arm": arm, "colour": arm_colours(arms)[arm]} for arm in arms],
        "captions": prose.captions(data, decision),
        "latents": report_latents.latents(features, quality, latent_tokens, storage, transfer, settings),
        "limits": prose.limits(settings, decision, prompts, generations),
        "arms": settings["arms"],
        "pins": _pins(requirements),
    }


def _assay(decision: Mapping[str, Any], data: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "family": family_name(family, data),
            "text": f"{number(found['les'])} of {found['n']} (95 % interval {interval(*found['ci'])})",
            "ok": found["ok"],
            "reason": found["reason"],
        }
        for family, found in decision["assay"].items()
    ]


def _gates(decision: Mapping[str, Any], names: tuple[str, ...] = CORE) -> list[dict[str, str]]:
    """The gates of these names that were judged; the core ones are the columns of the verdict table."""
    seen = {gate for arm in decision["arms"].values() for gate in arm["gates"]}
    return [{"gate": gate, "title": GATES[gate], "asks": ASKS[gate]} for gate in names if gate in seen]


def _verdict(arm: str, decision: Mapping[str, Any], settings: Mapping[str, Any]) -> Context:
    found = decision["arms"][arm]
    also = [] if decision["complete"] else [found["verdict_g1_g5"].replace("G1-G5", "G1–G5")]
    also.append(f"{found['extended']['verdict']} (all gates)")
    return {
        "arm": arm,
        "colour": _colour(arm, settings),
        "verdict": found["verdict"],
        "also": "; ".join(also),
        "sentence": found["sentence"].partition(f": {found['verdict']}. ")[2],
        "p": p_text(found["p"]),
        "cells": [_cell(gate, found["gates"].get(gate)) for gate in (g["gate"] for g in _gates(decision))],
    }


def _cell(name: str, gate: Mapping[str, Any] | None) -> Context:
    gate = gate or {"outcome": "missing", "reason": "no data", "p": None, "estimate": None, "margin": None, "part": ""}
    symbol, word = OUTCOMES[gate["outcome"]]
    measured = gate["estimate"] is not None
    return {
        "outcome": gate["outcome"],
        "symbol": symbol,
        "word": word,
        "estimate": number(gate["estimate"]) if measured else "",
        "margin": f"margin {margin(gate['margin'])}" if measured else "",
        "p": p_text(gate["p"]) if gate["p"] is not None else "",
        "about": f"{name}: {gate.get('reason') or word}",
    }


def _why(arm: str, decision: Mapping[str, Any], tests: pd.DataFrame, settings: Mapping[str, Any]) -> Context:
    found, data = decision["arms"][arm], settings["data"]
    about = next(entry for entry in settings["arms"] if entry["arm"] == arm)
    rows = list(lookup(tests[tests["arm"] == arm].sort_values("seed", kind="stable"), "seed", "gate", "part").values())
    gates = []
    for gate, name in GATES.items():
        if gate in found["gates"]:
            parts = [_part(row, data) for row in rows if row["gate"] == gate]
            gates.append(
                {
                    "gate": gate,
                    "title": name,
                    "asks": ASKS[gate],
                    **_gate(gate, found["gates"][gate], data),
                    "parts": parts,
                }
            )
    return {
        "arm": arm,
        "colour": _colour(arm, settings),
        "verdict": found["verdict"],
        "about": about.get("about", ""),
        "reasons": [reason for reason in found["reasons"]],
        "gates": gates,
        "n_parts": sum(len(gate["parts"]) for gate in gates),
        "seeds": len(found["seeds"]) > 1,
        "p": p_text(found["p"]),
        "q": p_value(found["q"]),
        "p_by": p_value(found["p_by"]),
        "p_holm": p_value(found["p_holm"]),
        "extended": _extended(found["extended"]),
        "covers": listed(found["p_covers"]),
    }


def _extended(found: Mapping[str, Any]) -> Context:
    return {
        "verdict": found["verdict"],
        "p": p_text(found["p"]),
        "q": p_value(found["q"]),
        "covers": listed(found["p_covers"]),
    }


def _gate(name: str, gate: Mapping[str, Any], data: Mapping[str, Any]) -> Context:
    symbol, word = OUTCOMES[gate["outcome"]]
    return {
        "outcome": gate["outcome"],
        "symbol": symbol,
        "word": word,
        "core": gate["core"],
        "part": part_name(name, gate["part"], data) if gate["estimate"] is not None else "",
        "quantity": quantity(name, gate["part"], gate.get("test", "")) if gate["estimate"] is not None else "",
        "base": number(gate["base"]),
        "value": number(gate["value"]),
        "estimate": number(gate["estimate"]),
        "interval": interval(*gate["ci"]),
        "margin": margin(gate["margin"]),
        "p": p_value(gate["p"]),
        "q": p_value(gate["q"]),
        "n": gate["n"] or "–",
        "power": _power(gate),
        "needed": gate["needed"] if gate["needed"] is not None else "–",
        "vacuous": gate["vacuous"],
        "reason": gate["reason"],
    }


def _power(gate: Mapping[str, Any]) -> str:
    """Power beside what did not pass; where it passed it no longer matters."""
    return "" if gate["outcome"] == "pass" else number(gate["power"])


def _part(row: Mapping[str, Any], data: Mapping[str, Any]) -> Context:
    symbol, word = OUTCOMES[row["outcome"]]
    return {
        "outcome": row["outcome"],
        "symbol": symbol,
        "word": word,
        "seed": "all" if row["seed"] == ALL_SEEDS else row["seed"],
        "name": part_name(row["gate"], row["part"], data),
        "quantity": quantity(row["gate"], row["part"], row["test"]) if row["test"] else "",
        "n": row["n"] or "–",
        "base": number(row["base"]),
        "value": number(row["value"]),
        "estimate": number(row["estimate"]),
        "interval": interval(row["ci_low"], row["ci_high"]),
        "margin": margin(row["margin"]),
        "p": p_value(row["p"]),
        "power": _power(row),
        "about": ". ".join(text for text in (row["test"], row["reason"], row["note"]) if text),
    }


def _samples(
    settings: Mapping[str, Any],
    prompts: pd.DataFrame,
    corpus: pd.DataFrame,
    generations: pd.DataFrame,
    lid: pd.DataFrame,
) -> list[Context]:
    data, arms = settings["data"], [entry["arm"] for entry in settings["arms"]]
    chosen = samples.choose(prompts, settings["samples"], settings["seed"], data)
    answers = samples.side_by_side(chosen, arms, generations, lid)
    forget = [code for code in (data["forget"]["native"], data["forget"].get("roman")) if code]
    codes = sorted({answer["language"] for row in answers.values() for answer in row})
    colours, rows = language_colours(codes, forget), lookup(prompts, "prompt_id")
    retained = corpus[corpus["language"] == data["retain"]]
    meaning = dict(zip(retained["group_id"], retained["text"], strict=True))
    forgotten = ("forget_native", "forget_roman", "mixed")
    found = []
    for prompt_id in chosen:
        prompt = rows[prompt_id,]
        found.append(
            {
                "family": sentence(family_name(prompt["family"], data)),
                "forgotten": prompt["family"] in forgotten,
                "text": samples.printable(prompt["text"]),
                "lang": _tag(prompt["language"]),
                "meaning": "" if prompt["language"] == data["retain"] else meaning.get(prompt["group_id"], ""),
                "answers": [
                    {
                        **answer,
                        "index": arms.index(answer["arm"]),
                        "arm_colour": arm_colours(arms)[answer["arm"]],
                        "lang": _tag(answer["language"]),
                        "badge": language_name(answer["language"]),
                        "colour": colours[answer["language"]],
                    }
                    for answer in answers[prompt_id]
                ],
            }
        )
    return found


def _pins(requirements: str) -> list[tuple[str, str]]:
    """Package and version of every pinned requirement."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in requirements.splitlines())
    pairs = (line.partition("==") for line in lines if line and not line.startswith("-"))
    return sorted((name.strip(), version.strip()) for name, _, version in pairs)


def _colour(arm: str, settings: Mapping[str, Any]) -> str:
    return arm_colours([entry["arm"] for entry in settings["arms"]])[arm]


def _tag(code: str) -> str:
    """BCP 47 tag of a column, so that browsers choose the right font and voice; empty when there is none."""
    stem, _, suffix = code.partition("_")
    if suffix == "mixed" or stem in ("und", "other", "latin"):
        return ""
    return f"{stem}-Latn" if suffix == "latn" else stem
