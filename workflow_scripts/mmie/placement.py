"""
A model larger than one GPU: its layers are spread over the GPUs of a job (accelerate's device maps).

Hidden states come home after every layer: to the device of the embeddings, where the input is. So edits, and whatever
else watches the layers' outputs, find everything on one device, as on one GPU. It costs two copies of the states per
layer that lives elsewhere. What is attached *inside* a layer has to be where that layer's weights are (`device_of`).
"""

from typing import Any, cast

import torch
from transformers import PreTrainedModel

ONE = "none"
"""The device map of a model that is on one device."""


def check(device_map: str, device: str) -> None:
    """Raises ValueError when a model is to be spread and there are not at least two GPUs to spread it over."""
    if device_map == ONE:
        return
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device != "cuda" or found < 2:
        raise ValueError(
            f"config `model.device_map: {device_map}` needs `model.device: cuda` and at least two CUDA devices; here "
            f"the device is {device} and torch sees {found}. Use `device_map: none`, or ask for more GPUs (config "
            "`resources.gpus`)."
        )


def check_whole(model: PreTrainedModel) -> None:
    """
    Raises ValueError when a part of the model was left to the memory of the host or to the disk.

    Edits read weights, which an offloaded part does not have; and it would be slower than a CPU.
    """
    placed = cast(dict[str, Any], model.hf_device_map)
    left = sorted(name for name, device in placed.items() if str(device) in ("cpu", "disk"))
    if left:
        raise ValueError(
            f"the model does not fit on the GPUs: {len(left)} of its {len(placed)} parts were left over, {left[0]!r} "
            "for one. Use more GPUs (config `resources.gpus`), larger ones, or `model.quantisation: int8`."
        )


def bring_home(model: PreTrainedModel) -> None:
    """Let the layers, the decoder and the head put their output on the device of the embeddings, ``model.device``."""
    from accelerate.utils import send_to_device

    home = model.device

    def run(_: torch.nn.Module, __: Any, out: Any) -> Any:
        return send_to_device(out, home)

    def run_decoder(_: torch.nn.Module, __: Any, out: Any) -> None:
        out.last_hidden_state = out.last_hidden_state.to(home)  # the cache stays where its layers are

    decoder: Any = model.get_decoder()
    head: Any = model.get_output_embeddings()
    # Hooks run in the order of their registration: these come before those of any edit.
    for module in (*decoder.layers, head):
        module.register_forward_hook(run)
    decoder.register_forward_hook(run_decoder)


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module computes: the device of its first weight."""
    return next(module.parameters()).device
