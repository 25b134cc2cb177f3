"""
Which texts are in the activation cache, without the cache's index in memory, and samples of their tokens.

Of a text 23 bytes are kept, of a token nothing: the activations of one token take hundreds of times as much disk as
that. Stages that measure (layers, latents, quality) or fit (gates, LEACE) read the tokens of a seeded sample of texts;
autoencoders are trained on all of them (`mmie.streaming`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch

from mmie import cache, tables

FACTS = ["doc_id", "group_id", "language", "role", "split"]
TOKENS = 1 << 15
"""
Tokens per language and split that a stage reads at most: how often a latent fires on one token in a hundred is then
known to 5 %. The default corpus has at most 17 thousand, and so is read whole.
"""
GROUPS = 1000
"""Parallel groups per split that the choice of layers reads at most: its kernels are ``[group, group]``."""
PART = 1 << 14
"""Rows of the index, or texts, read at a time."""

Corpus: TypeAlias = str | Path | pd.DataFrame
"""corpus.parquet, or its rows."""


class Rows:
    """
    Row numbers of the cache, as spans: ``rows[positions]`` are those at these positions, ``len(rows)`` counts them.

    A tensor of them would take eight bytes a token.
    """

    def __init__(self, starts: torch.Tensor, counts: torch.Tensor) -> None:
        """Spans ``[n]`` in rising order; those that touch become one."""
        first = torch.ones(len(starts), dtype=torch.bool)
        first[1:] = starts[1:] != (starts + counts)[:-1]
        ends = torch.cumsum(counts, 0)
        self._starts = starts[first]
        self._before = (ends - counts)[first]
        self._len = int(counts.sum())

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, positions: torch.Tensor) -> torch.Tensor:
        span = torch.searchsorted(self._before, positions, right=True) - 1
        return positions - self._before[span] + self._starts[span]


def cached_texts(index: str | Path, corpus: Corpus) -> pd.DataFrame:
    """
    One row per cached text, in the order of the cache: ``start`` and ``count`` of its rows, ``language``, ``role`` and
    ``split`` (categorical), and ``key``, a hash of its group by which samples are drawn.

    Raises ValueError when the cache is of another corpus.
    """
    runs, start, found = _runs(index), 0, []
    columns: dict[str, list[str]] = {name: [] for name in ("language", "role", "split")}
    for part in _parts(corpus):
        part = cache.trainable(part)
        counts = np.fromiter((_next_count(runs, name) for name in part["doc_id"]), dtype=np.int64, count=len(part))
        starts = start + np.cumsum(counts) - counts
        start += int(counts.sum())
        keys = np.fromiter((_key(name) for name in part["group_id"]), dtype=np.uint64, count=len(part))
        codes = {}
        for name, seen in columns.items():
            seen += [value for value in part[name].unique() if value not in seen]
            codes[name] = pd.Categorical(part[name], seen).codes
        found.append(pd.DataFrame({"start": starts, "count": counts.astype(np.int32), "key": keys, **codes}))
    if next(runs, None) is not None or not found:
        raise _other_corpus("further texts")
    texts = pd.concat(found, ignore_index=True)
    return texts.assign(**{name: pd.Categorical.from_codes(texts[name], seen) for name, seen in columns.items()})


def rows_of_split(texts: pd.DataFrame, split: str) -> Rows:
    """
    Rows of the cache that belong to a split; ``texts`` as from `cached_texts`.

    Raises ValueError when there are none.
    """
    part = texts[texts["split"] == split]
    if not len(part):
        raise ValueError(f"the activation cache has no token of the {split} split: raise config `data.splits.{split}`.")
    return Rows(*(torch.tensor(part[name].to_numpy(), dtype=torch.long) for name in ("start", "count")))


def sampled(texts: pd.DataFrame, limit: int | None = None) -> pd.DataFrame:
    """
    The ``texts`` that are read where a sample is enough: of each language and split all, or the first whose tokens
    reach ``limit`` (`TOKENS`), by the hash of their group: a group stays together, and the order of texts says nothing.
    """
    limit = TOKENS if limit is None else limit
    order = texts.sort_values("key", kind="stable")
    before = order.groupby(["language", "split"], observed=True)["count"].cumsum() - order["count"]
    return texts.loc[np.sort(order.index[before < limit])]


def parallel_groups(texts: pd.DataFrame, languages: Sequence[str], limit: int | None = None) -> pd.DataFrame:
    """
    The ``texts`` in ``languages`` of groups that have all of them: all such groups, or ``limit`` (`GROUPS`) of each
    split by their hash.
    """
    limit = GROUPS if limit is None else limit
    part = texts[texts["language"].isin(list(languages))]
    counts = part.groupby("key")["language"].nunique()
    part = part[part["key"].isin(counts.index[counts == len(languages)])]
    groups = part[["key", "split"]].drop_duplicates().sort_values("key")
    return part[part["key"].isin(groups.groupby("split", observed=True)["key"].head(limit))]


def tokens_of(texts: pd.DataFrame, index: str | Path, corpus: Corpus) -> pd.DataFrame:
    """The index's rows of ``texts``, in its order, as from `mmie.cache.described`."""
    wanted = Rows(*(torch.tensor(texts[name].to_numpy(), dtype=torch.long) for name in ("start", "count")))
    rows = wanted[torch.arange(len(wanted))].numpy()
    found, done = [], 0
    for part in tables.parts(index, tables.TOKENS, size=PART):
        here = rows[slice(*np.searchsorted(rows, [done, done + len(part)]))] - done
        done += len(part)
        found.append(part.iloc[here])
    tokens = pd.concat(found, ignore_index=True)
    names = set(tokens["doc_id"])
    facts = pd.concat([part[part["doc_id"].isin(names)] for part in _parts(corpus)])
    return cache.described(tokens, facts)


