"""Autoencoders that others have trained: from SAELens' releases or a folder, in the form this workflow reads."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import torch

from mmie import tables
from mmie.sparse_code import TENSORS, SparseCode


def adopt(settings: Mapping[str, Any], layer: int, d_model: int) -> tuple[SparseCode, dict[str, Any], pd.DataFrame]:
    """
    The autoencoder that config `sae.ids` names for a layer, decoder rows scaled to norm 1, its SAELens config, and the
    rows of its training, which are none.

    Only ``source: pretrained`` uses the network. Raises ValueError when it is of another width, or of a kind whose
    latents cannot be read one by one.
    """
    from sae_lens import SAE

    where = f"config `sae.ids.{layer}: {settings['ids'][str(layer)]}`"
    if settings["source"] == "pretrained":
        sae = SAE.from_pretrained(settings["release"], settings["ids"][str(layer)])
    else:
        sae = SAE.load_from_disk(settings["ids"][str(layer)])
    kind, cfg = sae.cfg.architecture(), sae.cfg
    if kind not in ("jumprelu", "standard"):
        raise ValueError(f"{where} is a {kind} autoencoder; expected jumprelu or standard. Name another.")
    if cfg.d_in != d_model:
        raise ValueError(f"{where} reads {cfg.d_in} dimensions, and the model has {d_model}. Name one of this model.")
    if (cfg.normalize_activations, cfg.reshape_activations) != ("none", "none"):
        raise ValueError(f"{where} normalises or reshapes its input. Fold that into its weights in SAELens first.")
    sae.fold_W_dec_norm()
    parts = {name: value.detach().float() for name, value in sae.state_dict().items()}
    parts.setdefault("threshold", torch.zeros_like(parts["b_enc"]))
    described = {**cfg.to_dict(), "architecture": "jumprelu", "dtype": "float32", "device": "cpu"}
    code = SparseCode(**{name: parts[name] for name in TENSORS}, subtracts_bias=cfg.apply_b_dec_to_input)
    return code, described, tables.SAE_TRAINING.empty_table().to_pandas()
