from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from mmie import sae, tables
from mmie.model import load
from mmie.sae_quality import behaviour, probing, reconstruction
from mmie.sae_sources import adopt
from mmie.sparse_code import SparseCode, encoder_of
from small_cache import LAYERS, small_corpus, write_cache
from tiny import RUNTIME

SETTINGS = sae.Settings(
    "matryoshka", d_sae=64, k=4, matryoshka_widths=[16, 64], steps=60, batch_size=64, lr=3e-3, seed=0
)


def made_of_latents(n=600, d=16, atoms=24, active=3):
    """Tokens that are sparse sums of atoms, far from the origin."""
    draw = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(atoms, d, generator=draw), dim=-1)
    weight = torch.rand(n, atoms, generator=draw) + 0.5
    keep = torch.rand(n, atoms, generator=draw).argsort(dim=-1) < active
    return (300 * (weight * keep) @ directions + 2000).bfloat16()


@pytest.fixture(scope="module")
def trained():
    states = made_of_latents()
    return states, *sae.train(states, torch.arange(500), SETTINGS, sae.metadata("tiny", 3))


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("sae")
    sae.save(trained[1], trained[2], path / "sae_weights.safetensors", path / "cfg.json")
    return path


def random_code(d=8, d_sae=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randn(*shape, generator=draw) for shape in ((d, d_sae), (d_sae,), (d_sae, d), (d,))]
    return SparseCode(*parts, threshold=torch.rand(d_sae, generator=draw) * 3)


def test_saelens_loads_the_folder_and_encodes_the_same(trained, folder):
    from sae_lens import SAE

    theirs, ours = SAE.load_from_disk(folder), encoder_of(folder / "sae_weights.safetensors", folder / "cfg.json")
    x = trained[0][500:].float()
    assert theirs.cfg.architecture() == "jumprelu" and theirs.cfg.metadata.hook_name == "blocks.3.hook_resid_post"
    assert torch.equal(theirs.encode(x), ours.encode(x))
    torch.testing.assert_close(theirs.decode(theirs.encode(x)), ours.decode(ours.encode(x)))
    assert 0 < (ours.encode(x) > 0).float().sum(-1).mean() < 16


@pytest.mark.parametrize("architecture", ["batch_topk", "topk", "jumprelu"])
def test_every_architecture_is_trained_by_saelens_and_saved_as_one_it_loads(architecture, trained, tmp_path):
    from sae_lens import SAE

    settings = replace(SETTINGS, architecture=architecture, steps=150, matryoshka_widths=[64])
    states, rows = trained[0], torch.arange(500)
    code, cfg, log = sae.train(states, rows, settings, sae.metadata("tiny", 3))
    sae.save(code, cfg, tmp_path / "sae_weights.safetensors", tmp_path / "cfg.json")
    theirs, ours = SAE.load_from_disk(tmp_path), encoder_of(tmp_path / "sae_weights.safetensors", tmp_path / "cfg.json")
    x = states[500:].float()
    assert theirs.cfg.architecture() == "jumprelu"
    torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-4, atol=0.1)
    torch.testing.assert_close(ours.W_dec.norm(dim=-1), torch.ones(64))
    tokens = pd.DataFrame({"language": "x", "row": range(500, 600)})
    found = reconstruction(ours, states, tokens).iloc[0]
    assert found["explained_variance"] > 0.4
    assert 0.4 * settings.k < found["l0"] < 2.5 * settings.k
    assert log["explained_variance"].iloc[-1] > log["explained_variance"].iloc[0]


def test_a_topk_autoencoder_gets_the_threshold_that_keeps_k_on_average():
    settings = replace(SETTINGS, architecture="topk")
    states = made_of_latents()
    code, _, _ = sae.train(states, torch.arange(600), settings, sae.metadata("tiny", 3))
    assert float((code.encode(states) > 0).float().sum(-1).mean()) == pytest.approx(settings.k, abs=0.1)
    assert code.threshold.unique().numel() == 1


def local(tmp_path, **change):
    """A folder that SAELens reads: a ReLU or JumpReLU autoencoder whose decoder rows are no unit vectors."""
    from safetensors.torch import save_file

    parts = {name: value.contiguous() for name, value in vars(random_code()).items() if torch.is_tensor(value)}
    cfg = {"architecture": "jumprelu", "d_in": 8, "d_sae": 32, "dtype": "float32", "device": "cpu"}
    cfg |= {"apply_b_dec_to_input": False, "normalize_activations": "none", "reshape_activations": "none"} | change
    if cfg["architecture"] != "jumprelu":
        parts.pop("threshold")
    save_file(parts, tmp_path / "sae_weights.safetensors")
    (tmp_path / "cfg.json").write_text(json.dumps({**cfg, "metadata": {}}))
    return {"source": "local", "ids": {"3": str(tmp_path)}}


