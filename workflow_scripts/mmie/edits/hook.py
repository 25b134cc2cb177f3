"""
Edit kind ``hook``: low-rank rewriting of the residual stream after a decoder layer, with or without a gate.

h' = h + g(h) · Rᵀ(W h + b − R h), LoReFT (2404.03592) with g = 1, GRUN (2502.17823) with g = σ(MLP(h)), per token.

Tensors per layer n, fp32: ``layer{n}.R`` ``[r, d_model]`` with orthonormal rows, ``layer{n}.W`` ``[r, d_model]``,
``layer{n}.b`` ``[r]``; with a gate also ``gate_mean`` and ``gate_scale`` ``[d_model]`` (the input is standardised),
``gate_in`` ``[hidden, d_model]``, ``gate_in_bias`` ``[hidden]``, ``gate_out`` ``[hidden]``, ``gate_out_bias`` ``[1]``;
and ``max_norm`` ``[1]``.

Tokens whose norm exceeds ``max_norm`` pass unchanged. The first token of a text, an attention sink, has ten times the
norm of any other and holds no language; the rule needs no position, so cached decoding and padding change nothing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie import tensors as io
from mmie.model import decoder_layers

Rewrite = Callable[[torch.Tensor], torch.Tensor]
"""A change of hidden states: fp32 ``[batch, token, d_model]`` in and out."""


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """Pairs of decoder layer and forward hook. Raises ValueError when a layer does not exist or has another width."""
    return [
        (layer_of(model, n, parts["R"].shape[1]), on_output(rewrite(parts)))
        for n, parts in by_layer(tensors, model.device)
    ]


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}.safetensors``; the file names."""
    io.save(tensors, folder / f"{stem}.safetensors")
    return [f"{stem}.safetensors"]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a hook file."""
    return io.load(file)


def rewrite(parts: dict[str, torch.Tensor]) -> Rewrite:
    """The change that one layer's tensors describe, with everything that does not depend on h worked out once."""
    # W h + b − R h = (W − R) h + b: one product instead of two.
    down, bias, up = (parts["W"] - parts["R"]).T.contiguous(), parts["b"], parts["R"]
    gate = gate_of(parts)
    limit = float(parts["max_norm"])

    def run(h: torch.Tensor) -> torch.Tensor:
        delta = (h @ down + bias) @ up
        if gate is not None:
            delta = gate(h) * delta
        return torch.where(h.norm(dim=-1, keepdim=True) > limit, h, h + delta)

    return run


def on_output(change: Rewrite) -> Callable[..., Any]:
    """A forward hook that applies ``change`` to a layer's hidden states in fp32 and casts back."""

    def run(module: torch.nn.Module, args: tuple[Any, ...], out: Any) -> Any:
        if torch.is_tensor(out):
            return change(out.float()).to(out.dtype)
        return (change(out[0].float()).to(out[0].dtype), *out[1:])

    return run


def by_layer(tensors: dict[str, torch.Tensor], device: torch.device) -> list[tuple[int, dict[str, torch.Tensor]]]:
    """``layer{n}.name`` tensors as (n, {name: fp32 tensor}), by n."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        layer, _, part = name.partition(".")
        found.setdefault(int(layer.removeprefix("layer")), {})[part] = value.float().to(device)
    return sorted(found.items())


def layer_of(model: PreTrainedModel, n: int, d_model: int) -> torch.nn.Module:
    """Decoder layer n. Raises ValueError when the model has no such layer or another width."""
    layers = decoder_layers(model)
    if not 0 <= n < len(layers) or d_model != model.config.hidden_size:
        raise ValueError(
            f"an edit of layer {n}, d_model {d_model}, does not fit a model of {len(layers)} layers, "
            f"d_model {model.config.hidden_size}: it was made for another model."
        )
    return layers[n]


def gate_of(parts: dict[str, torch.Tensor]) -> Rewrite | None:
    """The gate among a layer's tensors: hidden states to ``[batch, token, 1]`` in (0, 1). None where there is none."""
    if "gate_in" not in parts:
        return None
    # The standardisation of the input is part of the first linear map.
    weight = parts["gate_in"] / parts["gate_scale"]
    bias = parts["gate_in_bias"] - weight @ parts["gate_mean"]
    weight = weight.T.contiguous()
    out, out_bias = parts["gate_out"][:, None].contiguous(), parts["gate_out_bias"]
    return lambda h: torch.sigmoid(torch.relu(h @ weight + bias) @ out + out_bias)
