"""Edits that suppress latents of the trained sparse autoencoders: which latents, and their rows as plain tensors."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import tables
from mmie.edits import Edit
from mmie.sparse_code import SparseCode, encoder_of
from mmie.train_states import sink_norms
from mmie.unlearn import Sources

Chosen = list[tuple[int, list[int]]]
"""(layer, latents) of each site, site 1 first."""


def selected(given: Sources, selector: str) -> Chosen:
    """
    The latents that ``selector`` took, per site.

    Raises ValueError when it took none at any site.
    """
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
    found, facts = rows_of(model, tokenizer, given, chosen)
    for name in found:
        if name.endswith(".decoder"):
            found[name] = scale * found[name]
    return Edit("sae_gate", tuple(sorted(int(n) for n in facts["latents"])), found, {"scale": scale, **facts})


def rows_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: Sources, chosen: Chosen
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """
    What an edit of chosen latents needs of the autoencoders, and which latents they are, as facts of its card.

    Per layer n: ``layer{n}.encoder`` and ``.decoder`` ``[latent, d_model]``, ``.bias`` and ``.threshold`` ``[latent]``,
    and ``.max_norm`` ``[1]``, above which a token is an attention sink.
    """
    norms = sink_norms(model, tokenizer, given, [layer for layer, latents in chosen if latents])
    found: dict[str, torch.Tensor] = {}
    latents_of: dict[str, list[int]] = {}
    for code, (layer, latents) in zip(codes(given), chosen, strict=True):
        if not latents:
            continue
        ids = torch.tensor(latents)
        encoder = code.W_enc.T[ids]
        shift = encoder @ code.b_dec if code.subtracts_bias else torch.zeros(len(ids))
        found |= {
            f"layer{layer}.encoder": encoder,
            f"layer{layer}.bias": code.b_enc[ids] - shift,
            f"layer{layer}.threshold": code.threshold[ids],
            f"layer{layer}.decoder": code.W_dec[ids],
            f"layer{layer}.max_norm": norms[layer],
        }
        latents_of[str(layer)] = latents
    return found, {"latents": latents_of}


def codes(given: Sources) -> list[SparseCode]:
    """The autoencoder of each site, site 1 first."""
    return [encoder_of(path, Path(path).parent / "cfg.json") for path in given.saes]


def _features(given: Sources) -> list[tuple[int, pd.DataFrame]]:
    """(layer, features.parquet) of each site."""
    read = [tables.read(path, tables.FEATURES) for path in given.features]
    return [(int(table["layer"].iloc[0]), table) for table in read]