@pytest.mark.parametrize("architecture", ["jumprelu", "standard"])
def test_an_autoencoder_of_others_is_adopted_with_unit_rows(tmp_path, architecture):
    from sae_lens import SAE

    settings = local(tmp_path, architecture=architecture)
    theirs = SAE.load_from_disk(tmp_path)
    code, cfg, steps = adopt(settings, 3, 8)
    x = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(code.decode(code.encode(x)), theirs.decode(theirs.encode(x)), rtol=1e-4, atol=1e-4)
        assert torch.equal(code.encode(x) > 0, theirs.encode(x) > 0)
    torch.testing.assert_close(code.W_dec.norm(dim=-1), torch.ones(32))
    assert steps.empty
    sae.save(code, cfg, tmp_path / "again/sae_weights.safetensors", tmp_path / "again/cfg.json")
    again = encoder_of(tmp_path / "again/sae_weights.safetensors", tmp_path / "again/cfg.json")
    assert torch.equal(again.encode(x), code.encode(x))
    torch.testing.assert_close(SAE.load_from_disk(tmp_path / "again").encode(x), code.encode(x), rtol=1e-4, atol=1e-4)


def test_pretrained_asks_saelens_for_release_and_id(tmp_path, monkeypatch):
    from sae_lens import SAE

    local(tmp_path)
    asked = []

    def from_pretrained(release, name):
        asked.append((release, name))
        return SAE.load_from_disk(tmp_path)

    monkeypatch.setattr(SAE, "from_pretrained", from_pretrained)
    adopt({"source": "pretrained", "release": "a-release", "ids": {"12": "an-id"}}, 12, 8)
    assert asked == [("a-release", "an-id")]


def test_an_autoencoder_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"sae\.ids\.3.*reads 8 dimensions, and the model has 16"):
        adopt(local(tmp_path), 3, 16)
    with pytest.raises(ValueError, match=r"sae\.ids\.3.*normalises"):
        adopt(local(tmp_path, normalize_activations="layer_norm"), 3, 8)


def test_sparse_probes_find_the_latent_of_a_language_and_no_other():
    draw = torch.Generator().manual_seed(0)
    languages, n = ["a", "b", "c"], 60
    states, rows = [], []
    for split in ("train", "tune"):
        for text in range(n):
            language = languages[text % 3]
            h = torch.rand(4, 8, generator=draw)
            h[:, 5] += 3 * (language == "a")
            rows += [(f"{split}{text}", language, split)] * 4
            states.append(h)
    tokens = pd.DataFrame(rows, columns=["doc_id", "language", "split"]).assign(row=range(len(rows)))
    code = SparseCode(torch.eye(8), torch.zeros(8), torch.eye(8), torch.zeros(8), torch.zeros(8))
    found = probing(code, torch.cat(states).bfloat16(), tokens).set_index("language")
    assert set(found.index) == {"a", "b", "c", "all"}
    assert found.loc["a", "auc_1"] == 1.0 and found.loc["a", "auc_5"] == 1.0
    # b and c differ from each other by nothing; one latent tells either from a, so that half of the others are lower.
    assert found.loc[["b", "c"], "auc_1"].between(0.55, 0.95).all()
    assert found.loc["all", "auc_1"] == pytest.approx(found.loc[["a", "b", "c"], "auc_1"].mean())


def test_the_folder_holds_two_files_that_name_no_place_and_no_time(folder):
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    text = (folder / "cfg.json").read_text()
    assert "/" not in text and json.loads(text)["device"] == "cpu"


def test_training_learns_held_out_tokens(trained):
    states, code, _, log = trained
    tokens = pd.DataFrame({"language": "x", "row": range(500, 600)})
    found = reconstruction(code, states, tokens)
    assert found["explained_variance"].min() > 0.5
    assert log["step"].tolist() == [10, 20, 30, 40, 50, 60]
    assert log["explained_variance"].iloc[-1] > log["explained_variance"].iloc[0] + 0.1
    assert log["l0"].iloc[-1] == pytest.approx(SETTINGS.k, abs=0.2)


def test_the_same_seed_gives_the_same_bytes_and_leaves_the_global_generator_alone(trained, folder, tmp_path):
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = sae.train(trained[0], torch.arange(500), SETTINGS, sae.metadata("tiny", 3))
    assert torch.equal(torch.get_rng_state(), before)
    sae.save(*again[:2], tmp_path / "sae_weights.safetensors", tmp_path / "cfg.json")
    for name in ("sae_weights.safetensors", "cfg.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    pd.testing.assert_frame_equal(again[2], trained[3])


def test_decoder_rows_have_unit_norm(trained):
    norms = trained[1].W_dec.norm(dim=-1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"matryoshka_widths": [16, 32]}, "matryoshka_widths"),
        ({"matryoshka_widths": [64, 16]}, "rise"),
        ({"k": 16}, "sae.k"),
        ({"architecture": "topk", "k": 64}, "sae.k: 64"),
    ],
)
def test_contradictory_settings_are_named(change, key):
    with pytest.raises(ValueError, match=key):
        sae.Settings(**{**vars(SETTINGS), **change})


