"""Membership scores equal values worked out by hand, and those of texts taken one at a time."""

import math
import zlib

import pandas as pd
import pytest
import torch

import tiny
from mmie import membership, tables
from mmie.batches import encode
from mmie.model import load


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


def test_scores_worked_out_by_hand():
    log_p = torch.tensor([-1.0, -2, -3, -4, -5, -6, -7, -8, -9, -15], dtype=torch.float64)
    standard = torch.tensor([0.0, 1, 2, 3, -4, -6, 6, 7, 8, 9], dtype=torch.float64)
    found = membership.attack_scores("abc", log_p, standard)
    assert found == {
        "n_tokens": 10,
        "loss": pytest.approx(-6),
        "zlib": pytest.approx(-60 / len(zlib.compress(b"abc"))),
        "min_k": pytest.approx(-12),  # of ten tokens the two least likely: (−9 − 15) / 2
        "min_k_plus": pytest.approx(-5),
    }


def test_a_text_of_fewer_than_five_tokens_has_a_least_likely_one():
    found = membership.attack_scores("ab", torch.tensor([-1.0, -3.0]), torch.tensor([0.5, -0.5]))
    assert (found["min_k"], found["min_k_plus"]) == (-3, -0.5)


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_batches_do_not_matter(loaded, batch_tokens):
    model, tokenizer = loaded
    found = membership.attack(model, tokenizer, tiny.SAMPLE, batch_tokens)
    for text, scores in zip(tiny.SAMPLE, found, strict=True):
        ids = torch.tensor([encode(tokenizer, text)])
        with torch.inference_mode():
            log_p = model(ids).logits[0, :-1].double().log_softmax(-1)
        own = log_p.gather(-1, ids[0, 1:, None])[:, 0]
        mean = (log_p.exp() * log_p).sum(-1)
        deviation = ((log_p.exp() * log_p**2).sum(-1) - mean**2).sqrt()
        least = max(1, len(own) // 5)
        assert scores["n_tokens"] == len(own)
        assert scores["loss"] == pytest.approx(float(own.mean()), rel=1e-5)
        assert scores["min_k"] == pytest.approx(float(own.sort().values[:least].mean()), rel=1e-5)
        standard = ((own - mean) / deviation).sort().values
        assert scores["min_k_plus"] == pytest.approx(float(standard[:least].mean()), rel=1e-3)


def test_rows_fit_the_table_and_keep_the_order(tmp_path):
    canaries = pd.DataFrame(
        {"canary_id": ["canary:1", "canary:2"], "language": "hi", "member": [True, False], "text": "x"}
    )
    scores = [membership.attack_scores("x", torch.tensor([-v]), torch.tensor([0.0])) for v in (1.0, 2.0)]
    pretrained = {"canary:1": -3.0, "canary:2": -2.0}
    run = {"arm": "base", "seed": 0, "variant": "plain"}
    rows = membership.membership_rows(canaries, scores, {"canary:2": -7.0}, pretrained, run)
    tables.write(rows, tmp_path / "m.parquet", tables.MEMBERSHIP)
    assert list(tables.read(tmp_path / "m.parquet", tables.MEMBERSHIP).loss) == [-1.0, -2.0]
    found = tables.read(tmp_path / "m.parquet", tables.MEMBERSHIP)
    assert list(found.reference) == [2.0, 0.0] and found.gradnorm.isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="other canaries"):
        membership.membership_rows(canaries, scores, {}, {"canary:1": -3.0}, run)
    assert all(math.isfinite(row[name]) for row in rows for name in membership.ATTACKS)


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_gradient_scores_are_those_of_one_text_at_a_time(loaded, batch_tokens):
    model, tokenizer = loaded
    found = membership.gradient_scores(model, tokenizer, tiny.SAMPLE, batch_tokens)
    for text, score in zip(tiny.SAMPLE, found, strict=True):
        ids = torch.tensor([encode(tokenizer, text)])
        embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
        loss = model(inputs_embeds=embedded, labels=ids).loss
        (gradient,) = torch.autograd.grad(loss, embedded)
        assert score == pytest.approx(-float(gradient.norm()), rel=1e-4)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_as_many_members_as_others_are_drawn_in_each_script():
    canaries = pd.DataFrame(
        {
            "canary_id": [f"canary:{i}" for i in range(40)], "language": ["hi", "hi_latn"] * 20,
            "member": [i < 12 for i in range(40)], "text": "x",
        }
    )  # fmt: skip
    drawn = membership.choose_canaries(canaries, 3)
    assert (drawn.groupby(["language", "member"]).size() == 3).all() and len(drawn) == 12
    assert list(drawn.index) == sorted(drawn.index)
    assert membership.choose_canaries(canaries, 0).empty and membership.choose_canaries(canaries.iloc[:0], 3).empty
