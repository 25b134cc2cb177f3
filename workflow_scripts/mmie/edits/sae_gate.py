"""
Edit kind ``sae_gate``: chosen latents of a sparse autoencoder are suppressed; its reconstruction error stays.

h' = h − g(h) · Σ_{i∈K} s · z_i · d_i, with z = ReLU((h − b_dec) W_enc + b_enc) where that exceeds the threshold
(JumpReLU).
Replacing h by the reconstruction instead would add its error to the edit. g = 1, or a trained gate σ(MLP(h)).

Tensors per layer n, fp32, rows of the chosen latents K only: ``layer{n}.encoder`` ``[latent, d_model]``,
``layer{n}.bias`` ``[latent]`` (b_enc − b_dec W_enc), ``layer{n}.threshold`` ``[latent]``, ``layer{n}.decoder``
``[latent, d_model]`` (times s), and ``layer{n}.max_norm`` ``[1]``: tokens with a larger norm (the first of a text, on
which the autoencoder was never trained) pass unchanged. With a gate also its tensors, as in kind ``hook``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie import tensors as io
from mmie.edits.hook import Rewrite, by_layer, gate_of, layer_of, on_output


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """Pairs of decoder layer and forward hook. Raises ValueError when a layer does not exist or has another width."""
    return [
        (layer_of(model, n, parts["decoder"].shape[1]), on_output(rewrite(parts)))
        for n, parts in by_layer(tensors, model.device)
    ]


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}.safetensors``; the file names."""
    io.save(tensors, folder / f"{stem}.safetensors")
    return [f"{stem}.safetensors"]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of this kind."""
    return io.load(file)


def rewrite(parts: dict[str, torch.Tensor]) -> Rewrite:
    """The change that one layer's tensors describe."""
    encoder, decoder = parts["encoder"].T.contiguous(), parts["decoder"]
    bias, threshold = parts["bias"], parts["threshold"].clamp(min=0)
    gate, limit = gate_of(parts), float(parts["max_norm"])

    def run(h: torch.Tensor) -> torch.Tensor:
        pre = h @ encoder + bias
        taken = (pre * (pre > threshold)) @ decoder
        if gate is not None:
            taken = gate(h) * taken
        return torch.where(h.norm(dim=-1, keepdim=True) > limit, h, h - taken)

    return run
