"""
Making the activation cache: chunk by chunk, in a working folder that outlives a killed job.

Snakemake deletes what a killed job left of its outputs, so the files are filled elsewhere and renamed when they are
whole. A journal says what they belong to and how far they are: it is written when a chunk is on the disk.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import files, tables
from mmie.activations import Chunk, Passes, chunks, fill, index_of
from mmie.storage import Writer, reserve, size_of

log = logging.getLogger("mmie")

FIRST = 4096
"""Tokens of the first texts from which the scales of 8-bit storage are measured."""


class Work:
    """The working folder, and the journal of what is in it: None where that is nothing of use."""

    def __init__(self, folder: str | Path, belongs: Mapping[str, Any]) -> None:
        """``belongs``: what the files are made from, as JSON has it; files that were made from anything else go."""
        self.folder = Path(folder)
        self._belongs = dict(belongs)
        self.journal = self._found()
        if self.journal is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)

    def path(self, name: str) -> Path:
        """A file of the folder."""
        return self.folder / name

    def write(self, journal: dict[str, Any]) -> None:
        """Say how far the files are, once they are on the disk."""
        self.journal = {**journal, "belongs": self._belongs}
        partial = self.path("journal.partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(self.journal, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.path("journal.json"))

    def remove(self) -> None:
        """The files are whole and elsewhere."""
        shutil.rmtree(self.folder)
        with suppress(OSError):  # it holds something else's
            self.folder.parent.rmdir()

    def _found(self) -> dict[str, Any] | None:
        if not self.path("journal.json").exists():
            return None
        journal: dict[str, Any] = files.read_json(self.path("journal.json"))
        before = journal["belongs"]
        other = [name for name in self._belongs if before.get(name) != self._belongs[name]]
        gone = [name for name in journal["files"] if not self.path(name).exists()]
        if other:
            log.info("%s holds the beginning of another cache (other %s): starting over", self.folder, ", ".join(other))
        elif gone:
            log.info("%s lacks %s: starting over", self.folder, ", ".join(gone))
        return None if other or gone else journal


def make(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: str | Path,
    paths: Mapping[int, str],
    index: str | Path,
    work: Work,
    batch_tokens: int,
    storage: str,
    code: str = "",
    passes: Passes | None = None,
) -> pd.DataFrame:
    """
    Fill ``paths`` (layer → file) and ``index``, from where ``work`` stopped, and remove it.

    ``passes`` runs the batches, by default ``model`` itself: with it, ``model`` needs no weights.

    Returns rows of `tables.STORAGE`: what storing the activations has cost. Memory does not grow with the corpus.
    Raises ValueError when a text is empty or too long, and, before the model runs, when the disk has no room.
    """
    names = {layer: f"layer{layer}.safetensors" for layer in paths}
    if work.journal is None:
        _start(model, tokenizer, corpus, names, work, batch_tokens, storage, code, passes)
    assert work.journal is not None
    journal = dict(work.journal)
    shape = (journal["rows"], model.config.hidden_size)
    if journal["chunks"]:
        log.info(
            "going on after chunk %d: %d of %d texts are cached", journal["chunks"], journal["done"], journal["texts"]
        )
    _check_room(work, shape, names, storage)
    log.info("the cache takes %.0f MiB", size_of(shape, storage) * len(names) / 2**20)
    writers = {n: Writer(work.path(name), n, journal["losses"].get(str(n))) for n, name in names.items()}
    pad = int(tokenizer.pad_token_id)
    for chunk in chunks(model, tokenizer, corpus, skip=journal["done"]):
        fill(model, pad, chunk.ids, writers, batch_tokens, journal["row"], passes)
        journal["chunks"] += 1
        journal["done"] += len(chunk.ids)
        journal["row"] += chunk.rows
        journal["losses"] = {str(n): writer.flushed() for n, writer in writers.items()}
        work.write(journal)
        log.info("chunk %d: %d of %d texts are cached", journal["chunks"], journal["done"], journal["texts"])
    for writer in writers.values():
        writer.close()
    table = _stored(writers, shape, storage)
    Path(index).parent.mkdir(parents=True, exist_ok=True)
    for layer, path in paths.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(work.path(names[layer]), path)
    os.replace(work.path("index.parquet"), index)
    work.remove()
    return table


def _start(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: str | Path,
    names: Mapping[int, str],
    work: Work,
    batch_tokens: int,
    storage: str,
    code: str,
    passes: Passes | None,
) -> None:
    """Check every text, write the index, and make the empty files."""
    rows = texts = 0
    with tables.writing(work.path("index.parquet"), tables.TOKENS, code=code) as append:
        for chunk in chunks(model, tokenizer, corpus):
            append(index_of(chunk.texts, chunk.ids, rows))
            rows += chunk.rows
            texts += len(chunk.ids)
    if not texts:
        raise ValueError(f"{corpus} has no text to train on: raise config `data.splits.train`.")
    shape = (rows, model.config.hidden_size)
    _check_room(work, shape, names, storage)
    first = _first(model, tokenizer, corpus, list(names), batch_tokens, passes) if storage == "int8" else {}
    for layer, name in names.items():
        reserve(work.path(name), layer, shape, storage, first.get(layer))
    for name in ("index.parquet", *names.values()):
        with work.path(name).open("rb") as file:
            os.fsync(file.fileno())
    journal = {"rows": rows, "texts": texts, "chunks": 0, "done": 0, "row": 0, "losses": {}}
    work.write({**journal, "files": ["index.parquet", *names.values()]})


def _first(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    corpus: str | Path,
    layers: list[int],
    batch_tokens: int,
    passes: Passes | None,
) -> dict[int, torch.Tensor]:
    """Activations of the first texts, ``[token, d_model]`` fp32 per layer."""
    chunk: Chunk = next(chunks(model, tokenizer, corpus))
    ids = [chunk.ids[0]]
    for row in chunk.ids[1:]:
        if sum(map(len, ids)) + len(row) > FIRST:
            break
        ids.append(row)
    states = {n: torch.empty(sum(map(len, ids)) - len(ids), model.config.hidden_size) for n in layers}
    fill(model, int(tokenizer.pad_token_id), ids, states, batch_tokens, passes=passes)
    return states


def _check_room(work: Work, shape: tuple[int, int], names: Mapping[int, str], storage: str) -> None:
    """
    Raises ValueError when the disk has less room than the files still take: they are sparse until they are written to.
    """
    needed = size_of(shape, storage) * len(names)
    taken = sum(work.path(name).stat().st_blocks * 512 for name in names.values() if work.path(name).exists())
    free = shutil.disk_usage(work.folder).free
    if needed - taken > free:
        smaller = ", or store 8 bits (config `activations.storage: int8`)" if storage == "bf16" else ""
        raise ValueError(
            f"{work.folder}: the activation cache needs {(needed - taken) / 2**20:.0f} MiB more ({shape[0]} tokens × "
            f"{len(names)} layers × {shape[1]} dimensions), and {free / 2**20:.0f} MiB are free there. Free some "
            f"space, cache fewer layers (config `layers.candidates`){smaller}."
        )


def _stored(writers: Mapping[int, Writer], shape: tuple[int, int], storage: str) -> pd.DataFrame:
    """Rows of `tables.STORAGE`, and a line of the log for each."""
    found = []
    for layer, writer in writers.items():
        loss = writer.loss.summary()
        log.info(
            "layer %d in %s: %.3g %% of the variance lost, relative error %.3g, mean cosine %.6f",
            layer, storage, 100 * loss["variance_lost"], loss["relative_error"], loss["cosine"],
        )  # fmt: skip
        found.append(
            {"layer": layer, "storage": storage, "n_tokens": shape[0], "bytes": size_of(shape, storage), **loss}
        )
    return pd.DataFrame(found)
