"""One pass over the texts that may be trained on: what the candidate layers put into the residual stream, per token."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import stage, tables
from mmie.batches import by_length, encode, padded
from mmie.cache import trainable
from mmie.model import decoder_layers, stop_after

CHUNK_TEXTS, CHUNK_TOKENS = 4096, 1 << 18
"""
A chunk of the cache, the least that is done again after a crash: so many texts, or as many as have so many tokens. The
default corpus is one, half a minute on a CPU; of its token ids, 10 MB are in memory.
"""


@dataclass(frozen=True)
class Chunk:
    """Texts that are cached together, in corpus order."""

    texts: pd.DataFrame
    """Column doc_id."""
    ids: list[list[int]]
    """Token ids of each."""

    @property
    def rows(self) -> int:
        """Cached tokens."""
        return sum(map(len, self.ids)) - len(self.ids)


def chunks(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, corpus: str | Path, skip: int = 0
) -> Iterator[Chunk]:
    """
    The trainable texts of corpus.parquet after the first ``skip``, read and tokenised as they are needed.

    Raises ValueError as `tokenised` does.
    """
    names: list[str] = []
    ids: list[list[int]] = []
    tokens = 0
    for part in tables.parts(corpus, tables.CORPUS, ["doc_id", "role", "split", "text"]):
        part = trainable(part)
        skip, part = max(0, skip - len(part)), part.iloc[skip:]
        for name, row in zip(part["doc_id"], tokenised(model, tokenizer, part), strict=True):
            names.append(name)
            ids.append(row)
            tokens += len(row)
            if len(names) >= CHUNK_TEXTS or tokens >= CHUNK_TOKENS:
                yield Chunk(pd.DataFrame({"doc_id": names}), ids)
                names, ids, tokens = [], [], 0
    if names:
        yield Chunk(pd.DataFrame({"doc_id": names}), ids)


def tokenised(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: pd.DataFrame) -> list[list[int]]:
    """
    Token ids of each text.

    Raises ValueError naming the text when it has no token besides the first, or exceeds the model's context.
    """
    ids = [encode(tokenizer, text) for text in texts["text"]]
    context = model.config.max_position_embeddings
    for doc_id, row in zip(texts["doc_id"], ids, strict=True):
        if not 2 <= len(row) <= context:
            raise ValueError(
                f"text {doc_id} has {len(row)} tokens; a text needs 2 to {context} (the model's context). "
                "Change it in the corpus (config `data.corpus`)."
            )
    return ids


def index_of(texts: pd.DataFrame, ids: Sequence[Sequence[int]], first: int = 0) -> pd.DataFrame:
    """
    One row per cached token (`tables.TOKENS`), a text's rows together, texts in their order, from row ``first`` on.

    Position 0 is left out: there a model parks its attention, and the norm is ten times the others' (2309.17453).
    """
    counts = [len(row) - 1 for row in ids]
    return pd.DataFrame(
        {
            "row": np.arange(first, first + sum(counts)),
            "doc_id": np.repeat(texts["doc_id"].to_numpy(), counts),
            "position": np.concatenate([np.arange(1, n + 1) for n in counts]) if counts else np.array([], dtype=int),
            "token": np.array([token for row in ids for token in row[1:]], dtype=int),
        }
    )


Passes = Callable[[Sequence[Sequence[Sequence[int]]]], Iterator[dict[int, torch.Tensor]]]
"""Batches of token ids to layer → outputs ``[text, token, d_model]`` of each, in their order."""


class Into(Protocol):
    """What takes rows ``[start:stop]`` of a layer's ``[token, d_model]``: a tensor, or `mmie.storage.Writer`."""

    def __setitem__(self, rows: slice, states: torch.Tensor) -> None: ...


@torch.inference_mode()
def fill(
    model: PreTrainedModel,
    pad: int,
    ids: Sequence[Sequence[int]],
    into: Mapping[int, Into],
    batch_tokens: int,
    first: int = 0,
    passes: Passes | None = None,
) -> None:
    """
    Write layer outputs into ``into``: layer → ``[token, d_model]``, rows as in `index_of`.

    Batches hold texts of similar length, at most ``batch_tokens`` padded tokens; where a row lands does not depend on
    them. ``passes`` runs them; by default ``model`` does.
    """
    start = first + np.concatenate([[0], np.cumsum([len(row) - 1 for row in ids])])
    batches = by_length([len(row) for row in ids], batch_tokens)
    run = passes or partial(own_passes, model, pad, sorted(into))
    found = stage.track(run([[ids[i] for i in batch] for batch in batches]), len(batches), "cache activations, batches")
    for batch, states in zip(batches, found, strict=True):
        for layer, rows in into.items():
            for place, i in enumerate(batch):
                rows[start[i] : start[i + 1]] = states[layer][place, 1 : len(ids[i])]


@torch.inference_mode()
def own_passes(
    model: PreTrainedModel, pad: int, layers: Sequence[int], batches: Sequence[Sequence[Sequence[int]]]
) -> Iterator[dict[int, torch.Tensor]]:
    """
    The outputs of ``layers``, ``[text, token, d_model]`` in the memory of the host, of one batch of token ids after the
    other. A pass ends after the last of the layers.
    """
    with _collected(model, layers) as (states, Stop):
        for ids in batches:
            tokens, mask = padded(ids, pad, model.device)
            with suppress(Stop):
                model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False)
            yield {layer: states[layer].to("cpu") for layer in layers}


@contextmanager
def _collected(
    model: PreTrainedModel, layers: Sequence[int]
) -> Iterator[tuple[dict[int, torch.Tensor], type[BaseException]]]:
    """Inside the block every forward pass leaves the layers' outputs in the dict, and ends by raising the exception."""
    states: dict[int, torch.Tensor] = {}

    def collect(layer: int) -> Any:
        def hook(_: torch.nn.Module, __: Any, out: Any) -> None:
            states[layer] = out if torch.is_tensor(out) else out[0]

        return hook

    modules = decoder_layers(model)
    if layers[-1] >= len(modules):
        raise ValueError(
            f"config `layers.candidates` names layer {layers[-1]}, and the model has layers 0 to {len(modules) - 1}."
        )
    handles = [modules[layer].register_forward_hook(collect(layer)) for layer in layers]
    try:
        # Hooks run in the order they were added: the last layer is collected before the pass is ended.
        with stop_after(model, layers[-1]) as stop:
            yield states, stop
    finally:
        for handle in handles:
            handle.remove()
