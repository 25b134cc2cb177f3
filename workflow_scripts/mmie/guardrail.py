"""DSG's guardrail (2504.08192): which latents say that a text is in the forget language, and from how much of it on."""

import numpy as np
import pandas as pd
import torch

from mmie import cache, tables
from mmie.sparse_code import SparseCode
from mmie.unlearn import Sources

CHUNK = 8192
KEPT = ("retain", "neighbour")
"""
Roles of the texts to keep: with the retain language alone the guardrail fires on every neighbour, and with all of them
pooled one language has all the false alarms.
"""


def cached(given: Sources, layer: int) -> tuple[torch.Tensor, pd.DataFrame]:
    """
    Cached activations of a layer ``[token, d_model]``, and the tokens of the train split, as from
    `mmie.cache.described`.

    Raises ValueError when the layer is not cached.
    """
    if layer not in given.activations or given.index is None:
        raise ValueError(f"layer {layer} is not cached. Add it to config `layers.candidates`.")
    rows = tables.read(given.index, tables.TOKENS)
    tokens = cache.described(rows, given.corpus)
    return cache.reading([str(given.activations[layer])], rows)[layer], tokens[tokens["split"] == "train"]


def telling(
    code: SparseCode, latents: list[int], states: torch.Tensor, tokens: pd.DataFrame, language: str, count: int
) -> list[int]:
    """
    The ``count`` of ``latents`` that tell ``language`` best, sorted: active on the largest share of its tokens, minus
    the share in the language to keep where that is largest. Fewer where that is not positive.
    """
    part = tokens[(tokens["language"] == language) | tokens["role"].isin(KEPT)]
    share = pd.DataFrame(_active(code, latents, states, part)).groupby(part["language"].to_numpy()).mean()
    lead = share.loc[language] - share.drop(index=language).max()
    order = lead.sort_values(ascending=False, kind="stable")
    return sorted(latents[i] for i in order.index[order > 0][:count])


def threshold(
    code: SparseCode, latents: list[int], states: torch.Tensor, tokens: pd.DataFrame, percentile: float, min_tokens: int
) -> float:
    """
    τ: the percentile of ρ over every prefix of at least ``min_tokens`` tokens of texts to keep, in the language where
    it is highest.

    ρ is the share of a prefix's tokens on which one of ``latents`` is active.
    """
    keep = tokens[tokens["role"].isin(KEPT)]
    keep = keep.assign(active=_active(code, latents, states, keep).any(1).astype(int))
    texts = keep.groupby("doc_id", sort=False)["active"]
    length = texts.cumcount() + 1
    keep = keep.assign(share=texts.cumsum() / length)[length >= min_tokens]
    return float(keep.groupby("language")["share"].agg(lambda part: np.percentile(part, percentile)).max())


def mean_norm(states: torch.Tensor) -> float:
    """Mean norm of the residual stream, in whose measure a clamp means the same in every model and layer."""
    return float(torch.cat([part.float().norm(dim=-1) for part in states.split(CHUNK)]).mean())


def _active(code: SparseCode, latents: list[int], states: torch.Tensor, tokens: pd.DataFrame) -> np.ndarray:
    """Whether each latent is active, ``[token, latent]``."""
    ids = torch.tensor(latents)
    parts = torch.tensor(tokens["row"].to_numpy()).split(CHUNK)
    return torch.cat([code.encode_some(states[part], ids) > 0 for part in parts]).numpy()
