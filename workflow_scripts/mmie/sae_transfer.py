"""
How well autoencoders of the base model describe an edited one: zero-shot transfer between checkpoints.

An edit that works within the directions that base uses leaves the autoencoder as good as it was. One that leaves them
shows in explained variance; one that still puts the forget language into its latents shows in their activation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import cache
from mmie.activations import fill, index_of, tokenised
from mmie.sae_quality import behaviour, reconstruction
from mmie.sparse_code import SparseCode

ROLES = ("forget", "retain", "neighbour", "unseen")
TEXTS, REPLACED = 10, 3
"""Texts per language on which states are read, and on which the model is run with the reconstruction in their place."""
BATCH_TOKENS = 512
CHUNK = 2048


@dataclass(frozen=True)
class Site:
    """An autoencoder and where it belongs."""

    site: int
    layer: int
    code: SparseCode
    selected: list[int]
    """The latents that the configured selector took."""


def texts_of(corpus: pd.DataFrame, split: str) -> pd.DataFrame:
    """The first `TEXTS` texts of a split in each language that is forgotten, kept or never trained on."""
    wanted = corpus[(corpus["split"] == split) & corpus["role"].isin(ROLES)]
    return wanted.groupby("language").head(TEXTS).reset_index(drop=True)


def transfer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, sites: Sequence[Site], texts: pd.DataFrame
) -> pd.DataFrame:
    """
    Rows of `tables.SAE_TRANSFER` without the run's keys, from the model as it is now, with what is attached to it.

    ``texts`` as from `texts_of`. The states are those that leave the layer, after the edit of that layer has acted.
    """
    ids = tokenised(model, tokenizer, texts)
    tokens = cache.described(index_of(texts, ids), texts)
    into = {site.layer: torch.empty(len(tokens), model.config.hidden_size, dtype=torch.bfloat16) for site in sites}
    fill(model, int(tokenizer.pad_token_id), ids, into, BATCH_TOKENS)
    found = []
    for site in sites:
        states = into[site.layer]
        part = reconstruction(site.code, states, tokens)
        part = part.merge(activity(site.code, site.selected, states, tokens), on="language", validate="1:1")
        replaced = behaviour(model, tokenizer, site.code, site.layer, texts.groupby("language").head(REPLACED))
        found.append(part.merge(replaced, on="language", validate="1:1").assign(site=site.site, layer=site.layer))
    return pd.concat(found, ignore_index=True)


@torch.inference_mode()
def activity(code: SparseCode, latents: Sequence[int], states: torch.Tensor, tokens: pd.DataFrame) -> pd.DataFrame:
    """
    Column ``selected``: summed activation of ``latents`` per token, mean over each language's tokens and over ``all``.

    ``states`` ``[token, d_model]``, ``tokens`` as from `mmie.cache.described`, in the same order.
    """
    ids = torch.tensor(list(latents), dtype=torch.long)
    total = torch.cat([code.encode_some(part, ids).sum(-1) for part in states.split(CHUNK)]).double().numpy()
    by_language = pd.Series(total).groupby(tokens["language"].to_numpy()).mean()
    by_language["all"] = total.mean()
    return by_language.rename_axis("language").rename("selected").reset_index()
