"""Steering vectors: the direction of a language in the residual stream, and how strongly to push along it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from mmie.attacking import Target, held_out, sink_norms, train_texts
from mmie.edits import Edit, attached_edits
from mmie.generation import generate
from mmie.lid import Detector
from mmie.lid_scores import scores
from mmie.likelihood import score
from mmie.prompting import cut
from mmie.scripts import MIXED

if TYPE_CHECKING:
    from mmie.attacks.steer import Params

SHARE = 0.5
"""Share of a tune text that is its opening."""


def vectors(target: Target, language: str, count: int) -> dict[int, torch.Tensor]:
    """
    Layer of config `layers.candidates` → difference of base's mean states, ``[d_model]`` fp32: ``count`` train texts in
    ``language`` minus their translations into the retain language; every text weighs the same, first tokens left out.
    """
    model, tokenizer = target.load()
    means = []
    for column in (language, target.data["retain"]):
        texts = train_texts(target, column, count)
        found = score(model, tokenizer, texts, nll=[False] * len(texts), layers=target.candidates)
        means.append({n: states.mean(0) for n, states in found.states.items()})
    return {n: means[0][n] - means[1][n] for n in target.candidates}


def best(target: Target, directions: Mapping[int, torch.Tensor], language: str, params: Params) -> Edit:
    """
    Of all layers and scales, the edit after which most openings of tune texts are continued in the forget language.

    Between equals, the one with the larger share of words in it; then the smaller scale, then the earlier layer.
    """
    model, tokenizer = target.load()
    data = target.data
    detector = Detector(target.fasttext, [name for name, script in data["scripts"].items() if script != MIXED])
    tune = (target.corpus["split"] == "tune") & (target.corpus["language"] == language)
    count = min(params.openings, int(tune.sum()))
    script = data["scripts"][language]
    openings = [cut(text, SHARE, script, "of the tune split") for text in held_out(target, language, count, 0)]
    limits = sink_norms(model, tokenizer, train_texts(target, language, count), list(directions))
    tried = []
    for scale in sorted(params.scales):
        for n, direction in directions.items():
            edit = steering(n, scale * direction, limits[n])
            with attached_edits(model, [*target.edits, edit]):
                answers = generate(model, tokenizer, openings, params.new_tokens, label=f"layer {n}, scale {scale:g}")
            found = [scores(answer.text, language, detector, data) for answer in answers]
            rate, share = (sum(row[key] for row in found) / len(found) for key in ("les", "target_share"))
            tried.append((rate, share, edit, scale))
    rate, _, edit, scale = max(tried, key=lambda item: item[:2])
    facts = {**edit.facts, "scale": scale, "language": language, "tune_les": round(rate, 4)}
    return Edit(edit.kind, edit.layers, edit.tensors, facts)


def steering(layer: int, vector: torch.Tensor, max_norm: float) -> Edit:
    """The edit that adds ``vector`` ``[d_model]`` after ``layer``: kind ``hook`` with W = R, so that h' = h + Rᵀ b."""
    length = vector.norm()
    direction = (vector / length)[None]
    parts = {"R": direction, "W": direction.clone(), "b": length[None], "max_norm": torch.tensor([max_norm])}
    return Edit("hook", (layer,), {f"layer{layer}.{name}": value for name, value in parts.items()}, {"rank": 1})
