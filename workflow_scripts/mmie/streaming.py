"""Batches of activations for training, in random order: through a buffer of bounded size where there are too many."""

from collections.abc import Iterator

import torch

from mmie.cached_texts import Rows
from mmie.storage import States

BLOCK = 256
"""
Neighbouring tokens that are read together: half a MB, which a disk or a network file system reads as fast as it can.
They are about six texts, and a buffer holds a thousand such blocks.
"""
CHUNK = 8192


def split(rows: Rows | torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """The row numbers, ``size`` at a time."""
    for start in range(0, len(rows), size):
        yield rows[torch.arange(start, min(start + size, len(rows)))]


def shuffled(
    states: States, rows: Rows | torch.Tensor, batch_size: int, seed: int, buffer: int
) -> Iterator[torch.Tensor]:
    """
    Batches ``[batch_size, d_model]`` fp32 without end: epochs over ``rows`` of ``states``, each in a new seeded order.

    At most ``buffer`` rows are in memory. Where that holds all of ``rows``, every order is equally likely. Where not,
    an epoch reads blocks of `BLOCK` neighbouring rows in random order into the buffer, and each time that it is full,
    half of it is drawn and makes room: each row comes once an epoch, and a batch is a random sample of a full buffer.
    """
    draw = torch.Generator().manual_seed(seed)
    parts = _whole(states, rows, draw) if len(rows) <= buffer else _mixed(states, rows, buffer, draw)
    waiting = next(parts)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, next(parts)])
        yield waiting[:batch_size].float()
        waiting = waiting[batch_size:]


def _whole(states: States, rows: Rows | torch.Tensor, draw: torch.Generator) -> Iterator[torch.Tensor]:
    held = _room(states, rows, len(rows))
    for start, part in zip(range(0, len(rows), CHUNK), split(rows, CHUNK), strict=True):
        held[start : start + len(part)] = states[part]
    while True:
        for part in torch.randperm(len(rows), generator=draw).split(BLOCK):
            yield held[part]


def _mixed(states: States, rows: Rows | torch.Tensor, buffer: int, draw: torch.Generator) -> Iterator[torch.Tensor]:
    block = max(1, min(BLOCK, buffer // 2))
    held = _room(states, rows, buffer)
    starts = torch.arange(0, len(rows), block)
    while True:
        free, full = torch.arange(buffer), torch.arange(0)  # places in the buffer
        for start in starts[torch.randperm(len(starts), generator=draw)].tolist():
            found = states[rows[torch.arange(start, min(start + block, len(rows)))]]
            places, free = free[: len(found)], free[len(found) :]
            held[places] = found
            full = torch.cat([full, places])
            if len(free) < block:
                full = full[torch.randperm(len(full), generator=draw)]
                half = (len(full) + 1) // 2
                for part in full[:half].split(BLOCK):
                    yield held[part]
                free, full = torch.cat([free, full[:half]]), full[half:]
        for part in full[torch.randperm(len(full), generator=draw)].split(BLOCK):
            yield held[part]


def _room(states: States, rows: Rows | torch.Tensor, count: int) -> torch.Tensor:
    """For ``count`` rows of ``states`` as they are read."""
    return torch.empty(count, states.shape[1], dtype=states[rows[torch.arange(1)]].dtype)
