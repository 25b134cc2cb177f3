"""Safetensors in and out: the only place that reads or writes tensors."""

import hashlib
import json
import math
import mmap
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_BYTES = {torch.float32: ("F32", 4), torch.bfloat16: ("BF16", 2), torch.int8: ("I8", 1)}


def save(tensors: Mapping[str, torch.Tensor], path: str | Path, **provenance: Any) -> None:
    """Write tensors whole or not at all; the same tensors give the same bytes."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # One metadata key: safetensors writes several in random order.
    save_file(
        {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)},
        partial,
        metadata={"mmie": json.dumps(provenance, sort_keys=True)},
    )
    os.replace(partial, path)


def load(path: str | Path, device: str = "cpu") -> dict[str, torch.Tensor]:
    """
    All tensors of a file, by name.

    Raises ValueError naming the file when it is missing or truncated.
    """
    try:
        with safe_open(str(path), framework="pt", device=device) as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and Snakemake makes it again.") from None


def reserve(path: str | Path, tensors: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> None:
    """
    A new safetensors file of tensors that are all zero, in the order given (wide types first): see `places`.

    It takes no room on the disk before it is written to.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        code, width = _BYTES[dtype]
        start, end = end, end + width * math.prod(shape)
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@dataclass(frozen=True)
class Place:
    """Where in a file a tensor is."""

    offset: int
    """Its first byte, from the start of the file."""
    dtype: torch.dtype
    shape: tuple[int, ...]


def places(path: str | Path) -> dict[str, Place]:
    """
    Where each tensor of a file is, without reading them.

    Raises ValueError naming the file when it is missing, truncated, or holds other types than `reserve` writes.
    """
    try:
        # With "np" it checks the file and maps nothing.
        with safe_open(str(path), framework="np"):
            pass
        with Path(path).open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        dtypes = {code: dtype for dtype, (code, _) in _BYTES.items()}
        return {
            name: Place(8 + size + about["data_offsets"][0], dtypes[about["dtype"]], tuple(about["shape"]))
            for name, about in header.items()
        }
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None
    except (SafetensorError, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and Snakemake makes it again.") from None


class Mapped:
    """
    Tensors of a file, mapped: what is used is read, and `release` gives it back.

    Mapped read-only and shared: `load` maps privately, for which the kernel wants as much free memory as the file has
    bytes, so that it fails on files larger than memory. Nothing may be written into ``tensors``.
    """

    def __init__(self, path: str | Path) -> None:
        found = places(path)
        with Path(path).open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.tensors: dict[str, torch.Tensor] = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            for name, place in found.items():
                count = math.prod(place.shape)
                flat = (
                    torch.frombuffer(self._map, dtype=place.dtype, count=count, offset=place.offset)
                    if count
                    else torch.empty(0, dtype=place.dtype)
                )
                self.tensors[name] = flat.view(place.shape)

    def release(self) -> None:
        """Take the pages that were read out of this process; they stay in the system's cache as long as it has room."""
        self._map.madvise(mmap.MADV_DONTNEED)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
