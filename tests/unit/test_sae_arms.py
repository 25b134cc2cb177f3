"""The arms that act on latents of an autoencoder."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from mmie import tables
from mmie.edits import Edit, attached_edits, save_card
from small_arms import ROLES, SENTENCES, SMALL, logits, seen, train


def test_sae_gate_takes_the_selected_latents_away(loaded, given):
    from mmie.sparse_code import encoder_of

    model, tokenizer = loaded
    (edit,) = train(loaded, given, "sae_gate", scale=1.0, gate_steps=0).edits
    assert edit.facts == {"scale": 1.0, "latents": {"2": [0, 1, 2, 3]}}
    code = encoder_of(given.saes[0], given.saes[0].parent / "cfg.json")
    ids = torch.tensor([tokenizer(SENTENCES["hi"])["input_ids"]])
    states = {}
    for name, edits in (("base", []), ("edited", [edit])):
        with attached_edits(model, edits), torch.no_grad():
            # Not output_hidden_states: transformers records a layer's output before hooks have changed it.
            keep = lambda *call, name=name: states.__setitem__(name, call[2])  # noqa: E731
            handle = model.get_decoder().layers[2].register_forward_hook(keep)
            model(input_ids=ids)
            handle.remove()
    states = {name: value[0] for name, value in states.items()}
    z = code.encode(states["base"])[:, :4]
    assert (z > 0).any()
    assert torch.allclose(states["edited"], states["base"] - z @ code.W_dec[:4], atol=1e-4)


def test_random_gate_draws_as_many_alive_latents_that_are_not_selected(loaded, given):
    drawn = [
        train(loaded, given, "random_gate", seed=seed, gate_steps=0).edits[0].facts["latents"]["2"]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    for latents in drawn:
        assert len(set(latents)) == 4
        assert not set(latents) & {0, 1, 2, 3}
        assert all(i % 8 != 7 for i in latents), "7, 15 … are dead"


def latents_of(given):
    from mmie.suppression import codes

    return codes(given)[0], [0, 1, 2, 3]


def open_share(model, tokenizer, edit, text):
    """Share of a text's tokens that an edit of layer 2 changes."""
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    found = []
    for edits in ([], [edit]):
        with attached_edits(model, edits), torch.no_grad():
            handle = model.get_decoder().layers[2].register_forward_hook(lambda m, a, out: found.append(out[0, 1:]))
            model(input_ids=ids)
            handle.remove()
    return float(((found[0] - found[1]).norm(dim=-1) / found[0].norm(dim=-1)).mean())


def test_a_gate_learns_where_to_suppress(loaded, given):
    model, tokenizer = loaded
    plain_edit, gated = (train(loaded, given, "sae_gate", gate_steps=n, scale=2.0).edits[0] for n in (0, 150))
    assert gated.facts == {"scale": 2.0, "latents": {"2": [0, 1, 2, 3]}, "gated": True}
    for language, bound in (("hi", 0.6), ("en", 0.4)):
        text = given.corpus.loc[given.corpus["language"] == language, "text"].iloc[0]
        share = open_share(model, tokenizer, gated, text) / open_share(model, tokenizer, plain_edit, text)
        assert (share > bound) == (language == "hi"), (language, share)


def test_how_wide_a_gate_opens_on_held_out_text_is_kept_for_every_threshold(loaded, given, tmp_path):
    from mmie.gate_roc import THRESHOLDS, gate_rows

    edits = train(loaded, given, "sae_gate", gate_steps=150).edits
    tables.write(list(gate_rows(edits, given, "x", 3)), tmp_path / "gates.parquet", tables.GATES)
    found = tables.read(tmp_path / "gates.parquet", tables.GATES)
    assert set(found["language"]) == set(ROLES) - {"mr"} and set(found["layer"]) == {2}
    assert (found.groupby("language").size() == len(THRESHOLDS)).all()
    assert (found.groupby("language")["open"].diff().dropna() <= 0).all(), "fewer are open above a higher threshold"
    assert found.loc[found["role"] == "forget", "auc"].isna().all()
    half = found[found["threshold"] == 0.5].set_index("language")
    assert half.loc["hi", "open"] > half.loc["en", "open"] and half.loc["en", "auc"] > 0.8
    _, tokenizer = loaded
    tune = given.corpus[(given.corpus["split"] == "tune") & (given.corpus["language"] == "ur")]
    assert half.loc["ur", "n_tokens"] == sum(len(tokenizer(text)["input_ids"]) - 1 for text in tune["text"])
    assert list(gate_rows(train(loaded, given, "sae_gate", gate_steps=0).edits, given, "x", 3)) == []


def active(code, latents, states, tokens):
    """Which latents are active on each token, by text: language → list of ``[token, latent]``."""
    found = {}
    for (language, _), part in tokens.groupby(["language", "doc_id"], sort=False):
        z = code.encode(states[torch.tensor(part["row"].to_numpy())].float())
        found.setdefault(language, []).append((z[:, latents] > 0).numpy())
    return found


@pytest.fixture(scope="module")
def guarded(given, tmp_path_factory):
    """As ``given``, with the latents selected that are most active in each script; and how often each is, by language."""
    from mmie.guardrail import cached

    code, (states, tokens) = latents_of(given)[0], cached(given, 2)
    assert set(tokens["split"]) == {"train"}
    by_text = active(code, range(32), states, tokens)
    rate = {language: np.concatenate(texts).mean(0) for language, texts in by_text.items()}
    lead = {name: rate[name] - np.max([rate[n] for n in ("en", "ur", "bn")], axis=0) for name in ("hi", "hi_latn")}
    table = tables.read(given.features[0], tables.FEATURES)
    table["per_script_selected"] = table["latent"].isin([i for found in lead.values() for i in np.argsort(-found)[:3]])
    path = tmp_path_factory.mktemp("guarded") / "features.parquet"
    tables.write(table, path, tables.FEATURES)
    return replace(given, features=[path]), by_text, lead, float(states[:].float().norm(dim=-1).mean())


