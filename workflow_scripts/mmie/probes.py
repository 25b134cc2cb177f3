"""Linear probes on pooled hidden states: what a layer tells of the forget language beyond its script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError, safe_open
from scipy.linalg import eigh
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

Array = npt.NDArray[np.float64]

FOLDS = 5
PENALTY = 10.0  # inverse strength; of 0.01 … 100 the best held-out log loss, for weak and for strong differences


def read_states(path: str | Path) -> tuple[dict[int, Array], list[str]]:
    """
    Pooled states per layer, {layer: [text, d_model]}, and the texts' doc_ids in row order.

    Raises ValueError naming the file when it is missing, truncated or inconsistent.
    """
    remedy = "delete it, and Snakemake makes it again."
    try:
        with safe_open(str(path), framework="numpy") as file:
            doc_ids = json.loads((file.metadata() or {}).get("mmie", "{}")).get("doc_ids")
            layers = {int(n.removeprefix("layer")): file.get_tensor(n).astype(np.float64) for n in sorted(file.keys())}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}): {remedy}") from None
    if not doc_ids or not layers:
        raise ValueError(f"{path} has no doc_ids or no layers: {remedy}")
    for layer, states in layers.items():
        if states.ndim != 2 or len(states) != len(doc_ids):
            raise ValueError(f"{path}: layer{layer} is {states.shape} for {len(doc_ids)} texts: {remedy}")
        if not np.isfinite(states).all():
            raise ValueError(f"{path}: layer{layer} has values that are not finite: {remedy}")
    return dict(sorted(layers.items())), list(doc_ids)


def contrasts(data: dict[str, Any]) -> list[tuple[str, str]]:
    """
    Pairs (positive, negative) of corpus columns to tell apart: each script of the forget language against its letters
    shuffled inside words, and the native script against the first neighbour.
    """
    native, roman = data["forget"]["native"], data["forget"].get("roman")
    pairs = [(native, f"{native}_shuffled")]
    if roman:
        pairs.append((roman, "latin_shuffled"))
    return pairs + [(native, neighbour) for neighbour in data["neighbours"][:1]]


def probe_texts(
    layers: dict[int, Array], doc_ids: list[str], corpus: pd.DataFrame, split: str, data: dict[str, Any]
) -> pd.DataFrame:
    """
    Held-out scores of a probe per layer × contrast × text: the columns of ``tables.PROBES`` without the run's.

    ``layers`` maps a layer to [text, d_model] in the order of ``doc_ids``.
    Raises ValueError when a contrast has no pairs.
    """
    texts = corpus[corpus["split"] == split].set_index("doc_id")
    row_of = {doc_id: row for row, doc_id in enumerate(doc_ids) if doc_id in texts.index}
    frames = []
    for positive, negative in contrasts(data):
        pairs = _pairs(texts, row_of, positive, negative)
        rows = np.concatenate([[row_of[d] for d in pairs["positive"]], [row_of[d] for d in pairs["negative"]]])
        groups = np.tile(pairs.index.to_numpy(), 2)
        labels = np.repeat([1, 0], len(pairs))
        for layer, states in layers.items():
            scores = held_out_scores(states[rows], labels, groups)
            frames.append(
                pd.DataFrame(
                    {
                        "layer": layer,
                        "contrast": f"{positive}-{negative}",
                        "doc_id": [doc_ids[row] for row in rows],
                        "group_id": groups,
                        "label": labels,
                        "score": scores,
                        "nats": nats(scores, labels),
                        "auc": float(roc_auc_score(labels, scores)),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def _pairs(texts: pd.DataFrame, row_of: dict[str, int], positive: str, negative: str) -> pd.DataFrame:
    """doc_ids of the groups that have both texts, indexed by group in order."""
    known = texts[texts.index.isin(row_of.keys())].reset_index()
    sides = {
        side: known[known["language"] == language].set_index("group_id")["doc_id"]
        for side, language in (("positive", positive), ("negative", negative))
    }
    pairs = pd.DataFrame(sides).dropna().sort_index()
    if len(pairs) < FOLDS:
        raise ValueError(
            f"the probe {positive}-{negative} needs at least {FOLDS} groups with both texts and has {len(pairs)}: "
            f"score_texts must pool the states of `{positive}` and `{negative}`."
        )
    return pairs


def held_out_scores(states: Array, labels: npt.NDArray[Any], groups: npt.NDArray[Any]) -> Array:
    """
    Log-odds of the positive class for each text, from a probe that saw none of its group: [text].

    Logistic regression with an L2 penalty on features standardised on the training folds and divided by √d_model, so
    that a text has length about 1 whatever the model's width. The fit runs in the span of the training texts, which
    holds the solution (representer theorem), so it costs [text, text] and not [d_model, d_model]. Folds depend on the
    group ids alone: base and every arm share them.
    """
    fold = folds(groups)
    scores = np.empty(len(labels))
    for number in range(FOLDS):
        held = fold == number
        mean, spread = states[~held].mean(axis=0), states[~held].std(axis=0)
        scaled = (states - mean) / (np.where(spread > 0, spread, 1.0) * np.sqrt(states.shape[1]))
        train, test = _in_span(scaled[~held], scaled[held])
        probe = LogisticRegression(C=PENALTY, max_iter=2000, tol=1e-6).fit(train, labels[~held])
        scores[held] = probe.decision_function(test)
    return scores


def _in_span(train: Array, test: Array) -> tuple[Array, Array]:
    """Coordinates along the principal directions of ``train``: all inner products with its rows are kept."""
    values, vectors = eigh(train @ train.T)
    keep = values > values[-1] * 1e-10
    scale = np.sqrt(values[keep])
    return vectors[:, keep] * scale, (test @ train.T) @ (vectors[:, keep] / scale)


def folds(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Fold 0 … 4 of each text: its group's place among the sorted groups, dealt round."""
    names, place = np.unique(groups, return_inverse=True)
    if len(names) < FOLDS:
        raise ValueError(f"{FOLDS} folds need at least {FOLDS} groups, got {len(names)}.")
    return place % FOLDS


def nats(scores: Array, labels: npt.NDArray[Any]) -> Array:
    """ln 2 minus the log loss of log-odds ``scores``: what they tell about each label, at most ln 2."""
    signs = np.where(np.asarray(labels) == 1, 1.0, -1.0)
    return np.log(2) - np.logaddexp(0, -signs * scores)
