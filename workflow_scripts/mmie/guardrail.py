"""DSG's guardrail (2504.08192): how often chosen latents may be active before a text counts as the forget language."""

import numpy as np
import pandas as pd
import torch

from mmie import cache, tables
from mmie.sparse_code import SparseCode
from mmie.unlearn import Sources


def cached(given: Sources, layer: int) -> tuple[torch.Tensor, pd.DataFrame]:
    """
    Cached activations of a layer ``[token, d_model]`` and their tokens, as from `mmie.cache.described`.

    Raises ValueError when the layer is not cached.
    """
    if layer not in given.activations or given.index is None:
        raise ValueError(f"layer {layer} is not cached. Add it to config `layers.candidates`.")
    rows = tables.read(given.index, tables.TOKENS)
    return cache.reading([str(given.activations[layer])], rows)[layer], cache.described(rows, given.corpus)


def threshold(
    code: SparseCode, latents: list[int], states: torch.Tensor, tokens: pd.DataFrame, percentile: float, min_tokens: int
) -> float:
    """
    τ: the percentile of ρ over every prefix of at least ``min_tokens`` tokens of texts to keep, in the language where
    it is highest.

    ρ is the share of a prefix's tokens on which one of ``latents`` is active. Texts to keep are those of the retain
    language and of the neighbours: with the retain language alone the guardrail fires on every neighbour, and with all
    of them pooled one language has all the false alarms.
    """
    keep = tokens[tokens["role"].isin(["retain", "neighbour"])]
    ids = torch.tensor(latents)
    parts = torch.tensor(keep["row"].to_numpy()).split(8192)
    active = torch.cat([(code.encode_some(states[part], ids) > 0).any(-1) for part in parts]).numpy()
    keep = keep.assign(active=active.astype(int))
    texts = keep.groupby("doc_id", sort=False)["active"]
    length = texts.cumcount() + 1
    keep = keep.assign(share=texts.cumsum() / length)[length >= min_tokens]
    return float(keep.groupby("language")["share"].agg(lambda part: np.percentile(part, percentile)).max())


def mean_norm(states: torch.Tensor) -> float:
    """Mean norm of the residual stream, in whose measure a clamp means the same in every model and layer."""
    return float(torch.cat([part.float().norm(dim=-1) for part in states.split(8192)]).mean())