def test_dsg_takes_for_each_script_the_latents_that_tell_it_and_the_share_of_every_prefix(loaded, guarded):
    given, by_text, lead, norm = guarded
    edits = train(loaded, given, "dsg", count=2, percentile=80.0, clamp=0.2).edits
    assert [edit.facts["language"] for edit in edits] == ["hi", "hi_latn"]
    for edit in edits:
        found = lead[edit.facts["language"]]
        best = sorted(i for i in np.argsort(-found)[:2].tolist() if found[i] > 0)
        assert edit.facts["latents"] == {"2": best}
        shares = {
            name: [
                p for text in by_text[name] for p in (text[:, best].any(1).cumsum() / np.arange(1, len(text) + 1))[3:]
            ]
            for name in ("en", "ur", "bn")
        }
        expected = max(np.percentile(found, 80) for found in shares.values())
        assert float(edit.tensors["layer2.tau"]) == pytest.approx(expected, abs=1e-6)
        assert float(edit.tensors["layer2.clamp"]) == pytest.approx(0.2 * norm, rel=1e-4)
        assert edit.facts["special"] == [0, 1, 2] and edit.facts["min_tokens"] == 4


def test_a_guardrail_that_is_never_reached_changes_nothing(loaded, guarded):
    model, _ = loaded
    edits = train(loaded, guarded[0], "dsg", percentile=1.0, clamp=1.0).edits
    tokens = torch.tensor([[2, *range(40, 60)]])
    before = logits(model, tokens)
    never = [Edit(e.kind, e.layers, {**e.tensors, "layer2.tau": torch.tensor([1.0])}, e.facts) for e in edits]
    with attached_edits(model, never):
        assert torch.equal(logits(model, tokens), before)


def test_grun_sae_trains_both_gates_and_no_latent(loaded, given):
    model, _ = loaded
    before = logits(model, torch.tensor([[2, 40, 50]]))
    trained = train(loaded, given, "grun_sae", layers=[1, 2], lr=0.02, **SMALL)
    shift, latents = trained.edits
    assert (shift.kind, shift.layers, latents.kind, latents.layers) == ("hook", (1, 2), "sae_gate", (2,))
    assert torch.equal(logits(model, torch.tensor([[2, 40, 50]])), before)
    code, ids = latents_of(given)
    assert torch.equal(latents.tensors["layer2.decoder"], code.W_dec[ids])
    untrained = train(loaded, given, "grun_sae", layers=[1, 2], lr=1e-9, **SMALL).edits
    for old, new in zip(untrained, trained.edits, strict=True):
        assert not torch.allclose(old.tensors["layer2.gate_out"], new.tensors["layer2.gate_out"], atol=1e-4), old.kind
    history = pd.DataFrame(trained.history)
    assert history["gate_loss"].notna().all() and len(history) == SMALL["steps"]


def test_the_trained_suppression_is_the_frozen_one(loaded, given):
    from mmie.edits.sae_gate import rewrite
    from mmie.interventions import Suppression

    (edit,) = train(loaded, given, "sae_gate", gate_steps=0).edits
    parts = {name.split(".")[1]: value for name, value in edit.tensors.items()}
    torch.manual_seed(0)
    d_model = parts["decoder"].shape[1]
    module = Suppression(parts, seen(d_model), 5)
    h = torch.randn(2, 4, d_model)
    with torch.no_grad():
        assert torch.allclose(rewrite(module.tensors())(h), module(h), atol=1e-5)
        module.gate[2].bias.fill_(-1e4)
        assert torch.equal(module(h), h), "a closed gate is the identity"


def test_crisp_silences_the_latents_in_the_weights(loaded, given, tmp_path):
    from mmie.latent_loss import activation

    model, tokenizer = loaded
    trained = train(loaded, given, "crisp", layers=[1, 2], lr=0.01, **SMALL | {"steps": 15})
    losses = [row["forget_loss"] for row in trained.history]
    assert losses[0] == pytest.approx(1, abs=0.3) and losses[-1] < 0.7 * losses[0]
    assert abs(trained.history[0]["retain_loss"]) < 1e-4
    code, ids = latents_of(given)
    shift = code.W_enc.T[ids] @ code.b_dec
    parts = {"encoder": code.W_enc.T[ids], "bias": code.b_enc[ids] - shift}
    text = torch.tensor([tokenizer(SENTENCES["hi"])["input_ids"]])
    active = []
    for edits in ([], trained.edits):
        with attached_edits(model, edits), torch.no_grad():
            states = model(input_ids=text, output_hidden_states=True).hidden_states[3][0, 1:]
        assert torch.allclose(activation(parts, states), code.encode_some(states, torch.tensor(ids)), atol=0.5)
        active.append(float(activation(parts, states).mean()))
    assert active[1] < 0.8 * active[0]
    save_card(tmp_path / "arm.json", trained.edits, "crisp", 0)
    assert (tmp_path / "lora/adapter_config.json").exists(), "a PEFT folder, which needs no autoencoder"


def test_no_selected_latent_is_an_error_that_says_what_to_do(loaded, given):
    with pytest.raises(ValueError, match=r"contrast selector took no latent.*sae.steps"):
        train(loaded, given, "sae_gate", selector="contrast")
