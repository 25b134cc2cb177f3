"""Base's autoencoders on an edited model: states after the edit, compared with the edited model's own predictions."""

import pandas as pd
import pytest
import torch

from mmie import sae, tables
from mmie.edits import Edit, attached_edits, save_card
from mmie.sae_transfer import Site, activity, texts_of, transfer
from mmie.sparse_code import SparseCode
from small_cache import small_corpus
from tiny import RUNTIME


@pytest.fixture(scope="module")
def loaded(tiny_model):
    from mmie.model import load

    return load(tiny_model, RUNTIME)


def code_of(d_model, seed=0, d_sae=24):
    draw = torch.Generator().manual_seed(seed)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=draw), dim=-1)
    return SparseCode(decoder.T.contiguous(), torch.zeros(d_sae), decoder, torch.zeros(d_model), torch.zeros(d_sae))


def perfect(d_model):
    """z keeps the positive and the negative part of every dimension: the reconstruction is the input."""
    encoder = torch.cat([torch.eye(d_model), -torch.eye(d_model)], dim=1)
    zeros = torch.zeros(2 * d_model)
    return SparseCode(encoder, zeros, encoder.T.contiguous(), torch.zeros(d_model), zeros)


def corpus():
    return small_corpus().assign(split="test")


def test_texts_are_held_out_and_in_every_language_that_matters():
    texts = texts_of(corpus(), "test")
    assert set(texts["role"]) <= {"forget", "retain", "neighbour", "unseen"} and "hi" in set(texts["language"])
    assert texts_of(small_corpus().assign(split="train"), "test").empty


def test_a_perfect_autoencoder_costs_nothing_and_a_random_one_does(loaded):
    model, tokenizer = loaded
    d_model = model.config.hidden_size
    sites = [Site(1, 2, perfect(d_model), [0, 1]), Site(2, 1, code_of(d_model), [3])]
    found = transfer(model, tokenizer, sites, texts_of(corpus(), "test")).set_index(["site", "language"])
    assert found.loc[(1, "all"), "explained_variance"] == pytest.approx(1, abs=1e-3)
    assert abs(found.loc[(1, "all"), "ce_delta"]) < 0.02 and found.loc[(2, "all"), "kl"] > found.loc[(1, "all"), "kl"]
    assert set(found["layer"]) == {1, 2} and found["l0"].between(0, 2 * d_model).all()


def test_it_sees_the_edited_model(loaded):
    model, tokenizer = loaded
    d_model = model.config.hidden_size
    texts, site = texts_of(corpus(), "test"), Site(1, 2, perfect(d_model), [0, d_model])
    before = transfer(model, tokenizer, [site], texts).set_index("language")
    gone = torch.eye(d_model)[:1]
    parts = {"R": gone, "W": torch.zeros_like(gone), "b": torch.zeros(1), "max_norm": torch.tensor([float("inf")])}
    edit = Edit("hook", (2,), {f"layer2.{name}": value for name, value in parts.items()})
    with attached_edits(model, [edit]):
        after = transfer(model, tokenizer, [site], texts).set_index("language")
    # The edit takes dimension 0 away, of which the selected latents are the two halves.
    assert before.loc["all", "selected"] > 0.05 and after.loc["all", "selected"] < 1e-3
    assert after.loc["all", "ce"] != pytest.approx(before.loc["all", "ce"], abs=1e-6)
    assert transfer(model, tokenizer, [site], texts).set_index("language").equals(before)


def test_activity_is_the_mean_over_tokens_of_the_sum_over_latents():
    states = torch.tensor([[1.0, 2.0], [3.0, -1.0], [0.0, 5.0]])
    code = SparseCode(torch.eye(2), torch.zeros(2), torch.eye(2), torch.zeros(2), torch.zeros(2))
    tokens = pd.DataFrame({"language": ["a", "a", "b"]})
    found = activity(code, [0, 1], states, tokens).set_index("language")["selected"]
    assert found.to_dict() == pytest.approx({"a": 3.0, "b": 5.0, "all": 11 / 3})
    assert activity(code, [], states, tokens)["selected"].eq(0).all()


def test_the_stage_writes_one_row_per_site_and_language(tiny_model, loaded, tmp_path):
    from transfer_sae import main

    d_model = loaded[0].config.hidden_size
    cfg = {"architecture": "jumprelu", "normalize_activations": "none", "reshape_activations": "none"}
    sae.save(code_of(d_model), cfg | {"apply_b_dec_to_input": True}, tmp_path / "w.safetensors", tmp_path / "cfg.json")
    neutral = {"int64": 0, "double": 0.0, "bool": False, "string": ""}
    features = pd.DataFrame({field.name: [neutral[str(field.type)]] * 24 for field in tables.FEATURES})
    features = features.assign(site=1, layer=2, latent=range(24), contrast_selected=[i < 3 for i in range(24)])
    tables.write(features, tmp_path / "f.parquet", tables.FEATURES)
    tables.write(corpus(), tmp_path / "corpus.parquet", tables.CORPUS)
    save_card(tmp_path / "arm.json", [], "base", 0)
    main(
        model=str(tiny_model), corpus=str(tmp_path / "corpus.parquet"), card=str(tmp_path / "arm.json"),
        weights=[str(tmp_path / "w.safetensors")], cfg=[str(tmp_path / "cfg.json")], features=[str(tmp_path / "f.parquet")],
        measured=str(tmp_path / "t.parquet"), runtime=RUNTIME,
        settings={"split": "test", "selector": "contrast", "arm": "base", "seed": 0, "variant": "plain"},
    )  # fmt: skip
    found = tables.read(tmp_path / "t.parquet", tables.SAE_TRANSFER)
    assert set(found["arm"]) == {"base"} and {"all", "hi", "en"} <= set(found["language"])
    assert found["language"].is_unique and (found["selected"] >= 0).all()