def sampled_tokens(index: str | Path, corpus: Corpus) -> pd.DataFrame:
    """The rows of the index that stages read which measure or fit: `tokens_of` what is `sampled`."""
    return tokens_of(sampled(cached_texts(index, corpus)), index, corpus)


def first_texts(corpus: str | Path, split: str, count: int) -> pd.DataFrame:
    """The first ``count`` trainable texts of each language in a split, rows of corpus.parquet in its order."""
    found: list[pd.DataFrame] = []
    for part in tables.parts(corpus, tables.CORPUS):
        part = cache.trainable(part)
        found = [pd.concat([*found, part[part["split"] == split]]).groupby("language").head(count)]
    return pd.concat(found, ignore_index=True)


def _parts(corpus: Corpus) -> Iterator[pd.DataFrame]:
    if isinstance(corpus, pd.DataFrame):
        yield corpus[FACTS]
    else:
        yield from tables.parts(corpus, tables.CORPUS, FACTS, PART)


def _runs(index: str | Path) -> Iterator[tuple[str, int]]:
    """(text, number of its rows), in the order of the index."""
    last, count = None, 0
    for part in tables.parts(index, tables.TOKENS, ["doc_id"], PART):
        names = part["doc_id"].to_numpy()
        cuts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        for start, stop in pairwise(cuts):
            if names[start] != last:
                if last is not None:
                    yield last, count
                last, count = names[start], 0
            count += stop - start
    if last is not None:
        yield last, count


def _next_count(runs: Iterator[tuple[str, int]], name: str) -> int:
    found, count = next(runs, (None, 0))
    if found != name:
        raise _other_corpus(f"{found} where the corpus has {name}")
    return count


def _other_corpus(what: str) -> ValueError:
    return ValueError(
        f"results/activations/index.parquet has {what}: the cache is of another corpus. Delete it, and Snakemake makes "
        "it again."
    )


def _key(group_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(group_id.encode(), digest_size=8).digest(), "little")
