"""Edits that suppress latents of the trained sparse autoencoders: which latents, and their rows as plain tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import tables
from mmie.edits import Edit
from mmie.examples import RETAIN, collate, plain, training_rows
from mmie.sparse_code import encoder_of
from mmie.unlearn import Sources, layer_statistics

Chosen = list[tuple[int, list[int]]]
"""(layer, latents) of each site, site 1 first."""

PROBED = 24
"""Texts on which the norm of attention sinks is measured."""


def selected(given: Sources, selector: str) -> Chosen:
    """The latents that ``selector`` took. Raises ValueError when it took none at any site."""
    chosen = [(layer, table.loc[table[f"{selector}_selected"], "latent"].tolist()) for layer, table in _features(given)]
    if not any(latents for _, latents in chosen):
        raise ValueError(
            f"the {selector} selector took no latent at any site: there is nothing to suppress. See the column "
            "`why` of "
            f"{given.features[0]}; train the autoencoders longer (config `sae.steps`) or raise config `features.count`."
        )
    return chosen


def drawn(given: Sources, selector: str, seed: int) -> Chosen:
    """
    As many latents per site as ``selector`` took, drawn among those that are alive and that it did not take.

    Raises ValueError when there are too few of them.
    """
    rng = np.random.default_rng(seed)
    found: Chosen = []
    for (layer, latents), (_, table) in zip(selected(given, selector), _features(given), strict=True):
        others = table.loc[table["alive"] & ~table[f"{selector}_selected"], "latent"].to_numpy()
        if len(others) < len(latents):
            raise ValueError(
                f"layer {layer}: {len(latents)} latents are selected and only {len(others)} others are alive. "
                "Lower config `features.count`."
            )
        found.append((layer, sorted(rng.choice(others, len(latents), replace=False).tolist())))
    return found


def suppression(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: Sources, chosen: Chosen, scale: float
) -> Edit:
    """
    The edit that takes ``scale`` times the activation of each chosen latent away, along its decoder row.

    It holds the rows of these latents alone, so that applying it needs no autoencoder.
    """
    rows = training_rows(given.corpus, given.data, control=False)
    texts = rows["text"].iloc[:: max(1, len(rows) // PROBED)].tolist()
    probe = collate([plain(tokenizer, text, RETAIN, 32) for text in texts], 0, tokenizer)
    layers = [layer for layer, latents in chosen if latents]
    seen = layer_statistics(model, [probe], layers)
    found: dict[str, torch.Tensor] = {}
    facts: dict[str, Any] = {"scale": scale, "latents": {}}
    for path, (layer, latents) in zip(given.saes, chosen, strict=True):
        if not latents:
            continue
        code = encoder_of(path, Path(path).parent / "cfg.json")
        ids = torch.tensor(latents)
        encoder = code.W_enc.T[ids]
        shift = encoder @ code.b_dec if code.subtracts_bias else torch.zeros(len(ids))
        found |= {
            f"layer{layer}.encoder": encoder,
            f"layer{layer}.bias": code.b_enc[ids] - shift,
            f"layer{layer}.threshold": code.threshold[ids],
            f"layer{layer}.decoder": scale * code.W_dec[ids],
            f"layer{layer}.max_norm": torch.tensor([seen[layer].max_norm]),
        }
        facts["latents"][str(layer)] = latents
    return Edit("sae_gate", tuple(sorted(layers)), found, facts)


def _features(given: Sources) -> list[tuple[int, pd.DataFrame]]:
    """(layer, features.parquet) of each site."""
    read = [tables.read(path, tables.FEATURES) for path in given.features]
    return [(int(table["layer"].iloc[0]), table) for table in read]
