"""Activations from one replica of the model, or from several side by side."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.activations import Passes, own_passes
from mmie.model import Runtime, load, skeleton, tokenizer_of
from mmie.parallel import Replicas, devices_of, in_order

log = logging.getLogger("mmie")

Sent = dict[int, tuple[npt.NDArray[np.uint8], torch.dtype]]
"""Layer → its outputs as bytes, which go through a pipe whatever their dtype, and that dtype."""


@contextmanager
def running(
    manifest: str | Path, runtime: Runtime, layers: Sequence[int], replicas: int = 1
) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase, Passes]]:
    """
    Inside the block: the model, its tokenizer, and what runs batches through it up to the last of ``layers``.

    With several replicas the model that is given has no weights, and the passes are shared among those that have; they
    come in the order of the batches, and are the same. Raises ValueError as `mmie.model.load` and
    `mmie.parallel.Replicas` do.
    """
    devices = devices_of(runtime["device"], replicas)
    if replicas == 1:
        model, tokenizer = load(manifest, runtime)
        yield model, tokenizer, partial(own_passes, model, int(tokenizer.pad_token_id), layers)
        return
    log.info("replicas on %s", ", ".join(devices))
    with Replicas(devices, partial(_replica, manifest, runtime, layers)) as several:
        model = skeleton(manifest, runtime["trust_remote_code"])
        tokenizer = tokenizer_of(manifest, runtime["trust_remote_code"])
        yield model, tokenizer, lambda batches: map(_received, in_order(several.map(batches)))


@contextmanager
def _replica(
    manifest: str | Path, runtime: Runtime, layers: Sequence[int], device: str
) -> Iterator[Callable[[Sequence[Sequence[int]]], Sent]]:
    model, tokenizer = load(manifest, {**runtime, "device": device})
    pad = int(tokenizer.pad_token_id)

    def work(ids: Sequence[Sequence[int]]) -> Sent:
        (states,) = own_passes(model, pad, layers, [ids])
        return {n: (value.contiguous().view(torch.uint8).numpy(), value.dtype) for n, value in states.items()}

    yield work


def _received(sent: Sent) -> dict[int, torch.Tensor]:
    return {n: torch.from_numpy(found).view(dtype) for n, (found, dtype) in sent.items()}
