"""
Edit kind ``lora``: low-rank updates of linear modules (2106.09685), stored as the folder that PEFT reads.

Tensors have PEFT's names, ``base_model.model.{module}.lora_A.weight`` ``[r, d_in]`` and ``….lora_B.weight`` ``[d_out,
r]``; facts: ``r``, ``lora_alpha`` and ``target_modules``.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie import tensors as io
from mmie.placement import device_of

PREFIX = "base_model.model."


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., torch.Tensor]]]:
    """
    Pairs of linear module and forward hook: out + (alpha / r) · B(A x), in fp32 and cast back, as PEFT computes it.

    Raises ValueError when the model has no such module or one of another size.
    """
    scale = facts["lora_alpha"] / facts["r"]
    pairs: list[tuple[torch.nn.Module, Callable[..., torch.Tensor]]] = []
    for name in sorted(name for name in tensors if name.endswith(".lora_A.weight")):
        path = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
        down, up = (tensors[n].float() for n in (name, name.replace(".lora_A.", ".lora_B.")))
        module = _linear(model, path, down.shape[1], up.shape[0])
        place = device_of(module)
        pairs.append((module, _hook(down.to(place), up.to(place), scale)))
    return pairs


def updates(tensors: dict[str, torch.Tensor], facts: dict[str, Any], strength: float) -> dict[str, torch.Tensor]:
    """Path of each module → what merging the edit adds to its weight, strength · (alpha / r) · B A, fp32."""
    factor = strength * facts["lora_alpha"] / facts["r"]
    return {
        name.removeprefix(PREFIX).removesuffix(".lora_A.weight"): factor
        * tensors[name.replace(".lora_A.", ".lora_B.")].float()
        @ down.float()
        for name, down in tensors.items()
        if name.endswith(".lora_A.weight")
    }


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}/`` so that ``PeftModel.from_pretrained`` reads it; the file names, weights first."""
    weights, config = f"{stem}/adapter_model.safetensors", f"{stem}/adapter_config.json"
    io.save({name: value.float() for name, value in tensors.items()}, folder / weights)
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "results/model",
        "r": facts["r"],
        "lora_alpha": facts["lora_alpha"],
        "lora_dropout": 0.0,
        "bias": "none",
        "inference_mode": True,
        "target_modules": sorted({name.removeprefix(PREFIX).split(".lora_")[0] for name in tensors}),
    }
    partial = folder / f"{config}.partial"
    partial.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, folder / config)
    return [weights, config]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a PEFT weights file."""
    return io.load(file)


def _hook(down: torch.Tensor, up: torch.Tensor, scale: float) -> Callable[..., torch.Tensor]:
    down, up = down.T.contiguous(), up.T.contiguous() * scale

    def run(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        # Each pass over an output costs as much as the products: one sum, in place.
        return ((args[0].float() @ down) @ up).add_(out).to(out.dtype)

    return run


def _linear(model: PreTrainedModel, path: str, d_in: int, d_out: int) -> torch.nn.Module:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise ValueError(
            f"a LoRA edit names module {path}, which this model does not have: it was trained on another model."
        ) from None
    shape = (getattr(module, "out_features", None), getattr(module, "in_features", None))
    if shape != (d_out, d_in):
        raise ValueError(
            f"a LoRA edit of module {path} is {(d_out, d_in)}, the module is {shape}: it was trained on another model."
        )
    return module
