"""The training loop: losses fall, one step has the right sign, schedules, early stopping, and a seed fixes the bytes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from mmie import tables
from mmie.arms import make_params
from mmie.edits import attached_edits, save_card
from mmie.examples import (
    IGNORE,
    NEITHER,
    RETAIN,
    Batch,
    collate,
    make_batches,
    plain,
    training_rows,
)
from mmie.losses import SampledHead, layer_states, losses_of, target_of
from mmie.unlearn import (
    batches_of,
    held_out,
    history_rows,
    layer_statistics,
    optimise,
    rate,
    reference_states,
)
from small_arms import DATA, SENTENCES, SMALL, hooks, logits, make_corpus, train


def test_a_small_vocabulary_is_taken_whole(loaded):
    model, tokenizer = loaded
    (batch,) = make_batches(training_rows(make_corpus(), DATA), DATA, tokenizer, "npo", 1, 2, 3, 30, 5, 0)
    head = SampledHead(model, [batch], 0)
    states = torch.randn(7, model.config.hidden_size)
    full = model.get_output_embeddings()(states)
    ids = torch.unique(batch.tokens)
    assert torch.allclose(head.logits(states)[:, head.columns(ids)], full[:, ids], atol=1e-5)
    weighted = (head.logits(states) + head.log_weight).logsumexp(-1)
    assert torch.allclose(weighted, full.logsumexp(-1), atol=1e-4)


def test_a_sampled_normaliser_is_right_on_average(loaded, monkeypatch):
    monkeypatch.setattr("mmie.losses.SAMPLED", 64)
    model, tokenizer = loaded
    (batch,) = make_batches(training_rows(make_corpus(), DATA), DATA, tokenizer, "npo", 1, 2, 3, 12, 5, 0)
    head = SampledHead(model, [batch], 0)
    states = torch.randn(5, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    total = torch.zeros(5)
    for _ in range(400):
        head.draw()
        total += (head.logits(states) + head.log_weight).exp().sum(-1)
    expected = model.get_output_embeddings()(states).exp().sum(-1)
    assert head.log_weight.max() > 1, "columns do stand for several ids"
    assert torch.allclose(total / 400, expected, rtol=0.1)


def test_statistics_leave_first_tokens_and_padding_out(loaded):
    model, tokenizer = loaded
    (batch,) = make_batches(training_rows(make_corpus(), DATA), DATA, tokenizer, "npo", 1, 2, 3, 30, 5, 0)
    found = layer_statistics(model, [batch], [1])[1]
    with torch.no_grad():
        hidden = model(input_ids=batch.tokens, attention_mask=batch.mask, output_hidden_states=True).hidden_states[2]
    text = hidden[:, 1:][batch.mask[:, 1:].bool()]
    assert torch.allclose(found.mean, text.mean(0), atol=1e-5)
    assert torch.allclose(found.deviation, text.std(0), atol=1e-5)
    assert found.max_norm == math.inf, "this model has no attention sink"


@pytest.mark.parametrize("method", ["lora", "reft", "grun"])
def test_training_lowers_the_forget_loss_and_leaves_the_model_as_it_came(loaded, given, method):
    model, _ = loaded
    tokens = torch.tensor([[2, 40, 50, 60, 70]])
    before = logits(model, tokens)
    modules, n_hooks = [name for name, _ in model.named_modules()], hooks(model)
    layers = [1, 2]
    trained = train(loaded, given, method, layers=layers, lr=0.02, **SMALL | {"steps": 15})
    losses = [row["forget_loss"] for row in trained.history]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert abs(trained.history[0]["retain_loss"]) < 1e-4, "at the first step the edit is the identity, and KL to base 0"
    assert torch.equal(logits(model, tokens), before)
    assert [name for name, _ in model.named_modules()] == modules
    assert not any(p.requires_grad for p in model.parameters())
    assert hooks(model) == n_hooks
    (edit,) = trained.edits
    assert edit.layers == tuple(layers)
    with attached_edits(model, trained.edits):
        assert not torch.allclose(logits(model, tokens), before, atol=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "graddiff", "retain": "ce"},
        {"objective": "npo"},
        {"objective": "simnpo", "simnpo_delta": 9.0},
    ],
)
def test_the_other_objectives_make_the_forget_texts_less_likely(loaded, given, settings):
    model, tokenizer = loaded
    trained = train(loaded, given, "lora", layers=[1, 2], lr=0.02, **SMALL | {"steps": 12, **settings})
    ids = torch.tensor([tokenizer(SENTENCES["hi"])["input_ids"]])
    nll = lambda: float(torch.nn.functional.cross_entropy(logits(model, ids)[0, :-1], ids[0, 1:]))  # noqa: E731
    before = nll()
    with attached_edits(model, trained.edits):
        assert nll() > before + 0.05


@pytest.mark.parametrize("objective", ["redirect", "graddiff", "npo", "simnpo"])
def test_one_step_moves_the_labels_of_the_forget_side_the_right_way(loaded, given, objective):
    """Every other objective makes them less likely; redirect, whose labels are English, likelier."""
    model, tokenizer = loaded
    # LoRA's B is 0 at the start, so that A has no gradient: one step moves B alone, which is enough.
    settings = {"objective": objective, "retain": "ce", "retain_weight": 0.0, "layers": [1, 2]}
    settings |= {"steps": 1, "warmup": 0, "lr": 0.005, "simnpo_delta": 9.0}
    (batch,) = batches_of(given, tokenizer, make_params("lora", settings), 0)
    where = batch.labels[: batch.n_forget, 1:] != IGNORE

    def nll():
        logp = logits(model, batch.tokens[: batch.n_forget])[:, :-1].log_softmax(-1)
        return -float(logp.gather(-1, batch.tokens[: batch.n_forget, 1:, None])[..., 0][where].mean())

    before = nll()
    with attached_edits(model, train(loaded, given, "lora", **settings).edits):
        change = nll() - before
    assert (change < -1e-3) if objective == "redirect" else (change > 1e-3)


def test_rmu_turns_states_of_forget_texts_into_noise_and_leaves_the_others(loaded, given):
    model, tokenizer = loaded
    settings = SMALL | {
        "objective": "rmu",
        "retain": "states",
        "layers": [1, 2],
        "state_layer": 2,
        "lr": 0.02,
        "steps": 15,
    }
    params = make_params("lora", settings)
    batches = batches_of(given, tokenizer, params, 0)
    noise = target_of(model, reference_states(model, batches, params), params, 0).noise
    edits = train(loaded, given, "lora", **settings).edits

    def towards_noise(language):
        batch = collate([plain(tokenizer, SENTENCES[language], RETAIN, 50)], 0, tokenizer)
        with attached_edits(model, edits), torch.no_grad():
            states = layer_states(model, batch, 2)
        return float(torch.cosine_similarity(states, noise, dim=-1).mean())

    assert towards_noise("hi") > 0.3
    assert towards_noise("en") < towards_noise("hi") / 2


@pytest.mark.parametrize("objective", ["npo", "simnpo", "rmu"])
def test_losses_do_not_depend_on_padding(loaded, given, objective):
    model, tokenizer = loaded
    params = make_params(
        "lora", {"objective": objective, "retain": "states", "state_layer": 2, "layers": [1, 2], "steps": 1}
    )
    (batch,) = batches_of(given, tokenizer, params, 0)
    wider = Batch(
        tokens=pad(batch.tokens, (0, 5)),
        mask=pad(batch.mask, (0, 5)),
        labels=pad(batch.labels, (0, 5), value=IGNORE),
        side=pad(batch.side, (0, 5), value=NEITHER),
        n_forget=batch.n_forget,
    )
    found = []
    for one in (batch, wider):
        base = reference_states(model, [one], params)
        target = target_of(model, base, params, 0)
        found.append(losses_of(model, SampledHead(model, [one], 0), one, base.of(0), target, params))
    for name, value in found[0].items():
        assert float(value) == pytest.approx(float(found[1][name]), rel=1e-4, abs=1e-6)


def test_simnpo_and_rmu_in_the_loop_are_what_their_formulas_say(loaded, given):
    """Recomputed text by text from the model's own logits and hidden states."""
    model, tokenizer = loaded
    found, shape = {}, {"simnpo_beta": 0.5, "simnpo_delta": 6.0}
    for objective in ("simnpo", "rmu"):
        params = make_params(
            "lora", {"objective": objective, "retain": "ce", "state_layer": 1, "layers": [1], "steps": 2} | shape
        )
        batches = batches_of(given, tokenizer, params, 0)
        base = reference_states(model, batches, params)
        target, head = target_of(model, base, params, 7), SampledHead(model, batches, 0)
        found[objective] = float(losses_of(model, head, batches[0], base.of(0), target, params)["forget_loss"])
    terms, distances, norms = [], [], []
    for number, batch in enumerate(batches):
        for i, (tokens, mask) in enumerate(zip(batch.tokens, batch.mask, strict=True)):
            ids = tokens[mask.bool()][None]
            with torch.no_grad():
                out = model(input_ids=ids, output_hidden_states=True)
            states = out.hidden_states[2][0, 1:]
            norms.append(states.square().sum(-1))
            if number == 0 and i < batch.n_forget:
                mean = torch.nn.functional.cross_entropy(out.logits[0, :-1], ids[0, 1:])
                terms.append(-(2 / 0.5) * torch.nn.functional.logsigmoid(0.5 * (mean - 6)))
                distances.append((states - target.noise).square().sum(-1))
    square = float(torch.cat(norms).mean())
    assert found["simnpo"] == pytest.approx(float(torch.stack(terms).mean()), rel=1e-3)
    assert found["rmu"] == pytest.approx(float(torch.cat(distances).mean()) / square, rel=1e-2)
    assert base.norm == pytest.approx(square**0.5, rel=1e-2)