def test_encode_follows_its_definition():
    code = random_code()
    x = torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))
    pre = torch.einsum("btd,ds->bts", x - code.b_dec, code.W_enc) + code.b_enc
    expected = torch.where((pre > code.threshold) & (pre > 0), pre, 0.0)
    torch.testing.assert_close(code.encode(x), expected)
    some = torch.tensor([3, 17, 4])
    torch.testing.assert_close(code.encode_some(x, some), expected[..., some])
    torch.testing.assert_close(code.decode(expected), expected @ code.W_dec + code.b_dec)


def test_an_autoencoder_of_another_kind_is_refused(folder, tmp_path):
    cfg = json.loads((folder / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**cfg, "architecture": "topk"}))
    with pytest.raises(ValueError, match="jumprelu"):
        encoder_of(folder / "sae_weights.safetensors", tmp_path / "cfg.json")
    with pytest.raises(ValueError, match="missing"):
        encoder_of(folder / "sae_weights.safetensors", tmp_path / "nothing.json")


def test_inference_imports_neither_saelens_nor_transformers():
    code = "import sys, mmie.sparse_code, mmie.features; assert not {'sae_lens', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(sae.__file__).parents[1])


class Exact:
    """An autoencoder without error."""

    b_enc = torch.zeros(4)

    def to(self, device):
        return self

    def encode(self, x):
        return x

    def decode(self, z):
        return z


class Constant(Exact):
    def decode(self, z):
        return torch.zeros_like(z)


def test_an_exact_reconstruction_changes_nothing_and_a_constant_one_does(tiny_model):
    model, tokenizer = load(tiny_model, RUNTIME)
    corpus = small_corpus()
    texts = corpus[corpus["language"].isin(["hi", "en"])]
    same = behaviour(model, tokenizer, Exact(), 1, texts).set_index("language")
    assert same[["ce_delta", "kl"]].abs().to_numpy().max() < 1e-6 and set(same.index) == {"hi", "en", "all"}
    changed = behaviour(model, tokenizer, Constant(), 1, texts).set_index("language")
    assert changed["kl"].min() > 1e-4 and changed["ce"].equals(same["ce"])
    assert changed.loc["all", "n_scored"] == changed.loc["hi", "n_scored"] + changed.loc["en", "n_scored"]


def test_cross_entropy_is_the_models_own(tiny_model):
    model, tokenizer = load(tiny_model, RUNTIME)
    texts = small_corpus().iloc[[0]]
    ids = torch.tensor([tokenizer(texts["text"].iloc[0])["input_ids"]])
    logits = model(ids).logits[0, 1:-1].float()
    expected = torch.nn.functional.cross_entropy(logits, ids[0, 2:]).item()
    found = behaviour(model, tokenizer, Constant(), 1, texts).set_index("language")
    assert found.loc["en", "ce"] == pytest.approx(expected, rel=1e-5)
    assert found.loc["en", "n_scored"] == ids.shape[1] - 2


def test_explained_variance_is_about_the_languages_own_mean():
    states = torch.tensor([[10.0, 0], [12, 0], [0, 5], [0, 9]]).bfloat16()
    tokens = pd.DataFrame({"language": ["a", "a", "b", "b"], "row": range(4)})
    code = SparseCode(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.tensor([11.0, 1.0]))
    found = reconstruction(code, states, tokens).set_index("language")
    # a: 10 is below the threshold and becomes 0, so 100 is left of a variance of 2.
    assert found.loc["a", "explained_variance"] == pytest.approx(1 - 100 / 2)
    assert found.loc["b", "explained_variance"] == 1 and found.loc["b", "l0"] == 1
    assert found["dead_share"].to_dict() == {"a": 0.5, "b": 0.5, "all": 0.0}


def test_the_stage_writes_a_folder_and_its_tables(tiny_model, tmp_path):
    from train_sae import main

    made = write_cache(tmp_path, tiny_model)
    ranking, site = tmp_path / "layers.parquet", tmp_path / "site2"
    rows = [{name: 0.0 for name in tables.LAYERS.names} | {"layer": n, "rank": r} for r, n in enumerate(LAYERS, 1)]
    tables.write(pd.DataFrame(rows), ranking, tables.LAYERS)
    paths = {
        "weights": "sae_weights.safetensors",
        "cfg": "cfg.json",
        "training": "training.parquet",
        "quality": "quality.parquet",
    }
    main(
        activations=made["layers"], index=made["index"], corpus=made["corpus"], ranking=str(ranking), model=made["model"],
        **{name: str(site / file) for name, file in paths.items()}, site=2,
        settings={**vars(SETTINGS), "source": "train", "steps": 12, "candidates": LAYERS}, runtime=RUNTIME,
    )  # fmt: skip
    assert sorted(p.name for p in site.iterdir()) == sorted(paths.values())
    training = tables.read(site / "training.parquet", tables.SAE_TRAINING)
    quality = tables.read(site / "quality.parquet", tables.SAE_QUALITY)
    assert training["step"].tolist() == [10, 12] and set(training["layer"]) == {3}
    cached = small_corpus()
    cached = cached[cached["role"].isin(["forget", "retain", "neighbour", "control"])]
    assert set(quality["language"]) == {*cached["language"], "all"}
