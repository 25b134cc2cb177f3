"""Safetensors in and out: the only place that reads or writes tensors."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_BYTES = {torch.bfloat16: ("BF16", 2), torch.float32: ("F32", 4)}


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


def create(path: str | Path, name: str, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    """
    A new file with one tensor ``name``, as a tensor mapped onto the file: rows are written where they belong.

    Memory does not grow with the file. Write to a scratch path and rename once it is full.
    Raises ValueError when the disk has no room for it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    code, width = _BYTES[dtype]
    size = shape[0] * shape[1] * width
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise ValueError(
            f"{path} needs {size / 2**20:.0f} MiB and the disk has {free / 2**20:.0f} MiB free. "
            "Free some space, or cache fewer layers (config `layers.candidates`)."
        )
    header = json.dumps({name: {"dtype": code, "shape": list(shape), "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    start = (8 + len(header)) // width  # whole: the header is padded to a multiple of 8
    mapped = torch.from_file(str(path), shared=True, size=start + shape[0] * shape[1], dtype=dtype)
    return mapped[start:].view(shape)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
