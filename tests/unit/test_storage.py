"""Activations in 16 and 8 bits: what is read is what was written, up to the error that is reported."""

from __future__ import annotations

import json

import psutil
import pytest
import torch

from mmie.storage import Loss, Stored, Writer, reserve, size_of


def outlying(n=400, d=64):
    """States with one dimension twenty times as large as the others, as a residual stream has."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    x[:, 5] = 20 * x[:, 5] + 300
    x[:, 6] = 0
    return x


def written(path, x, storage, parts=3):
    reserve(path, 3, tuple(x.shape), storage, x[:50])
    writer = Writer(path, 3)
    for rows in torch.arange(len(x)).chunk(parts)[::-1]:
        writer[slice(int(rows[0]), int(rows[-1]) + 1)] = x[rows]
    loss = writer.loss.summary()
    writer.flushed()
    writer.close()
    return Stored(path), loss


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_rows_come_back_by_number_mask_and_slice(tmp_path, storage):
    x = outlying()
    stored, loss = written(tmp_path / "layer3.safetensors", x, storage)
    assert (stored.layer, stored.shape, len(stored)) == (3, (400, 64), 400)
    rows = torch.tensor([7, 399, 7, 0])
    everything = stored[:]
    assert torch.equal(stored[rows], everything[rows])
    assert torch.equal(stored[10:20], everything[10:20])
    assert torch.equal(stored[everything[:, 0] > 0], everything[everything[:, 0] > 0])
    assert not everything[:, 6].any()
    if storage == "bf16":
        assert torch.equal(everything, x.bfloat16())
    lost = float((x - everything.float()).square().sum())
    assert loss["variance_lost"] == pytest.approx(lost / float((x - x.mean(0)).square().sum()), rel=1e-3)
    assert loss["relative_error"] == pytest.approx((lost / float(x.square().sum())) ** 0.5, rel=1e-3)
    cosines = torch.nn.functional.cosine_similarity(x.double(), everything.double(), dim=-1)
    assert loss["cosine"] == pytest.approx(float(cosines.mean()), abs=1e-9)
    assert loss["cosine_worst"] == pytest.approx(float(cosines.min()), abs=1e-9)
    assert (
        size_of((400, 64), storage)
        < (tmp_path / "layer3.safetensors").stat().st_size
        < size_of((400, 64), storage) + 300
    )


def test_eight_bits_take_half_the_room_and_keep_the_small_dimensions(tmp_path):
    x = outlying()
    stored, loss = written(tmp_path / "layer3.safetensors", x, "int8")
    assert size_of(tuple(x.shape), "int8") < 0.6 * size_of(tuple(x.shape), "bf16")
    assert loss["variance_lost"] < 2e-3 and loss["cosine_worst"] > 0.999
    small = [i for i in range(64) if i not in (5, 6)]
    # By a scale of the token alone (300 / 127 a step) nine tenths of a dimension of deviation 1 would be gone.
    assert float((stored[:] - x)[:, small].square().mean()) < 0.02


def test_a_loss_goes_on_from_what_was_saved(tmp_path):
    x, y = outlying(), outlying().bfloat16().float()
    whole, first = Loss(64), Loss(64)
    for part in (slice(0, 100), slice(100, 400)):
        whole.add(x[part], y[part])
    first.add(x[:100], y[:100])
    again = Loss(64, json.loads(json.dumps(first.saved())))
    again.add(x[100:], y[100:])
    assert again.summary() == whole.summary()


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_a_file_larger_than_memory_is_read(tmp_path, storage):
    """It is sparse, and takes no disk. Mapped privately, as safetensors does, it would be refused."""
    rows = 2 * psutil.virtual_memory().total // size_of((1, 640), storage)
    reserve(tmp_path / "x", 3, (rows, 640), storage, torch.ones(1, 640))
    writer = Writer(tmp_path / "x", 3)
    writer[slice(rows - 2, rows)] = torch.ones(2, 640)
    writer.close()
    assert Stored(tmp_path / "x")[torch.tensor([0, rows - 1])].sum(1).tolist() == [0, 640]


def test_a_file_that_is_no_cache_is_named(tmp_path):
    from mmie import tensors

    tensors.save({"weights": torch.ones(3)}, tmp_path / "x")
    with pytest.raises(ValueError, match="no activation cache"):
        Stored(tmp_path / "x")
