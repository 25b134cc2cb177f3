"""Safetensors: same bytes, mapped writing, clear errors."""

import pytest
import torch

from mmie import tensors


def test_same_tensors_same_bytes_whatever_the_order(tmp_path):
    a, b = torch.arange(6.0).view(2, 3), torch.ones(2)
    tensors.save({"a": a, "b": b}, tmp_path / "one", code="c", doc_ids=["x"])
    tensors.save({"b": b, "a": a}, tmp_path / "two", doc_ids=["x"], code="c")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert torch.equal(tensors.load(tmp_path / "one")["a"], a)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_mapped_file_is_an_ordinary_safetensors_file(tmp_path, dtype):
    mapped = tensors.create(tmp_path / "x", "activations", (5, 4), dtype)
    mapped[3] = torch.arange(4).to(dtype)
    del mapped
    found = tensors.load(tmp_path / "x")["activations"]
    assert found.dtype == dtype and found.shape == (5, 4)
    assert found[3].tolist() == [0, 1, 2, 3] and not found[0].any()


def test_too_little_disk_is_said_before_writing(tmp_path):
    with pytest.raises(ValueError, match=r"needs .* MiB and the disk has .* free"):
        tensors.create(tmp_path / "x", "a", (1 << 40, 1 << 10), torch.float32)
    assert list(tmp_path.iterdir()) == []


def test_missing_and_truncated_files_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        tensors.load(tmp_path / "x")
    tensors.save({"a": torch.ones(100)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-50])
    with pytest.raises(ValueError, match="cannot be read"):
        tensors.load(tmp_path / "x")
