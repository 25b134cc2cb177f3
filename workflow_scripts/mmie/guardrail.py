"""DSG's guardrail (2504.08192): which latents say that a text is in the forget language, and from how much of it on."""

import numpy as np
import pandas as pd
import torch

from mmie import cache
from mmie.cached_texts import sampled_tokens
from mmie.sparse_code import SparseCode
from mmie.storage import States
from mmie.unlearn import Sources

CHUNK = 8192
KEPT = ("retain", "neighbour")
"""
Roles of the texts to keep: with the retain language alone the guardrail fires on every neighbour, and with all of them
pooled one language has all the false alarms.
"""


def cached(given: Sources, layer: int) -> tuple[States, pd.DataFrame]:
    """
    Cached activations of a layer ``[token, d_model]``, and the tokens of the train split in `sampled_tokens`.

    Raises ValueError when the layer is not cached.
    """
    if layer not in given.activations or given.index is None:
        raise ValueError(f"layer {layer} is not cached. Add it to config `layers.candidates`.")
    tokens = sampled_tokens(given.index, given.corpus)
    states = cache.reading([str(given.activations[layer])], given.index)[layer]
    return states, tokens[tokens["split"] == "train"]


def telling(
    code: SparseCode, latents: list[int], states: States, tokens: pd.DataFrame, language: str, count: int
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
    code: SparseCode, latents: list[int], states: States, tokens: pd.DataFrame, percentile: float, min_tokens: int
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


def mean_norm(states: States) -> float:
    """Mean norm of the residual stream, in whose measure a clamp means the same in every model and layer."""
    parts = (states[start : start + CHUNK] for start in range(0, len(states), CHUNK))
    return sum(float(part.float().norm(dim=-1).double().sum()) for part in parts) / len(states)


def _active(code: SparseCode, latents: list[int], states: States, tokens: pd.DataFrame) -> np.ndarray:
    """Whether each latent is active, ``[token, latent]``."""
    ids = torch.tensor(latents)
    parts = torch.tensor(tokens["row"].to_numpy()).split(CHUNK)
    return torch.cat([code.encode_some(states[part], ids) > 0 for part in parts]).numpy()
