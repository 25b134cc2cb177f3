"""Which layers to edit: where Hindi is one thing in both scripts, and is not what English and the neighbours are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from mmie import stage
from mmie.cache import totals
from mmie.storage import States

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

GAPS = ("probe_gap", "cka_gap", "procrustes_gap")
STRENGTH = 0.01
"""Inverse L2 strength of the probe: there are fewer texts than dimensions, and a weaker penalty transfers worse."""


@dataclass(frozen=True)
class Roles:
    """Which languages of the corpus play which part."""

    forget: tuple[str, ...]
    retain: str
    neighbours: tuple[str, ...]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Roles":
        """From config `data`; a language without a romanised column has one script."""
        forget = tuple(name for name in (data["forget"]["native"], data["forget"].get("roman")) if name is not None)
        return cls(forget, data["retain"], tuple(data["neighbours"]))

    @property
    def others(self) -> tuple[str, ...]:
        """English and the neighbours."""
        return (self.retain, *self.neighbours)


def parallel(states: States, tokens: pd.DataFrame, roles: Roles) -> tuple[dict[str, Array], Flags]:
    """
    Language → mean hidden state of each group's text, ``[group, d_model]``, and which groups are train (``[group]``).

    ``states`` ``[token, d_model]``, ``tokens`` those to read, as from `mmie.cache.described`. Groups lacking a language
    are left out. Dimensions are standardised over the train texts: one of 640 holds up to half of the variance, and
    unscaled similarities measure little else (2109.04404).
    """
    names = (*roles.forget, *roles.others)
    texts = tokens[["doc_id", "group_id", "language", "split"]].drop_duplicates("doc_id").reset_index(drop=True)
    place = tokens["doc_id"].map(pd.Series(texts.index, index=texts["doc_id"])).to_numpy()
    sizes = np.bincount(place, minlength=len(texts))
    rows = torch.tensor(tokens["row"].to_numpy())
    means = totals(states, rows, torch.from_numpy(place), len(texts)).numpy() / sizes[:, None]
    where = (
        texts[texts["language"].isin(names)].reset_index().pivot(index="group_id", columns="language", values="index")
    )
    if set(names) - set(where.columns):
        raise ValueError(f"the activation cache has no text in {sorted(set(names) - set(where.columns))}. Delete it.")
    where = where.dropna().astype(int)
    train = (texts.loc[where[roles.retain], "split"] == "train").to_numpy()
    raw = {name: means[where[name]] for name in names}
    fitted = np.concatenate([rows[train] for rows in raw.values()])
    spread = fitted.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    return {name: (rows - fitted.mean(0)) / scale for name, rows in raw.items()}, train


def debiased_cka(x: Array, y: Array) -> float:
    """
    Debiased linear CKA of paired rows ``x`` ``[n, p]`` and ``y`` ``[n, q]``; 0 in expectation when independent.

    HSIC is the unbiased estimator of Song et al. 2012 (JMLR 13, eq. 5), normalised as in Kornblith et al. (1905.00414,
    eq. 3). The plain estimator would tend to 1 here, with fewer texts than dimensions. Raises ValueError below 4 rows.
    """
    return _cka(_gram(x), _gram(y))


def procrustes(x: Array, y: Array) -> float:
    """
    Orthogonal Procrustes distance of paired rows, ``2 − 2‖XᵀY‖_*`` with X, Y centred and of unit Frobenius norm.

    0 when they are the same up to rotation and scale, 2 when orthogonal (Ding et al., 2108.01661, section 3).
    """
    return _distance(_root(_gram(x)), _root(_gram(y)))


def evaluate(states: Mapping[str, Array], train: Flags, roles: Roles) -> dict[str, float]:
    """
    The scores of one layer (`tables.LAYERS`).

    ``states`` and ``train`` are as from `parallel`: probes are fitted on the train groups and measured on the others.
    CKA and Procrustes use no labels, hence all groups.
    """
    probe = across_scripts(states, train, roles)
    neighbours = [_auc(states, train, [n], [n], [m for m in roles.others if m != n]) for n in roles.neighbours]
    gram = {name: _gram(rows) for name, rows in states.items()}
    root = {name: _root(matrix) for name, matrix in gram.items()}
    cka = {name: _cka(gram[roles.retain], gram[name]) for name in (*roles.forget, *roles.neighbours)}
    distance = {name: _distance(root[roles.retain], root[name]) for name in (*roles.forget, *roles.neighbours)}
    return {
        "probe_gap": probe - float(np.mean(neighbours)),
        "probe_auc": probe,
        "cka_gap": _mean(cka, roles.neighbours) - _mean(cka, roles.forget),
        "cka": _mean(cka, roles.forget),
        "procrustes_gap": _mean(distance, roles.forget) - _mean(distance, roles.neighbours),
        "procrustes": _mean(distance, roles.forget),
    }


def across_scripts(states: Mapping[str, Array], train: Flags, roles: Roles) -> float:
    """
    AUC of a probe for Hindi in a script that it was not fitted on, mean over scripts.

    Fitted on one script against English and the neighbours (train groups), scored on the other against the same
    languages (tune groups). A probe that sees both scripts has an AUC of 1.000 at every layer and ranks nothing. With
    a single forget language it is scored on that.
    """
    pairs = [(a, b) for a in roles.forget for b in roles.forget if a != b] or [(roles.forget[0], roles.forget[0])]
    return float(np.mean([_auc(states, train, [a], [b], roles.others) for a, b in pairs]))


def auc(score: Array, positive: Flags) -> float:
    """Share of pairs in which the positive text scores higher (ties count half): Mann–Whitney's U, scaled."""
    n = int(positive.sum())
    rank = rankdata(score)
    return float((rank[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def ranking(
    states: Mapping[int, Mapping[str, Array]], train: Flags, roles: Roles, count: int, resamples: int, seed: int
) -> pd.DataFrame:
    """
    One row per layer (`tables.LAYERS`), best first; ties go to the earlier layer.

    A layer's score is the mean of its three gaps, each as its difference from the mean layer in standard errors:
    scaled by their spread over so few layers instead, three gaps of which two hardly differ would weigh the same.
    Standard errors and ``stability`` come from ``resamples`` random halves of the groups (half of the train and half of
    the tune groups), on which everything is computed anew, probes included. Halves without replacement are what
    stability selection prescribes (Meinshausen & Bühlmann, 0809.2932); a bootstrap would repeat rows, which biases
    debiased CKA. ``stability`` is the share of halves that put the layer among the first ``count``.

    Raises ValueError when there are fewer candidates than ``count``, or fewer than 2 resamples.
    """
    layers = sorted(states)
    if len(layers) < count:
        raise ValueError(f"config `layers.count: {count}` exceeds the {len(layers)} of `layers.candidates`.")
    if resamples < 2:
        raise ValueError(f"config `layers.resamples: {resamples}`: a standard error needs at least 2.")
    scores = [evaluate(states[layer], train, roles) for layer in layers]
    draw = np.random.default_rng(seed)
    halves = []
    for _ in stage.track(range(resamples), resamples, "halves of the groups"):
        half = np.sort(np.concatenate([_half(draw, np.flatnonzero(part)) for part in (train, ~train)]))
        parts = [{name: rows[half] for name, rows in states[layer].items()} for layer in layers]
        halves.append(_gaps([evaluate(part, train[half], roles) for part in parts]))
    error = np.sqrt(np.var(halves, axis=0, ddof=1).mean(0))
    total = combined(_gaps(scores), error)
    chosen = np.zeros(len(layers))
    for gaps in halves:
        chosen[_best(combined(gaps, error))[:count]] += 1
    rows = pd.DataFrame(scores).assign(layer=layers, score=total, stability=chosen / resamples)
    rows = rows.iloc[_best(total)].reset_index(drop=True)
    return rows.assign(rank=np.arange(1, len(rows) + 1))


def combined(gaps: Array, error: Array) -> Array:
    """Score of each layer from its gaps ``[layer, gap]`` and standard errors; a gap without one counts nothing."""
    return ((gaps - gaps.mean(0)) / np.where(error > 1e-9, error, np.inf)).mean(1)


def _gaps(scores: Sequence[Mapping[str, float]]) -> Array:
    return np.array([[row[name] for name in GAPS] for row in scores])


def _best(score: Array) -> Any:
    return np.argsort(-score, kind="stable")


def _half(draw: np.random.Generator, items: Any) -> Any:
    return draw.choice(items, (len(items) + 1) // 2, replace=False)


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float:
    return float(np.mean([values[name] for name in names]))


def _auc(
    states: Mapping[str, Array], train: Flags, fitted: Sequence[str], scored: Sequence[str], against: Sequence[str]
) -> float:
    def stacked(positive: Sequence[str], groups: Flags) -> tuple[Array, Flags]:
        rows = [states[name][groups] for name in (*positive, *against)]
        labels = [np.full(len(part), i < len(positive)) for i, part in enumerate(rows)]
        return np.concatenate(rows), np.concatenate(labels)

    x, y = stacked(fitted, train)
    probe = LogisticRegression(C=STRENGTH, tol=1e-3).fit(x, y)
    x, y = stacked(scored, ~train)
    return auc(probe.decision_function(x), y)


def _gram(x: Array) -> Array:
    """Linear kernel of centred rows, ``[n, n]``: everything below needs only these, and n is far below d_model."""
    centred = x - x.mean(0)
    return centred @ centred.T


def _cka(k: Array, m: Array) -> float:
    return _hsic(k, m) / float(np.sqrt(_hsic(k, k) * _hsic(m, m)))


def _hsic(k: Array, m: Array) -> float:
    """Unbiased HSIC of two kernels."""
    n = len(k)
    if n < 4:
        raise ValueError(f"debiased CKA needs 4 parallel texts, and there are {n}: raise config `data.splits`.")
    k, m = (kernel - np.diag(np.diag(kernel)) for kernel in (k, m))
    cross = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * float(k.sum(0) @ m.sum(0)) / (n - 2)
    return float(((k * m).sum() + cross) / (n * (n - 3)))


def _root(gram: Array) -> Array:
    """R with R Rᵀ = the kernel scaled to trace 1, ``[n, n]``: the rows up to rotation."""
    values, vectors = np.linalg.eigh(gram / np.trace(gram))
    return vectors * np.sqrt(values.clip(min=0))


def _distance(x: Array, y: Array) -> float:
    return 2 - 2 * float(np.linalg.svd(x.T @ y, compute_uv=False).sum())
