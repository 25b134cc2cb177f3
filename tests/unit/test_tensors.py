"""Safetensors: same bytes, files that are filled later, mapped reading, clear errors."""

import pytest
import torch

from mmie import tensors


def test_same_tensors_same_bytes_whatever_the_order(tmp_path):
    a, b = torch.arange(6.0).view(2, 3), torch.ones(2)
    tensors.save({"a": a, "b": b}, tmp_path / "one", code="c", doc_ids=["x"])
    tensors.save({"b": b, "a": a}, tmp_path / "two", doc_ids=["x"], code="c")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert torch.equal(tensors.load(tmp_path / "one")["a"], a)


def test_a_reserved_file_is_an_ordinary_safetensors_file(tmp_path):
    shapes = {"scale": (torch.float32, (5,)), "b": (torch.bfloat16, (5, 4)), "whole": (torch.int8, (5, 3))}
    tensors.reserve(tmp_path / "x", shapes)
    with (tmp_path / "x").open("r+b") as file:
        file.seek(tensors.places(tmp_path / "x")["b"].offset + 3 * 4 * 2)
        file.write(torch.arange(4).bfloat16().view(torch.uint8).numpy().tobytes())
    found = tensors.load(tmp_path / "x")
    assert {name: (value.dtype, tuple(value.shape)) for name, value in found.items()} == shapes
    assert found["b"][3].tolist() == [0, 1, 2, 3] and not found["b"][0].any() and not found["scale"].any()


def test_a_mapped_file_reads_as_a_loaded_one(tmp_path):
    given = {"a": torch.arange(12).view(3, 4).to(torch.int8), "b": torch.randn(7), "empty": torch.empty(0, 4)}
    tensors.save(given, tmp_path / "x", note="metadata is no tensor")
    mapped = tensors.Mapped(tmp_path / "x")
    assert set(mapped.tensors) == set(given)
    for name, tensor in given.items():
        assert torch.equal(mapped.tensors[name], tensor)
        mapped.release()
        assert torch.equal(mapped.tensors[name], tensor)


def test_mapping_names_what_it_cannot_read(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        tensors.Mapped(tmp_path / "x")
    tensors.save({"a": torch.ones(100)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-50])
    with pytest.raises(ValueError, match="cannot be read"):
        tensors.Mapped(tmp_path / "x")


def test_missing_and_truncated_files_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        tensors.load(tmp_path / "x")
    tensors.save({"a": torch.ones(100)}, tmp_path / "x")
    (tmp_path / "x").write_bytes((tmp_path / "x").read_bytes()[:-50])
    with pytest.raises(ValueError, match="cannot be read"):
        tensors.load(tmp_path / "x")
