"""Shuffling with bounded memory: every row once an epoch, well mixed, the same for the same seed."""

from __future__ import annotations

from itertools import islice

import torch

from mmie.cached_texts import Rows
from mmie.streaming import BLOCK, shuffled, split


def numbers(n, width=2):
    return torch.arange(float(n)).repeat(width, 1).T


def test_where_all_rows_fit_batches_are_exact_epochs():
    rows = torch.arange(10, 40)
    seen = torch.cat([batch[:, 0] for batch in islice(shuffled(numbers(100), rows, 7, 1, 30), 60)])  # 420 = 14 epochs
    assert seen.unique(return_counts=True)[1].tolist() == [14] * 30
    assert seen[:30].sort().values.tolist() == list(range(10, 40)) and seen[:30].tolist() != seen[30:60].tolist()
    # The order is that of torch.randperm, as it is without a buffer.
    assert seen[:30].tolist() == rows[torch.randperm(30, generator=torch.Generator().manual_seed(1))].tolist()
    other = next(shuffled(numbers(100), rows, 7, 2, 30))[:, 0]
    assert other.tolist() != seen[:7].tolist()


def test_through_a_smaller_buffer_each_row_comes_once_an_epoch():
    n, buffer = 20 * BLOCK + 17, 4 * BLOCK
    rows = torch.arange(5, 5 + n)
    states = numbers(n + 10)
    epochs = list(islice(shuffled(states, rows, n, 3, buffer), 2))
    for epoch in epochs:
        assert epoch[:, 0].sort().values.tolist() == rows.tolist()
    assert not torch.equal(*epochs)
    again = torch.cat(list(islice(shuffled(states, rows, 100, 3, buffer), n // 100)))
    assert torch.equal(again, epochs[0][: len(again)])  # whatever the batch


def test_a_batch_through_a_buffer_mixes_a_corpus_that_is_sorted_by_language():
    """20 languages one after the other: a batch holds most of them, neighbours in it are no neighbours in the cache."""
    n, buffer, batch = 400 * BLOCK, 100 * BLOCK, 512
    states = numbers(n, width=1)
    for found in islice(shuffled(states, torch.arange(n), batch, 0, buffer), 100):
        languages = (found[:, 0] // (n / 20)).long().bincount(minlength=20)
        assert (languages > 0).sum() >= 18
        blocks = (found[:, 0] // BLOCK).long().unique()
        # 512 draws from 100 blocks or more leave few of them out.
        assert len(blocks) > 90


def test_no_more_rows_are_read_than_fit_the_buffer():
    class Counted:
        shape = (5000, 2)
        read = 0

        def __getitem__(self, rows):
            self.read += len(rows)
            return torch.zeros(len(rows), 2)

    states = Counted()
    batches = shuffled(states, torch.arange(5000), 64, 0, 1024)
    for served in range(1, 40):
        next(batches)
        assert states.read - 64 * served <= 1024 + BLOCK


def test_rows_are_spans_that_read_like_a_tensor():
    rows = Rows(torch.tensor([3, 5, 20, 30]), torch.tensor([2, 4, 1, 3]))
    expected = [3, 4, 5, 6, 7, 8, 20, 30, 31, 32]
    assert len(rows) == 10 and rows[torch.arange(10)].tolist() == expected
    assert rows[torch.tensor([9, 0, 6])].tolist() == [32, 3, 20]
    assert torch.cat(list(split(rows, 4))).tolist() == expected
    assert len(rows._starts) == 3  # the first two touch
