"""Predictions tile by tile equal those of the whole vocabulary, whatever the tiles."""

import pytest
import torch

import tiny
from mmie import head
from mmie.model import load


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)[0]


def drawn(model, count=37):
    generator = torch.Generator().manual_seed(0)
    states = 3 * torch.randn(count, model.config.hidden_size, generator=generator)
    return states, torch.randint(0, model.config.vocab_size, (count,), generator=generator)


def whole(logits, labels):
    """ln p of the labels, and standardised, by the formula of Min-K%++ over the whole vocabulary in fp64."""
    log_p = logits.double().log_softmax(-1)
    p, own = log_p.exp(), log_p.gather(-1, labels[:, None])[:, 0]
    mean = (p * log_p).sum(-1)
    deviation = (p * (log_p - mean[:, None]) ** 2).sum(-1).sqrt()
    return own, (own - mean) / deviation


@pytest.mark.parametrize(("rows", "columns"), [(512, 8192), (5, 100), (1, 1)])
@pytest.mark.parametrize("cap", [None, 2.0])
def test_tiles_do_not_matter(loaded, monkeypatch, rows, columns, cap):
    monkeypatch.setattr(head, "ROWS", rows)
    monkeypatch.setattr(head, "COLUMNS", columns)
    monkeypatch.setattr(loaded.config, "final_logit_softcapping", cap, raising=False)
    states, labels = drawn(loaded, count=3 if columns == 1 else 37)
    with torch.inference_mode():
        logits = loaded.get_output_embeddings()(states)
        log_p, standard = head.standardised(loaded, states, labels)
        alone = head.log_probabilities(loaded, states, labels)
    expected = whole(logits if cap is None else cap * torch.tanh(logits / cap), labels)
    torch.testing.assert_close(log_p, expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(standard, expected[1], rtol=1e-3, atol=1e-3)
    assert torch.equal(alone, log_p)


def test_a_certain_prediction_is_standardised_without_dividing_by_zero(loaded):
    with torch.inference_mode():
        weight = loaded.get_output_embeddings().weight
        states = 1e4 * weight[5:6]
        log_p, standard = head.standardised(loaded, states, torch.tensor([5]))
    assert float(log_p[0]) == pytest.approx(0, abs=1e-6) and abs(float(standard[0])) < 0.1


@pytest.mark.parametrize("columns", [8192, 100])
def test_the_most_likely_token_and_the_logits_are_those_of_the_whole_head(loaded, monkeypatch, columns):
    monkeypatch.setattr(head, "COLUMNS", columns)
    states, _ = drawn(loaded)
    with torch.inference_mode():
        logits = loaded.get_output_embeddings()(states)
        assert torch.equal(head.most_likely(loaded, states), logits.argmax(-1))
        torch.testing.assert_close(head.logits(loaded, states), logits)


def test_logits_that_are_no_numbers_are_refused(loaded):
    states, _ = drawn(loaded)
    states[3, 0] = float("nan")
    with torch.inference_mode(), pytest.raises(ValueError, match="not finite"):
        head.most_likely(loaded, states)
