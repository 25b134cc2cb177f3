"""
Edit kind ``quantise``: the weights of the decoder's linear modules at lower precision; hooks act on top, in fp32.

Facts: ``scheme``, ``rtn`` (round to nearest, symmetric, one step size per output channel, kept in the model's dtype),
``int8`` or ``nf4`` (bitsandbytes: LLM.int8, 2208.07339, and NormalFloat, 2305.14314); ``bits``; and ``merge_lora``:
LoRA edits before it are added to the weights first, as in a model that is shipped merged, instead of acting as hooks.
Embeddings and head keep their precision, as is usual.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie.model import decoder_layers


@contextmanager
def quantised(
    model: PreTrainedModel, facts: dict[str, Any], updates: Sequence[Mapping[str, torch.Tensor]] = ()
) -> Iterator[None]:
    """
    Inside the block the linear modules are quantised, ``updates`` (module path → addition) added before; afterwards
    the model has its own weights again, bit for bit.

    Raises ValueError when the model is quantised already, or an update names no linear module of the decoder.
    """
    paths = linear_modules(model)
    unknown = sorted({path for update in updates for path in update} - set(paths))
    if unknown:
        raise ValueError(
            f"a LoRA edit names module {unknown[0]}, which is no linear module of this model's decoder: it was trained "
            "on another model."
        )
    with ExitStack() as undo:
        for path in paths:
            module: Any = model.get_submodule(path)
            weight = module.weight.detach()
            for update in updates:
                if path in update:
                    weight = (weight.float() + update[path].to(weight.device)).to(weight.dtype)
            if facts["scheme"] == "rtn":
                undo.callback(partial(setattr, module.weight, "data", module.weight.data))
                module.weight.data = rounded(weight, facts["bits"])
            else:
                parent, _, name = path.rpartition(".")
                owner = model.get_submodule(parent)
                undo.callback(partial(setattr, owner, name, module))
                setattr(owner, name, _bitsandbytes(module, weight, facts["scheme"]))
        if facts["scheme"] == "int8":
            # It says at every product that bf16 is cast to fp16 on the way.
            talker = logging.getLogger("bitsandbytes.autograd._functions")
            undo.callback(talker.setLevel, talker.level)
            talker.setLevel(logging.ERROR)
        yield


def linear_modules(model: PreTrainedModel) -> list[str]:
    """Paths of the linear modules of the decoder layers. Raises ValueError when their weights are quantised already."""
    layers = {id(module) for module in decoder_layers(model).modules()}
    paths = []
    for path, module in model.named_modules():
        if id(module) in layers and isinstance(module, torch.nn.Linear):
            if not module.weight.is_floating_point():
                raise ValueError(
                    f"{path} is quantised already: an attack by quantisation needs config `model.quantisation: none`."
                )
            paths.append(path)
    return paths


def rounded(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """``weight`` ``[d_out, d_in]`` on a grid of 2^bits − 1 values per row, symmetric around 0 up to its largest one."""
    full = weight.float()
    largest = 2 ** (bits - 1) - 1
    step = (full.abs().amax(dim=1, keepdim=True) / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return ((full / step).round() * step).to(weight.dtype)


def _bitsandbytes(module: torch.nn.Linear, weight: torch.Tensor, scheme: str) -> torch.nn.Module:
    import bitsandbytes as bnb

    d_in, d_out, bias = module.in_features, module.out_features, module.bias is not None
    made: Any
    if scheme == "int8":
        made = bnb.nn.Linear8bitLt(d_in, d_out, bias=bias, has_fp16_weights=False, threshold=6.0, device="meta")
        made.weight = bnb.nn.Int8Params(weight.cpu(), requires_grad=False, has_fp16_weights=False)
    else:
        made = bnb.nn.Linear4bit(d_in, d_out, bias=bias, compute_dtype=weight.dtype, quant_type="nf4", device="meta")
        made.weight = bnb.nn.Params4bit(weight.cpu().clone(), requires_grad=False, quant_type="nf4")
    made.bias = module.bias
    made.weight = made.weight.to(weight.device)  # quantises
    return made.requires_grad_(False).eval()
