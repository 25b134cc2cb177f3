"""How the rows of an activation cache are stored, and what is lost by it: in 16 bits or, at half the size, in 8."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmie import tensors

STORAGES = ("bf16", "int8")
AT_ONCE = 512
"""Rows read before their pages are released: the kernel brings in 64 KB around each, so 32 MB."""
SMALLEST = 1e-12
"""Keeps a row or dimension of zeros from being divided by zero."""


def reserve(path: str | Path, layer: int, shape: tuple[int, int], storage: str, states: torch.Tensor | None) -> None:
    """
    A new file for ``shape`` ``[token, d_model]`` activations of a layer: tensor ``layer{n}``, and scales for ``int8``.

    ``int8`` is symmetric: a value is its integer times a scale of its token, ``layer{n}.token`` ``[token]``, times a
    factor of its dimension, ``layer{n}.dimension`` ``[d_model]``. The factor is the square root of the dimension's root
    mean square in ``states``, a first sample ``[some tokens, d_model]``, as SmoothQuant shares outliers out
    (2211.10438, its α = 0.5). The largest of Gemma's 640 dimensions is twenty times their root mean square: by a scale
    of the token alone the others keep a dozen levels, and 1.4 to 4.2 % of the variance is lost instead of 0.03 %.
    """
    name, rows = f"layer{layer}", shape[0]
    if storage == "bf16":
        tensors.reserve(path, {name: (torch.bfloat16, shape)})
        return
    scales = {f"{name}.dimension": (torch.float32, shape[1:]), f"{name}.token": (torch.float32, (rows,))}
    tensors.reserve(path, {**scales, name: (torch.int8, shape)})
    assert states is not None, "8 bits need a sample"
    factor = states.double().square().mean(0).sqrt().sqrt().clamp(min=SMALLEST).float()
    with Path(path).open("r+b") as file:
        file.seek(tensors.places(path)[f"{name}.dimension"].offset)
        file.write(_bytes(factor))


def size_of(shape: tuple[int, int], storage: str) -> int:
    """Bytes of such a file, without its header."""
    rows, width = shape
    return rows * width * 2 if storage == "bf16" else rows * (width + 4) + width * 4


class Loss:
    """What storing has cost, summed over tokens x that are stored as x̂."""

    def __init__(self, d_model: int, saved: Mapping[str, Any] | None = None) -> None:
        """``saved``: as of `saved` where an earlier process stopped."""
        saved = saved or {"n": 0, "squares": 0.0, "lost": 0.0, "cosines": 0.0, "worst": 1.0, "total": [0.0] * d_model}
        self._sums: dict[str, float] = {name: value for name, value in saved.items() if name != "total"}
        self._total = torch.tensor(saved["total"], dtype=torch.float64)

    def add(self, x: torch.Tensor, stored: torch.Tensor) -> None:
        """Count rows ``[token, d_model]``."""
        x, stored = x.double(), stored.double()
        cosine = torch.nn.functional.cosine_similarity(x, stored, dim=-1)
        self._sums["n"] += len(x)
        self._sums["squares"] += float(x.square().sum())
        self._sums["lost"] += float((x - stored).square().sum())
        self._sums["cosines"] += float(cosine.sum())
        self._sums["worst"] = min(self._sums["worst"], float(cosine.min()))
        self._total += x.sum(0)

    def saved(self) -> dict[str, Any]:
        """The sums as JSON holds them, exactly."""
        return {**self._sums, "total": self._total.tolist()}

    def summary(self) -> dict[str, float]:
        """
        The error of what is stored (`tables.STORAGE`).

        ``variance_lost`` is Σ‖x − x̂‖² / Σ‖x − mean‖²: most of a residual stream is its mean, beside which any error
        looks small.
        """
        n, squares, lost = (self._sums[name] for name in ("n", "squares", "lost"))
        return {
            "relative_error": (lost / squares) ** 0.5,
            "variance_lost": lost / (squares - float(self._total.square().sum()) / n),
            "cosine": self._sums["cosines"] / n,
            "cosine_worst": self._sums["worst"],
        }


class Writer:
    """
    Writes rows of one layer where they belong in a file that `reserve` made: ``writer[start:stop] = states``.

    With plain writes: on a full disk they are an OSError, where a mapped page kills the process, and no page that
    was written counts as memory of the process.
    """

    def __init__(self, path: str | Path, layer: int, loss: Mapping[str, Any] | None = None) -> None:
        """``loss``: as of `flushed` where an earlier process stopped."""
        self._name, self._places = f"layer{layer}", tensors.places(path)
        self._file = os.open(path, os.O_RDWR)
        self.loss = Loss(self._places[self._name].shape[1], loss)
        self._factor = _factor(tensors.Mapped(path), self._name)

    def __setitem__(self, rows: slice, states: torch.Tensor) -> None:
        x = states.float()
        if self._factor is None:
            stored = {self._name: x.bfloat16()}
            back = stored[self._name].float()
        else:
            scaled = x / self._factor
            scale = scaled.abs().amax(-1).clamp(min=SMALLEST) / 127
            whole = (scaled / scale[:, None]).round().to(torch.int8)
            stored = {self._name: whole, f"{self._name}.token": scale}
            back = _whole(whole, scale, self._factor)
        for name, part in stored.items():
            # A single write may stop short, for example on a nearly full disk: the rest is written by the next one.
            content, place = memoryview(_bytes(part)), self._places[name].offset + rows.start * part[0].nbytes
            while content:
                done = os.pwrite(self._file, content, place)
                content, place = content[done:], place + done
        self.loss.add(x, back)

    def flushed(self) -> dict[str, Any]:
        """Put what was written on the disk, and return the loss so far, to go on from."""
        os.fsync(self._file)
        return self.loss.saved()

    def close(self) -> None:
        """No more rows."""
        os.close(self._file)


class Stored:
    """
    Activations of a layer on disk, ``[token, d_model]``: a row is read when it is asked for, whatever way it is stored.

    ``stored[rows]``, with row numbers, a mask or a slice, is a tensor in memory: bf16, or fp32 from 8 bits. Nothing
    else stays in the process, however much is read.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = tensors.Mapped(path)
        names = [name for name in self._file.tensors if "." not in name]
        if len(names) != 1 or not names[0].removeprefix("layer").isdigit():
            raise ValueError(f"{path} is no activation cache: it has tensors {sorted(self._file.tensors)}. Delete it.")
        self._name = names[0]
        self._values = self._file.tensors[self._name]
        self._factor = _factor(self._file, self._name)
        self.layer = int(self._name.removeprefix("layer"))
        self.shape = tuple(self._values.shape)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, rows: torch.Tensor | slice) -> torch.Tensor:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        elif rows.dtype == torch.bool:
            rows = rows.nonzero()[:, 0]
        dtype = self._values.dtype if self._factor is None else torch.float32
        found = torch.empty(len(rows), self.shape[1], dtype=dtype)
        for part, into in zip(rows.split(AT_ONCE), found.split(AT_ONCE), strict=True):
            into.copy_(self._read(part))
            self._file.release()
        return found

    def _read(self, rows: torch.Tensor) -> torch.Tensor:
        values = self._values[rows]
        if self._factor is None:
            return values
        return _whole(values, self._file.tensors[f"{self._name}.token"][rows], self._factor)


States = torch.Tensor | Stored
"""Activations ``[token, d_model]``, in memory or on disk: read by rows, ``states[rows]``."""


def _factor(file: tensors.Mapped, name: str) -> torch.Tensor | None:
    found = file.tensors.get(f"{name}.dimension")
    return None if found is None else found.clone()


def _whole(values: torch.Tensor, scale: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return values.float() * scale[:, None] * factor


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
