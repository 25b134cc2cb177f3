"""Likelihood, KL and pooled states equal their definitions, computed one text at a time."""

import pandas as pd
import pytest
import torch

import tiny
from mmie import likelihood
from mmie.batches import encode
from mmie.model import decoder_layers, load

TEXTS = tiny.SAMPLE


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


def log_softmax(model, tokenizer, text):
    ids = torch.tensor([encode(tokenizer, text)])
    with torch.inference_mode():
        out = model(ids, output_hidden_states=True)
    return ids[0], out.logits[0].double().log_softmax(-1), out.hidden_states


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_nll_and_states_are_those_of_single_texts(loaded, batch_tokens):
    model, tokenizer = loaded
    asked = [i != 2 for i in range(len(TEXTS))]
    hooks = [len(layer._forward_hooks) for layer in decoder_layers(model)]
    found = likelihood.score(model, tokenizer, TEXTS, asked, layers=[0, 2], batch_tokens=batch_tokens)
    assert [len(layer._forward_hooks) for layer in decoder_layers(model)] == hooks
    for i, text in enumerate(TEXTS):
        ids, logp, states = log_softmax(model, tokenizer, text)
        expected = -logp[:-1].gather(-1, ids[1:, None]).sum()
        assert found.n_tokens[i] == len(ids) - 1
        if asked[i]:
            assert found.nll_sum[i] == pytest.approx(float(expected), rel=1e-5)
        else:
            assert found.nll_sum[i] is None
        for layer in (0, 2):
            torch.testing.assert_close(found.states[layer][i], states[layer + 1][0, 1:].mean(0), rtol=1e-4, atol=1e-4)


def test_kl_is_zero_for_the_same_model_and_right_for_another(loaded):
    model, tokenizer = loaded
    base = likelihood.last_states(model, tokenizer, TEXTS)
    assert likelihood.kl_divergence(model, base, base) == pytest.approx([0] * len(TEXTS), abs=1e-7)
    edited = [states * 1.3 for states in base]
    found = likelihood.kl_divergence(model, base, edited)
    with torch.inference_mode():
        for i in range(len(TEXTS)):
            p, q = (model.lm_head(s[i]).double().log_softmax(-1) for s in (base, edited))
            assert found[i] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
            assert found[i] > 0


def test_texts_are_those_of_the_split_and_controls_are_not_scored():
    data = {
        "forget": {"native": "hi", "roman": "hi_latn"},
        "scripts": {"hi": "Deva", "hi_latn": "Latn"},
        "retain": "en",
        "neighbours": [],
    }
    languages = {
        "en": "retain", "en2": "register", "ur": "neighbour", "hi": "forget", "mr": "unseen", "hi_mixed": "mixed",
        "hi_shuffled": "control", "en_deva": "control",
    }  # fmt: skip
    corpus = pd.DataFrame(
        [
            {"doc_id": f"{g}:{language}", "split": split, "language": language, "role": role, "text": "x"}
            for g, split in (("a", "test"), ("b", "test"), ("c", "train"))
            for language, role in languages.items()
        ]
    )
    texts = likelihood.choose_texts(corpus, {"split": "test", "kl_texts": 3, "data": data})
    assert sorted(texts.doc_id) == sorted(
        f"{g}:{x}" for g in "ab" for x in ("en", "en2", "ur", "hi", "mr", "hi_shuffled")
    )
    assert set(texts.language[~texts.scored]) == {"hi_shuffled"}
    assert texts.compared.sum() == 3 and set(texts.role[texts.compared]) <= {"retain", "neighbour"}


def test_a_text_longer_than_the_context_is_refused(loaded):
    model, tokenizer = loaded
    with pytest.raises(ValueError, match="context"):
        likelihood.score(model, tokenizer, ["rain " * 600], [True])