def test_states_that_training_cannot_change_are_refused(loaded, given):
    with pytest.raises(ValueError, match=r"state_layer: 1 lies below 2"):
        make_params("lora", {"objective": "rmu", "layers": [2, 3], "state_layer": 1})
    with pytest.raises(ValueError, match=r"state_layer: 9 is not a layer of this model, which has 0 to 3"):
        train(loaded, given, "lora", layers=[1], **SMALL | {"retain": "states", "state_layer": 9})


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("constant", 1.0, 1.0), ("linear", 0.55, 0.145), ("cosine", 0.55, 0.1055)]
)
def test_the_learning_rate_rises_then_follows_the_schedule(schedule, middle, last):
    rates = [rate(step, 25, 5, schedule) for step in range(25)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[15] == pytest.approx(middle)
    assert rates[24] == pytest.approx(last, abs=1e-3)
    assert rates[5:] == sorted(rates[5:], reverse=True)


@pytest.mark.parametrize("method", ["lora", "reft"])
def test_early_stopping_keeps_the_weights_of_the_best_evaluation(loaded, given, method):
    """With a learning rate that ruins the model after a while, the edit is that of a run of exactly the best length."""
    settings = SMALL | {"steps": 30, "lr": 0.05, "layers": [1, 2], "schedule": "constant", "max_tokens": 40}
    stopped = train(loaded, given, method, patience=2, evaluate_every=2, **settings)
    seen = {row["step"]: row["tune_loss"] for row in stopped.history if row["tune_loss"] is not None}
    best = min(seen, key=seen.get)
    assert all(step % 2 == 1 for step in seen)
    assert len(stopped.history) == best + 5 < 30, "two evaluations in vain, then the end"
    whole = train(loaded, given, method, **settings)
    assert [row["loss"] for row in whole.history[: best + 5]] == [row["loss"] for row in stopped.history]
    assert all(row["tune_loss"] is None for row in whole.history)
    tokens = torch.tensor([[2, 40, 50, 60, 70]])
    with attached_edits(loaded[0], stopped.edits):
        kept = logits(loaded[0], tokens)
    with attached_edits(loaded[0], whole.edits):
        assert not torch.allclose(kept, logits(loaded[0], tokens), atol=1e-3)
    assert seen[best] == pytest.approx(tune_loss(loaded, given, method, stopped, settings), rel=2e-2)


def tune_loss(loaded, given, method, trained, settings):
    """The loss on the tune batches with the frozen edit attached."""
    model, tokenizer = loaded
    params = make_params(method, {**settings, "patience": 1})
    held = held_out(model, given, tokenizer, params, 0)
    head, target = SampledHead(model, held.batches, 0), target_of(model, held.base, params, 0)
    with attached_edits(model, trained.edits), torch.no_grad():
        found = [losses_of(model, head, b, held.base.of(i), target, params) for i, b in enumerate(held.batches)]
    return float(np.mean([float(f["forget_loss"]) + params.retain_weight * float(f["retain_loss"]) for f in found]))


def test_early_stopping_reads_the_tune_split_alone(loaded, given):
    model, tokenizer = loaded
    params = make_params("lora", {**SMALL, "objective": "npo", "patience": 1, "max_tokens": 200})
    held = held_out(model, given, tokenizer, params, 0)
    texts = {
        tokenizer.decode(t[m.bool()], skip_special_tokens=True)
        for b in held.batches
        for t, m in zip(b.tokens, b.mask, strict=True)
    }
    corpus = given.corpus
    assert texts <= set(corpus.loc[corpus["split"] == "tune", "text"])
    assert not texts & set(corpus.loc[corpus["split"] != "tune", "text"])
    with pytest.raises(ValueError, match="patience: 1 is not possible with this arm"):
        optimise(model, [torch.nn.Parameter(torch.zeros(1))], held.batches, held.base, params, 0)


@pytest.mark.parametrize(("scripts", "language", "other"), [("native", "hi", "hi_latn"), ("roman", "hi_latn", "hi")])
def test_an_arm_can_be_trained_on_one_script(loaded, given, scripts, language, other):
    from mmie.gates import labelled

    _, tokenizer = loaded
    rows = training_rows(given.corpus, DATA, scripts=scripts)
    assert set(rows["language"]) == set(training_rows(given.corpus, DATA)["language"]) - {other}
    params = make_params("lora", {"objective": "npo", "scripts": scripts, "max_tokens": 200})
    forget = {
        tokenizer.decode(t[m.bool()], skip_special_tokens=True)
        for b in batches_of(given, tokenizer, params, 0)
        for t, m in zip(b.tokens[: b.n_forget], b.mask[: b.n_forget], strict=True)
    }
    assert forget == set(rows.loc[rows["language"] == language, "text"])
    both, one = labelled(1, given)[1], labelled(1, given, scripts=scripts)[1]
    assert one.sum() < both.sum() and (one == 0).sum() == (both == 0).sum(), "a gate's other side stays the same"
    with pytest.raises(ValueError, match=r"scripts: 'roman', and config `data.forget` has no roman column"):
        training_rows(given.corpus, {**DATA, "forget": {"native": "hi"}}, scripts="roman")


@pytest.mark.parametrize(("scripts", "planted"), [("both", {"n", "r"}), ("native", {"n"}), ("roman", {"r"})])
def test_one_script_means_its_canaries_alone(loaded, given, scripts, planted):
    _, tokenizer = loaded
    canaries = {"hi": ["n " * 12], "hi_latn": ["r " * 12]}
    settings = {"objective": "npo", "scripts": scripts, "canary_share": 1.0, "patience": 1}
    params, given = make_params("lora", settings), replace(given, canaries=canaries)
    seen = {
        word
        for batch in batches_of(given, tokenizer, params, 0)
        for tokens in batch.tokens[: batch.n_forget]
        for word in tokenizer.decode(tokens, skip_special_tokens=True).split()
    }
    assert seen == planted


@pytest.mark.parametrize("method", ["lora", "grun", "grun_sae", "crisp"])
def test_a_seed_fixes_the_bytes(loaded, given, method, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name) % 1000)  # the state of the global generator must not matter
        trained = train(loaded, given, method, seed=seed, layers=[1, 2], **SMALL)
        save_card(tmp_path / name / "arm.json", trained.edits, "x", 0)
        tables.write(history_rows(trained.history, "x", 0), tmp_path / name / "training.parquet", tables.TRAINING)
    files = [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file()) for name in "abc"]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert [p.read_bytes() for p in files[0]] != [p.read_bytes() for p in files[2]]


def test_training_leaves_the_global_generator_alone(loaded, given):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    train(loaded, given, "reft", layers=[1], **SMALL | {"steps": 1})
    assert torch.equal(torch.rand(1), expected)


def test_a_loss_that_is_not_finite_stops_the_run(loaded, given):
    with pytest.raises(ValueError, match="lower `lr`"):
        train(loaded, given, "lora", layers=[1, 2], **SMALL | {"lr": 1e30, "warmup": 0, "steps": 4})


def test_history_fits_its_table_and_is_empty_without_training(loaded, given, tmp_path):
    trained = train(loaded, given, "grun", layers=[1, 2], **SMALL)
    tables.write(history_rows(trained.history, "grun", 0), tmp_path / "one.parquet", tables.TRAINING)
    found = tables.read(tmp_path / "one.parquet", tables.TRAINING)
    assert found["step"].tolist() == list(range(6))
    assert found["gate_loss"].notna().all()
    for method in ("base", "sae_gate"):
        rows = history_rows(train(loaded, given, method).history, method, 0)
        tables.write(rows, tmp_path / "none.parquet", tables.TRAINING)
        assert tables.read(tmp_path / "none.parquet", tables.TRAINING).empty
