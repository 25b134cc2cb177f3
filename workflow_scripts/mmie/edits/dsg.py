"""
Edit kind ``dsg``: chosen latents are clamped below zero in texts where they are active often (DSG, 2504.08192).

ρ = share of the tokens so far on which a chosen latent is active; where ρ > τ, h' = h − Σ_{i active} (z_i + c) · d_i:
the active latents become −c, and the reconstruction error stays.

A token's ρ is that of the text up to it, so that cached decoding, decoding without a cache and scoring a whole text
give the same. Special tokens (padding, beginning of text) and attention sinks are no part of it and pass unchanged.

Tensors per layer n, fp32, rows of the chosen latents K only: ``layer{n}.encoder`` ``[latent, d_model]``,
``layer{n}.bias`` ``[latent]``, ``layer{n}.threshold`` ``[latent]``, ``layer{n}.decoder`` ``[latent, d_model]``,
``layer{n}.clamp`` ``[1]`` (c), ``layer{n}.tau`` ``[1]`` and ``layer{n}.max_norm`` ``[1]``, as in kind ``sae_gate``.
Facts: ``special`` (ids of special tokens) and ``min_tokens`` (shorter texts pass unchanged).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel

from mmie import tensors as io
from mmie.edits.hook import by_layer, layer_of

WITH_KEYWORDS = True
"""Hooks take the layer's keyword arguments: the cache is among them, and with it goes what was counted before."""


@dataclass(frozen=True)
class Counted:
    """What a layer has seen of each text of a batch."""

    active: torch.Tensor
    """Tokens on which a chosen latent was active, ``[text, 1]``."""
    total: torch.Tensor
    """Tokens, special ones left out, ``[text, 1]``."""
    columns: int
    """Columns of the batch, special tokens included."""


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """
    Pairs of module and forward hook: the embeddings, where token ids are seen, and the layers.

    Raises ValueError when a layer does not exist or has another width; while running, when a cache began before the
    edit was attached. Beam search reorders a cache unseen: decode greedily or by sampling.
    """
    special = torch.tensor(facts["special"], device=model.device)
    is_text: list[torch.Tensor] = [torch.empty(0)]

    def read(module: torch.nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], out: Any) -> None:
        ids = args[0] if args else keywords["input"]
        is_text[0] = ~torch.isin(ids, special)

    return [(model.get_input_embeddings(), read)] + [
        (layer_of(model, n, parts["decoder"].shape[1]), _hook(n, parts, facts["min_tokens"], is_text))
        for n, parts in by_layer(tensors, model.device)
    ]


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}.safetensors``; the file names."""
    io.save(tensors, folder / f"{stem}.safetensors")
    return [f"{stem}.safetensors"]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of this kind."""
    return io.load(file)


def rewrite(
    parts: dict[str, torch.Tensor], min_tokens: int
) -> Callable[[torch.Tensor, torch.Tensor, Counted | None], tuple[torch.Tensor, Counted]]:
    """
    The change that one layer's tensors describe: hidden states fp32 ``[text, token, d_model]``, which of them are text
    ``[text, token]``, and what was counted before, to the changed states and what is counted now.
    """
    encoder, decoder = parts["encoder"].T.contiguous(), parts["decoder"]
    bias, threshold = parts["bias"], parts["threshold"].clamp(min=0)
    clamp, tau, limit = (float(parts[name]) for name in ("clamp", "tau", "max_norm"))

    def run(h: torch.Tensor, is_text: torch.Tensor, before: Counted | None) -> tuple[torch.Tensor, Counted]:
        pre = h @ encoder + bias
        fires = pre > threshold
        counted = is_text & (h.norm(dim=-1) <= limit)
        active, total = (fires.any(-1) & counted).cumsum(-1), counted.cumsum(-1)
        if before is not None:
            active, total = active + before.active, total + before.total
        is_open = counted & (active > tau * total) & (total >= min_tokens)
        changed = h - ((pre + clamp) * fires) @ decoder
        now = Counted(active[:, -1:], total[:, -1:], h.shape[1] + (before.columns if before else 0))
        return torch.where(is_open[..., None], changed, h), now

    return run


def _hook(n: int, parts: dict[str, torch.Tensor], min_tokens: int, is_text: list[torch.Tensor]) -> Callable[..., Any]:
    change = rewrite(parts, min_tokens)
    # What was counted lives as long as the cache it belongs to.
    history: WeakKeyDictionary[Any, Counted] = WeakKeyDictionary()

    def run(module: torch.nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], out: Any) -> Any:
        states = out if torch.is_tensor(out) else out[0]
        cache = keywords.get("past_key_values")
        before = None if cache is None else history.get(cache)
        changed, now = change(states.float(), is_text[0], before)
        if cache is not None:
            if cache.get_seq_length(n) != now.columns:
                raise ValueError(
                    f"layer {n}: the cache holds {cache.get_seq_length(n)} tokens, of which this edit has seen "
                    f"{now.columns}. Attach it before the prompt is read, and do not crop the cache."
                )
            history[cache] = now
        changed = changed.to(states.dtype)
        return changed if torch.is_tensor(out) else (changed, *out[1:])

    return run
