"""
Devices that are not there: tensors that compute on the CPU, say that they are on `ipu:0` or `ipu:1`, and refuse to meet
a tensor of another device, as those of two GPUs do.

What PyTorch would refuse on two GPUs is refused here, with the same kind of message; what it computes is what the CPU
computes. Only data crosses by `.to`. (`ipu` is a device type that PyTorch knows the name of and has no code for.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

HERE, THERE = torch.device("ipu:0"), torch.device("ipu:1")


class Placed(torch.Tensor):
    """A tensor that says it is on another device."""

    inner: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, real: torch.Tensor, device: torch.device) -> "Placed":
        with torch.inference_mode(False):
            made = torch.Tensor._make_wrapper_subclass(
                cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype,
                device="meta", requires_grad=False,
            )  # fmt: skip
        made.inner, made.place = real, device
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    def __repr__(self, **_: Any) -> str:
        return f"Placed({self.inner}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Calls that make a tensor on such a device out of nothing reach nobody else."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Move(torch.autograd.Function):
    """To another device, and the gradient back: PyTorch's own would not know that these are two."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, device: torch.device) -> torch.Tensor:
        ctx.back = x.device
        return x.to(device)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0].to(ctx.back), None


class _Constructor(TorchFunctionMode):
    """
    What asks the device itself, before anybody can answer for it: `torch.tensor` is made here and moved, `tolist` read
    here, and other data put into a weight.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and isinstance(args[0], Placed) and args[0].requires_grad:
            device = next((torch.device(v) for v in [*args[1:], kwargs.get("device")] if _names_device(v)), None)
            if device is not None and device != args[0].device and torch.is_grad_enabled():
                args = (_Move.apply(args[0], device), *args[1:])
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu").type == "ipu":
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], Placed):
            return args[0].inner.tolist()
        if func == torch.Tensor.data.__set__ and isinstance(args[0], Placed):
            args[0].inner, args[0].place = args[1].inner, args[1].place
            return None
        return func(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[None]:
    """Inside the block tensors can be on `HERE` and `THERE`."""
    # PyTorch's own is in C++ and does not know that these are two devices.
    grouping = mock.patch("torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype", _grouped)
    with _Factories(), _Constructor(), grouping:
        yield


def _grouped(lists: Any, with_indices: bool = False) -> Any:
    groups: dict[Any, Any] = {}
    for row in zip(*lists, strict=True):
        columns = groups.setdefault((row[0].device, row[0].dtype), ([[] for _ in lists], []))[0]
        for column, tensor in zip(columns, row, strict=True):
            column.append(tensor)
    return groups


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    flat = tree_flatten((args, kwargs))[0]
    wanted = next((value for value in flat if isinstance(value, torch.device)), None)
    placed = [value for value in flat if isinstance(value, torch.Tensor)]
    # As on a GPU: a number on the CPU meets anybody; so do indices on the CPU.
    there = {t.device for t in placed if isinstance(t, Placed)}
    strangers = [t for t in placed if not isinstance(t, Placed) and t.ndim > 0]
    crosses = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    indexes = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
    if not crosses and (len(there) > 1 or (there and strangers and not indexes)):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found {[str(t.device) for t in placed]} in {func}"
        )
    if wanted is not None:
        on = wanted
        if on.type == "meta":  # PyTorch's own C++ asks where a tensor is, and makes a number there
            on = torch.device("cpu") if not there else next(iter(there))
    elif func is torch.ops.aten.copy_.default:
        on = args[0].device
    else:
        on = next(iter(there), torch.device("cpu"))
    real_args, real_kwargs = tree_map(_real, (args, kwargs))
    out = func(*real_args, **real_kwargs)
    # What was changed in place, or not at all, is returned as itself.
    same = {id(t.inner): t for t in placed if isinstance(t, Placed) and t.place == on}

    def placed_again(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or on.type != "ipu":
            return value
        return same.get(id(value), Placed(value, on))

    return tree_map(placed_again, out)


def _names_device(value: Any) -> bool:
    return isinstance(value, (torch.device, str))


def _real(value: Any) -> Any:
    """What the CPU is given in the place of an argument."""
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.inner if isinstance(value, Placed) else value


def spread(model: Any, head: torch.device = HERE) -> Any:
    """
    As `mmie.model.load` leaves a model that accelerate has spread over two GPUs: embeddings and the lower layers on
    `HERE`, the upper half and the last norm on `THERE`, the head on ``head``. To be called, and used, inside `pretended`.
    """
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    from mmie import placement

    decoder = model.get_decoder()
    upper = [*decoder.layers[len(decoder.layers) // 2 :], decoder.norm]
    for module in model.modules():
        place = THERE if any(module is part for top in upper for part in top.modules()) else HERE
        place = head if module is model.get_output_embeddings() else place
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(weight.data.to(place), requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(place)
    if head == HERE and model.config.tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    for module in (*decoder.layers, decoder.norm, model.get_output_embeddings()):
        place = next(module.parameters()).device
        add_hook_to_module(module, AlignDevicesHook(place, skip_keys=model._skip_keys_device_placement))
    placement.bring_home(model)
    return model
