"""What a trained gate finds on held-out text: how often it opens on each language, at every threshold."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from mmie import cache
from mmie.cached_texts import sampled_tokens
from mmie.edits import Edit
from mmie.edits.hook import Rewrite, by_layer, gate_of
from mmie.unlearn import Sources

log = logging.getLogger("mmie")

THRESHOLDS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def gate_rows(edits: Iterable[Edit], given: Sources, arm: str, seed: int) -> Iterator[dict[str, Any]]:
    """
    Rows of `tables.GATES`, for every gate of ``edits``; none where there is none.

    A gate is read on base's cached activations of the tune split, as if no edit acted before it. At a threshold, the
    share of open tokens is the true positive rate in the forget language, and the false positive rate elsewhere.
    """
    for edit in edits:
        for layer, parts in by_layer(edit.tensors, torch.device("cpu")) if edit.facts.get("gated") else []:
            gate = gate_of(parts)
            if gate is None:
                continue
            if layer not in given.activations or given.index is None:
                log.warning("layer %d is not cached: how its gate does on held-out text is not known", layer)
                continue
            for row in _of_layer(gate, layer, given):
                yield {"arm": arm, "seed": seed, "variant": "plain", "kind": edit.kind, "layer": layer, **row}


def _of_layer(gate: Rewrite, layer: int, given: Sources) -> Iterator[dict[str, Any]]:
    assert given.index is not None
    tokens = sampled_tokens(given.index, given.corpus)
    tokens = tokens[tokens["split"] == "tune"]
    states = cache.reading([str(given.activations[layer])], given.index)[layer]
    with torch.no_grad():
        opened = [
            gate(states[rows].float())[:, 0] for rows in torch.tensor(tokens["row"].to_numpy()).split(cache.CHUNK)
        ]
    found = torch.cat([torch.empty(0), *opened]).double().numpy()
    forget = found[(tokens["role"] == "forget").to_numpy()]
    for (language, role), rows in tokens.assign(place=range(len(tokens))).groupby(["language", "role"], sort=True):
        values = found[rows["place"].to_numpy()]
        auc = None if role == "forget" or not len(forget) else _auc(forget, values)
        for threshold in THRESHOLDS:
            share = float((values > threshold).mean())
            about = {"language": language, "role": role, "n_tokens": len(values), "auc": auc}
            yield {**about, "threshold": threshold, "open": share}


def _auc(positive: np.ndarray, negative: np.ndarray) -> float:
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return float(roc_auc_score(labels, np.concatenate([positive, negative])))
