"""Logit lens and patching have known values where nothing was edited, and where everything was."""

import pandas as pd
import pytest
import torch

import tiny
from mmie import head, inside, tables
from mmie.model import decoder_layers, load

TEXTS = tiny.SAMPLE[:3]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def script(loaded):
    return inside.tokens_in(loaded[1], "Latn", loaded[0].config.vocab_size)


def own_masses(model, tokenizer, script):
    """Of the next token after each text, one text at a time, from the model's own logits."""
    with torch.inference_mode():
        logits = [model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].double() for text in TEXTS]
    return torch.stack([row.softmax(-1)[script].sum() for row in logits])


def in_order(batches, parts):
    table = torch.empty(parts[0].shape[0], len(TEXTS), dtype=torch.float64)
    for batch, part in zip(batches, parts, strict=True):
        table[:, batch] = part.double()
    return table


def test_mass_is_the_share_of_a_softmax(loaded, monkeypatch):
    model, _ = loaded
    monkeypatch.setattr(head, "COLUMNS", 100)
    states, chosen = torch.randn(5, model.config.hidden_size), torch.rand(model.config.vocab_size) < 0.1
    chosen[:100] = False
    with torch.inference_mode():
        expected = model.get_output_embeddings()(states).double().softmax(-1)[:, chosen].sum(-1)
        assert head.mass(model, states, chosen) == pytest.approx(expected, rel=1e-4)


def test_base_patched_with_its_own_states_is_base(loaded, script):
    model, tokenizer = loaded
    batches, passes = inside.edited_passes(model, tokenizer, TEXTS, batch_tokens=60)
    lens = in_order(batches, [inside.lens_mass(model, passed, script) for passed in passes])
    patched = in_order(batches, [inside.patched_mass(model, passed, script) for passed in passes])
    expected = own_masses(model, tokenizer, script)
    assert patched == pytest.approx(expected.expand_as(patched), rel=1e-4)
    assert lens[-1] == pytest.approx(expected, rel=1e-4) and not torch.allclose(lens[0], expected, rtol=1e-2)


def test_an_edit_shows_from_its_layer_on(loaded, script):
    model, tokenizer = loaded
    unedited = own_masses(model, tokenizer, script)
    handle = decoder_layers(model)[2].register_forward_hook(
        lambda _, __, out: out * -1 if torch.is_tensor(out) else (out[0] * -1, *out[1:])
    )
    try:
        edited = own_masses(model, tokenizer, script)
        batches, passes = inside.edited_passes(model, tokenizer, TEXTS)
    finally:
        handle.remove()
    patched = in_order(batches, [inside.patched_mass(model, passed, script) for passed in passes])
    assert patched[:2] == pytest.approx(unedited.expand(2, -1), rel=1e-4)
    assert patched[2:] == pytest.approx(edited.expand(2, -1), rel=1e-4)


def test_tokens_of_a_script(loaded):
    model, tokenizer = loaded
    found = inside.tokens_in(tokenizer, "Latn", model.config.vocab_size)
    assert found[tokenizer.convert_tokens_to_ids("a")] and not found[tokenizer.convert_tokens_to_ids("1")]
    with pytest.raises(ValueError, match="no token of this model has a letter of Thai"):
        inside.tokens_in(tokenizer, "Thai", model.config.vocab_size)


def test_rows_fit_the_table(loaded, script, tmp_path):
    prompts = pd.DataFrame(
        {"prompt_id": [f"forget_native:g{i}" for i in range(9)], "family": "forget_native", "group_id": "g"}
    )
    chosen = inside.choose_prompts(prompts, 3)
    assert len(chosen) == 3 and chosen.equals(inside.choose_prompts(prompts[::-1], 3).iloc[::-1].reset_index(drop=True))
    masses = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    run = {"arm": "base", "seed": 0, "variant": "plain"}
    rows = inside.inside_rows(chosen, [[2, 0], [1]], {"lens": [masses[:, :2], masses[:, 2:]]}, run)
    tables.write(rows, tmp_path / "i.parquet", tables.INSIDE)
    first = [row["mass"] for row in rows if row["prompt_id"] == chosen.prompt_id[2]]
    assert first == pytest.approx([0.1, 0.4])
