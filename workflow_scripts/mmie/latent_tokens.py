"""On which tokens of each language chosen latents are most active: what a latent is about, as far as tokens tell."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from mmie.sparse_code import SparseCode
from mmie.storage import States

TOP = 5
"""Tokens per latent and language."""
CHUNK = 8192


@torch.inference_mode()
def top_tokens(
    code: SparseCode,
    latents: Sequence[int],
    states: States,
    tokens: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
) -> pd.DataFrame:
    """
    Rows of `tables.LATENT_TOKENS` without site and layer: the `TOP` distinct tokens on which each latent is most
    active, per language; none for a language on which it never fires.

    ``states`` ``[token, d_model]`` is the cache and ``tokens`` the part of its index to read, as from
    `mmie.cache.described`.
    """
    which = torch.tensor(list(latents), dtype=torch.long)
    rows: list[dict[str, object]] = []
    for language, part in tokens.groupby("language", sort=True):
        ids, place = np.unique(part["token"].to_numpy(), return_inverse=True)
        most = torch.zeros(len(ids), len(which))
        where = torch.tensor(part["row"].to_numpy()).split(CHUNK)
        for chunk, index in zip(where, torch.from_numpy(place).split(CHUNK), strict=True):
            most.index_reduce_(0, index, code.encode_some(states[chunk], which), "amax")
        # A stable sort: of equally high tokens the one with the smaller id comes first.
        order = most.sort(dim=0, descending=True, stable=True)
        for column, latent in enumerate(latents):
            for rank in range(min(TOP, len(ids))):
                activation = float(order.values[rank, column])
                if activation > 0:
                    token = tokenizer.decode([int(ids[order.indices[rank, column]])])
                    found = {"language": language, "rank": rank + 1, "token": token, "activation": activation}
                    rows.append({"latent": int(latent), **found})
    return pd.DataFrame(rows, columns=["latent", "language", "rank", "token", "activation"])
