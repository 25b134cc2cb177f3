"""The activation cache on disk: one tensor per layer, ``[token, d_model]``, and an index of its rows."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from mmie import tables
from mmie.storage import States, Stored

ROLES = ("forget", "retain", "neighbour", "control")
SPLITS = ("train", "tune")
CHUNK = 8192
"""Rows read at a time, so that memory does not grow with the cache."""


def trainable(corpus: pd.DataFrame) -> pd.DataFrame:
    """The texts that stages before evaluation may read, in corpus order: never test, unseen or code-mixed ones."""
    return corpus[corpus["role"].isin(ROLES) & corpus["split"].isin(SPLITS)]


def reading(paths: Sequence[str], index: str | Path) -> dict[int, Stored]:
    """
    Layer → its activations ``[token, d_model]``, read when used, in the order of the rows of ``index``.

    Raises ValueError when a file is no activation cache, or has another number of rows than the index.
    """
    rows = tables.count(index, tables.TOKENS)
    layers: dict[int, Stored] = {}
    for path in paths:
        states = Stored(path)
        if len(states) != rows:
            raise ValueError(
                f"{path} has {len(states)} rows and {index} has {rows}. They were not made together: delete both, and "
                "Snakemake makes them again."
            )
        layers[states.layer] = states
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


def totals(states: States, rows: torch.Tensor, codes: torch.Tensor, n: int) -> torch.Tensor:
    """Sums ``[n, d_model]`` fp64 of ``states[rows]`` with the same code, ``[len(rows)]``, 0 … n − 1."""
    out = torch.zeros(n, states.shape[1], dtype=torch.float64)
    for part, code in zip(rows.split(CHUNK), codes.split(CHUNK), strict=True):
        out.index_add_(0, code, states[part].double())
    return out
