"""
Edit kind ``neurons``: chosen neurons of the gated feed-forward layers are held at a constant.

A feed-forward layer computes W_down (act(W_gate h) ∘ W_up h); neuron j is component j of act(W_gate h), and becomes
``value[j]`` at every token. Nothing but activations is touched, so that quantised weights take the edit as well.

Tensors per layer n: ``layer{n}.neurons`` ``[neuron]`` int64, ``layer{n}.value`` ``[neuron]`` fp32.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie import tensors as io
from mmie.model import decoder_layers
from mmie.placement import device_of


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., torch.Tensor]]]:
    """
    Pairs of activation function and forward hook.

    Raises ValueError when a layer does not exist, has no gated feed-forward layer, or fewer neurons.
    """
    layers = sorted(int(name.split(".")[0].removeprefix("layer")) for name in tensors if name.endswith(".neurons"))
    pairs: list[tuple[torch.nn.Module, Callable[..., torch.Tensor]]] = []
    for n in layers:
        gate, width = gate_of(model, n)
        place = device_of(decoder_layers(model)[n])
        neurons, value = (tensors[f"layer{n}.{part}"].to(place) for part in ("neurons", "value"))
        if int(neurons.max()) >= width:
            raise ValueError(
                f"an edit of neuron {int(neurons.max())} of layer {n} does not fit a model of {width} neurons a layer: "
                "it was made for another model."
            )
        pairs.append((gate, _hook(neurons, value)))
    return pairs


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}.safetensors``; the file names."""
    io.save(tensors, folder / f"{stem}.safetensors")
    return [f"{stem}.safetensors"]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of this kind."""
    return io.load(file)


def gate_of(model: PreTrainedModel, n: int) -> tuple[torch.nn.Module, int]:
    """
    The activation function of layer n's feed-forward layer, and its number of neurons.

    Raises ValueError when the model has no such layer, or one of another form.
    """
    layers = decoder_layers(model)
    if not 0 <= n < len(layers):
        raise ValueError(f"an edit of layer {n} does not fit a model of {len(layers)} layers: choose the arm's layers.")
    mlp: Any = getattr(layers[n], "mlp", None)
    if not isinstance(getattr(mlp, "act_fn", None), torch.nn.Module) or not hasattr(mlp, "down_proj"):
        raise ValueError(
            f"layer {n} of {type(model).__name__} has no gated feed-forward layer `mlp` with `act_fn` and `down_proj`: "
            "its neurons cannot be edited. Leave arms of method `lape` out (`lape: false`)."
        )
    return mlp.act_fn, int(mlp.down_proj.in_features)


def _hook(neurons: torch.Tensor, value: torch.Tensor) -> Callable[..., torch.Tensor]:
    def run(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        held = value.to(out.dtype).expand(*out.shape[:-1], len(value))
        return out.index_copy(-1, neurons, held)

    return run
