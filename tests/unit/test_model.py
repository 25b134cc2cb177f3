"""Device, dtype and attention are chosen or refused clearly; a model folder is checked before it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import tiny
from mmie import model, model_folder


def test_a_local_folder_becomes_a_checked_bf16_folder(tiny_model, tmp_path):
    settings = {"source": "local", "name": str(tiny_model.parent), "revision": None, "trust_remote_code": False}
    manifest = model.materialise(settings, tmp_path / "model")
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(manifest["files"])
    assert str(tmp_path) not in (tmp_path / "model/manifest.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    loaded, tokenizer = model.load(tmp_path / "model/manifest.json", {**tiny.RUNTIME, "dtype": "bfloat16"})
    assert loaded.dtype == torch.bfloat16 and tokenizer.padding_side == "left"
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_materialising_twice_gives_the_same_manifest(tiny_model, tmp_path):
    settings = {"source": "local", "name": str(tiny_model.parent), "revision": None, "trust_remote_code": False}
    assert model.materialise(settings, tmp_path / "a") == model.materialise(settings, tmp_path / "b")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"source": "local", "name": "absent"}, r"model\.name: absent.*no model folder"),
        ({"source": "package", "name": "gemma9"}, r"model\.name: gemma9.*not a known model package"),
    ],
)
def test_an_unknown_model_is_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        model.materialise({**settings, "revision": None, "trust_remote_code": False}, tmp_path / "model")


def test_a_truncated_or_missing_file_is_named(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model.parent, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model\.safetensors is \d+ bytes, expected \d+ bytes.*Delete"):
        model.load(folder / "manifest.json", tiny.RUNTIME)
    weights.unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        model.load(folder / "manifest.json", tiny.RUNTIME)
    with pytest.raises(ValueError, match="is missing"):
        model.load(folder / "absent.json", tiny.RUNTIME)


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert model.choose_device("auto") == "cpu"
    with pytest.raises(ValueError, match=r"model\.device: cuda.*no CUDA device"):
        model.choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert model.choose_device("auto") == "cuda" and model.choose_device("cuda:1") == "cuda:1"


def test_dtypes(monkeypatch):
    assert model.choose_dtype("float16", "cpu") == torch.float16
    for able, expected in (
        ({"amx_bf16": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ({"avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
        ({"avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ({"avx2": True, "cpu_name": "Intel Core"}, torch.float32),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert model.choose_dtype("auto", "cpu") == expected, able


def test_attention():
    assert model.choose_attention("auto", "cpu", torch.float32) == "sdpa"
    assert model.choose_attention("eager", "cpu", torch.float32) == "eager"
    with pytest.raises(ValueError, match=r"flash_attention_2` needs a CUDA device"):
        model.choose_attention("flash_attention_2", "cpu", torch.bfloat16)


def test_attention_implementations_agree(tiny_model):
    texts = tiny.SAMPLE[:3]
    logits = []
    for attention in ("eager", "sdpa"):
        loaded, tokenizer = model.load(tiny_model, {**tiny.RUNTIME, "attention": attention})
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            logits.append(loaded(**batch).logits[batch.attention_mask.bool()])
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_eight_bits_run_on_a_cpu_and_stay_close(tiny_model):
    ids = torch.tensor([[2, 300, 301, 302, 303]])
    full, _ = model.load(tiny_model, tiny.RUNTIME)
    eight, _ = model.load(tiny_model, {**tiny.RUNTIME, "quantisation": "int8"})
    with torch.inference_mode():
        a, b = full(ids).logits, eight(ids).logits
    assert not torch.equal(a, b)
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten().float(), dim=0) > 0.98


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_what_the_cpu_gives(tiny_model):
    ids = torch.tensor([[2, 300, 301, 302, 303]])
    cpu, _ = model.load(tiny_model, tiny.RUNTIME)
    gpu, _ = model.load(tiny_model, {**tiny.RUNTIME, "device": "cuda"})
    with torch.inference_mode():
        torch.testing.assert_close(cpu(ids).logits, gpu(ids.cuda()).logits.cpu(), rtol=1e-3, atol=1e-3)


def test_a_forward_pass_stops_after_the_wanted_layer(tiny_model):
    loaded, _ = model.load(tiny_model, tiny.RUNTIME)
    seen = []
    handles = [
        layer.register_forward_hook(lambda *_, n=n: seen.append(n))
        for n, layer in enumerate(model.decoder_layers(loaded))
    ]
    with model.stop_after(loaded, 1) as stopped, pytest.raises(stopped):
        loaded(torch.tensor([[2, 5, 6]]))
    assert seen == [0, 1]
    loaded(torch.tensor([[2, 5, 6]]))
    assert seen == [0, 1, 0, 1, 2, 3]
    for handle in handles:
        handle.remove()


def test_manifest_names_the_files_it_has(tiny_model):
    files = json.loads(Path(tiny_model).read_text())["files"]
    assert model_folder.read_manifest(tiny_model)["files"] == files and "model.safetensors" in files
