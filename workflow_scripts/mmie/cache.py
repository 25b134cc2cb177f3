"""The activation cache on disk: one tensor per layer, ``[token, d_model]`` bf16, and an index of its rows."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from mmie import tensors

CHUNK = 8192
"""Rows read at a time, so that memory does not grow with the cache."""


@contextmanager
def writing(paths: Mapping[int, str], shape: tuple[int, int]) -> Iterator[dict[int, torch.Tensor]]:
    """Inside the block, layer → tensor mapped onto a file beside its path; the files appear when all are full."""
    scratch = {layer: Path(f"{path}.partial") for layer, path in paths.items()}
    try:
        yield {layer: tensors.create(path, _name(layer), shape, torch.bfloat16) for layer, path in scratch.items()}
        for layer, path in scratch.items():
            os.replace(path, paths[layer])
    finally:
        for path in scratch.values():
            path.unlink(missing_ok=True)


def reading(paths: Sequence[str], index: pd.DataFrame) -> dict[int, torch.Tensor]:
    """
    Layer → activations ``[token, d_model]`` bf16, mapped (read when used), in the order of ``index``.

    Raises ValueError when a file is no activation cache, or has another number of rows than the index.
    """
    layers: dict[int, torch.Tensor] = {}
    for path in paths:
        for name, states in tensors.load(path).items():
            if not name.startswith("layer") or len(states) != len(index):
                raise ValueError(
                    f"{path}: tensor {name!r} has {len(states)} rows and index.parquet has {len(index)}. They were not "
                    "made together: delete both, and Snakemake makes them again."
                )
            layers[int(name.removeprefix("layer"))] = states
    return layers


def described(index: pd.DataFrame, corpus: pd.DataFrame) -> pd.DataFrame:
    """
    ``index`` with ``group_id``, ``language``, ``role`` and ``split`` of each token's text, in the same order.

    Raises ValueError when a cached text is not in the corpus.
    """
    facts = corpus.set_index("doc_id")[["group_id", "language", "role", "split"]]
    unknown = set(index["doc_id"].unique()) - set(facts.index)
    if unknown:
        raise ValueError(
            f"results/activations/index.parquet has texts that the corpus lacks, for example {min(unknown)}: the cache "
            "is of another corpus. Delete it, and Snakemake makes it again."
        )
    return index.join(facts, on="doc_id")


def layer_of(ranking: pd.DataFrame, site: int) -> int:
    """The decoder layer of a site, a rank of layers.parquet. Raises ValueError when there is none."""
    found = ranking.loc[ranking["rank"] == site, "layer"]
    if len(found) != 1:
        raise ValueError(f"results/layers.parquet has no rank {site}: raise config `layers.count`, or add candidates.")
    return int(found.iloc[0])


def totals(states: torch.Tensor, codes: torch.Tensor, n: int) -> torch.Tensor:
    """Sums ``[n, d_model]`` fp64 of the rows of each code (0 … n − 1; −1 is left out); ``codes`` is ``[token]``."""
    out = torch.zeros(n, states.shape[1], dtype=torch.float64)
    for start in range(0, len(states), CHUNK):
        part = codes[start : start + CHUNK]
        out.index_add_(0, part[part >= 0], states[start : start + CHUNK][part >= 0].double())
    return out


def _name(layer: int) -> str:
    return f"layer{layer}"
