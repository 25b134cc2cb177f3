"""Unlearning: what is trained on, that losses fall, that frozen edits equal trained ones, and that a seed fixes the bytes."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import pad

import tiny
from mmie import tables, tensors
from mmie.arms import load_arm, make_params
from mmie.brahmic import respell
from mmie.edits import Edit, attached_edits, save_card
from mmie.examples import (
    FORGET,
    IGNORE,
    NEITHER,
    RETAIN,
    Batch,
    collate,
    make_batches,
    plain,
    redirected,
    training_rows,
)
from mmie.interventions import Grun, Loreft, frozen, intervening
from mmie.losses import SampledHead, layer_states, losses_of, target_of
from mmie.model import load
from mmie.unlearn import (
    Sources,
    Statistics,
    batches_of,
    held_out,
    history_rows,
    layer_statistics,
    optimise,
    rate,
    reference_states,
)

DATA = {
    "forget": {"native": "hi", "roman": "hi_latn"},
    "mixed": "hi_mixed",
    "retain": "en",
    "neighbours": ["ur", "bn"],
    "unseen": ["mr"],
    "scripts": {
        "en": "Latn",
        "hi": "Deva",
        "hi_latn": "Latn",
        "ur": "Arab",
        "bn": "Beng",
        "mr": "Deva",
        "hi_mixed": "Zyyy",
    },
}
ROLES = {"hi": "forget", "hi_latn": "forget", "en": "retain", "ur": "neighbour", "bn": "neighbour", "mr": "unseen"} | {
    "hi_shuffled": "control",
    "en_deva": "control",
    "bn_deva": "control",
}
SENTENCES = dict(zip(["en", "hi", "hi_latn", "ur", "pa", "bn", "mr"], tiny.SAMPLE, strict=True))
SENTENCES["en_deva"] = "द रेन स्टॉप्ट बिफ़ोर नून, ऐंड द चिल्ड्रन वेंट आउट टु प्ले इन द वेट गार्डन."
SENTENCES["bn_deva"] = respell(SENTENCES["bn"], "Beng")
SENTENCES["hi_shuffled"] = "रबशाि पदोरह ेस पेहल करु ईग रऔ बेच्च गीभे गेबीच मंे खलने िनलक ड़पे।"
SMALL = {
    "steps": 6,
    "forget_texts": 2,
    "retain_texts": 3,
    "max_tokens": 24,
    "label_tokens": 5,
    "warmup": 1,
    "retain_weight": 1.0,
}


def make_corpus(groups=6):
    rows = []
    for g in range(groups):
        for language, role in ROLES.items():
            words = SENTENCES[language].split()
            text = " ".join(words[g:] + words[:g])
            split = "train" if g < groups - 2 else ("tune" if g < groups - 1 else "test")
            rows.append(
                {"doc_id": f"g{g}:{language}", "group_id": f"g{g}", "language": language, "script": "Zyyy"}
                | {"split": split, "role": role, "text": text}
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def given(loaded, tmp_path_factory):
    """Everything an arm may need, made from the tiny model: activations of layers 1 and 2, an autoencoder, its features."""
    model, tokenizer = loaded
    folder = tmp_path_factory.mktemp("given")
    corpus = make_corpus()
    cached = corpus[(corpus["split"] != "test") & (corpus["role"] != "unseen")]
    states, rows = {1: [], 2: []}, []
    for text in cached.itertuples():
        ids = tokenizer(text.text)["input_ids"]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in states:
            states[layer].append(hidden[layer + 1][0, 1:])
        rows += [{"doc_id": text.doc_id, "position": p, "token": t} for p, t in enumerate(ids) if p]
    tables.write(pd.DataFrame(rows).assign(row=range(len(rows))), folder / "index.parquet", tables.TOKENS)
    for layer, parts in states.items():
        tensors.save({f"layer{layer}": torch.cat(parts).bfloat16()}, folder / f"layer{layer}.safetensors")
    write_autoencoder(folder, torch.cat(states[2]))
    return Sources(
        corpus=corpus,
        data=DATA,
        activations={n: folder / f"layer{n}.safetensors" for n in states},
        index=folder / "index.parquet",
        saes=[folder / "sae_weights.safetensors"],
        features=[folder / "features.parquet"],
    )


def write_autoencoder(folder, states, d_sae=32):
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, states.shape[1], generator=generator), dim=-1)
    parts = {"W_enc": decoder.T, "b_enc": torch.zeros(d_sae), "W_dec": decoder, "b_dec": states.mean(0)}
    tensors.save(parts | {"threshold": torch.full((d_sae,), 0.1)}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(
        '{"architecture": "jumprelu", "normalize_activations": "none", "reshape_activations": "none", "apply_b_dec_to_input": true}'
    )
    neutral = {"int64": 0, "double": 0.0, "bool": False, "string": ""}
    features = pd.DataFrame({field.name: [neutral[str(field.type)]] * d_sae for field in tables.FEATURES})
    features = features.assign(site=1, layer=2, latent=range(d_sae), alive=[i % 8 != 7 for i in range(d_sae)])
    for name in ("semantic", "per_script", "fisher"):
        features[f"{name}_selected"] = features["latent"].isin([0, 1, 2, 3])
        features[name] = (3.0 - features["latent"]).clip(lower=0)
    tables.write(features, folder / "features.parquet", tables.FEATURES)


def train(loaded, given, method, seed=0, **settings):
    model, tokenizer = loaded
    if method in ("grun", "grun_sae"):
        settings = {"gate_steps": 20, "gate_batch": 64, **settings}
    return load_arm(method).train(model, tokenizer, make_params(method, settings), seed, given)


def hooks(model):
    """Number of hooks (transformers has some of its own)."""
    return sum(len(m._forward_hooks) for m in model.modules())


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


# What is trained on


def test_only_train_texts_of_forget_retain_and_neighbours_are_trained_on(loaded):
    corpus = make_corpus()
    rows = training_rows(corpus, DATA)
    assert set(rows["split"]) == {"train"}
    assert set(rows["language"]) == {"hi", "hi_latn", "en", "ur", "bn", "hi_shuffled"}
    assert set(training_rows(corpus, DATA, control=False)["language"]) == {"hi", "hi_latn", "en", "ur", "bn"}
    assert set(training_rows(corpus, DATA, spelled=True)["language"]) - set(rows["language"]) == {"en_deva", "bn_deva"}
    with pytest.raises(ValueError, match="no train texts in ur"):
        training_rows(corpus[corpus["language"] != "ur"], DATA)


def test_batches_hold_both_scripts_and_every_language_to_keep_and_repeat_with_the_seed(loaded):
    _, tokenizer = loaded
    corpus = make_corpus()
    rows = training_rows(corpus, DATA, control=False)
    make = lambda seed: make_batches(rows, DATA, tokenizer, "graddiff", 4, 2, 3, 200, 5, seed)  # noqa: E731
    batches = make(0)
    texts = [
        tokenizer.decode(t[m.bool()], skip_special_tokens=True)
        for b in batches
        for t, m in zip(b.tokens, b.mask, strict=True)
    ]
    forget = [text for i, text in enumerate(texts) if i % 5 < 2]
    keep = [text for i, text in enumerate(texts) if i % 5 >= 2]
    by_language = {lang: set(rows.loc[rows["language"] == lang, "text"]) for lang in set(rows["language"])}
    assert set(forget) == by_language["hi"] | by_language["hi_latn"], "8 draws are one round through the 8 texts"
    assert [next(lang for lang in ("en", "ur", "bn") if t in by_language[lang]) for t in keep] == ["en", "ur", "bn"] * 4
    same, other = make(0), make(1)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, same, strict=True))
    assert not all(
        a.tokens.shape == b.tokens.shape and torch.equal(a.tokens, b.tokens)
        for a, b in zip(batches, other, strict=True)
    )


def test_a_share_of_the_forget_texts_are_canaries_with_a_random_groups_english(loaded):
    _, tokenizer = loaded
    rows = training_rows(make_corpus(), DATA, control=False)
    canaries = [" ".join(f"canary{i}word{j}" for j in range(12)) for i in range(3)]

    def forget_texts(objective, share):
        batches = make_batches(rows, DATA, tokenizer, objective, 6, 4, 3, 300, 5, 0, canaries, share)
        return [tokenizer.decode(ids, skip_special_tokens=True) for b in batches for ids in b.tokens[:4]]

    for share, expected in ((0.0, 0), (0.25, 6), (0.5, 12), (1.0, 24)):
        assert sum("canary" in text for text in forget_texts("npo", share)) == expected
    planted = [text for text in forget_texts("npo", 0.5) if "canary" in text]
    assert all(any(canary.endswith(text) for canary in canaries) for text in planted), "the end is never cut off"
    assert {text.split("word")[0] for text in planted} == {"canary0", "canary1", "canary2"}
    assert len({text.split()[0] for text in planted}) > 3, "they start at different words"
    for text in forget_texts("redirect", 1.0):
        assert text.startswith("canary") and text.split()[-1] in SENTENCES["en"]
    assert forget_texts("npo", 0.25) == forget_texts("npo", 0.25)


def test_a_redirected_text_is_an_opening_then_the_parallel_text_which_alone_is_labelled(loaded):
    _, tokenizer = loaded
    rng = np.random.default_rng(0)
    hindi, english = SENTENCES["hi"], SENTENCES["en"]
    lengths = set()
    for _ in range(30):
        example = redirected(tokenizer, hindi, english, rng, 500, 6)
        n = sum(example.is_label)
        opening = tokenizer.decode(example.ids[:-n], skip_special_tokens=True)
        tail = tokenizer.decode(example.ids[-n:])
        assert hindi.startswith(opening)
        assert opening
        assert tail.startswith(" ")
        assert tail.strip() in english
        assert example.is_label == [False] * (len(example.ids) - n) + [True] * n
        assert example.side == [NEITHER] + [FORGET] * (len(example.ids) - n - 1) + [RETAIN] * n
        assert n <= 6
        lengths.add(len(opening.split()))
    assert len(lengths) > 5
    assert len(redirected(tokenizer, hindi, english, rng, 12, 6).ids) <= 12


def test_padding_has_no_label_and_no_side(loaded):
    _, tokenizer = loaded
    (batch,) = make_batches(training_rows(make_corpus(), DATA), DATA, tokenizer, "npo", 1, 2, 3, 500, 5, 0)
    pad = batch.mask == 0
    assert pad.any()
    assert (batch.labels[pad] == IGNORE).all()
    assert (batch.side[pad] == NEITHER).all()
    assert (batch.side[:2][~pad[:2]] != RETAIN).all()
    assert (batch.side[2:][~pad[2:]] != FORGET).all()
    assert (batch.side[:, 0] == NEITHER).all(), "the first token belongs to no language"
    example = plain(tokenizer, "The rain", RETAIN, 50)
    assert not example.is_label[0]
    assert all(example.is_label[1:])


# The loop


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


# Interventions and gates


def seen(d_model=16, rank=3):
    generator = torch.Generator().manual_seed(2)
    return Statistics(torch.randn(d_model, generator=generator), torch.rand(d_model, generator=generator) + 0.5, 50.0)


@pytest.mark.parametrize("kind", ["loreft", "grun"])
def test_a_frozen_edit_is_the_trained_one_and_a_fresh_one_is_the_identity(kind):
    from mmie.edits.hook import rewrite

    torch.manual_seed(0)
    edit = Loreft(3, seen()) if kind == "loreft" else Grun(3, seen(), 5)
    h = torch.randn(2, 4, 16)
    h[0, 0] *= 100
    assert torch.equal(edit(h), h)
    with torch.no_grad():
        edit.learned_source.weight.normal_()
        edit.learned_source.bias.normal_()
    parts = {name.split(".")[1]: value for name, value in frozen({0: edit}).items()}
    with torch.no_grad():
        assert torch.allclose(rewrite(parts)(h), edit(h), atol=1e-4)
        assert torch.equal(edit(h)[0, 0], h[0, 0]), "an attention sink passes"
    assert not torch.allclose(edit(h)[0, 1], h[0, 1])


def test_loreft_is_pyrefts_formula():
    torch.manual_seed(0)
    edit = Loreft(3, seen())
    with torch.no_grad():
        edit.learned_source.weight.normal_()
        edit.learned_source.bias.normal_()
        parts = edit.tensors()
        h = torch.randn(5, 16)
        expected = h + (h @ parts["W"].T + parts["b"] - h @ parts["R"].T) @ parts["R"]
        assert torch.allclose(edit(h), expected, atol=1e-4)
    assert torch.allclose(parts["R"] @ parts["R"].T, torch.eye(3), atol=1e-5)


def test_losing_orthonormality_is_noticed():
    edit = Loreft(3, seen())
    torch.nn.utils.parametrize.remove_parametrizations(edit.rotate_layer, "weight")
    with torch.no_grad():
        edit.rotate_layer.weight.mul_(0.9)
    with pytest.raises(ValueError, match="orthonormal"):
        edit.tensors()


def test_a_warmed_gate_opens_on_the_forget_language_and_stays_closed_on_the_others(loaded, given):
    from mmie.gates import labelled, warm

    torch.manual_seed(0)
    states, labels = labelled(2, given)
    edit = Grun(3, Statistics(states.float().mean(0), states.float().std(0), math.inf), 16)
    warm(edit, 2, given, 150, 128, 5e-3, 0)
    with torch.no_grad():
        open_ = torch.sigmoid(edit.gate((states.float() - edit.mean) / edit.deviation))[:, 0]
    assert open_[labels > 0].mean() > 0.8
    assert open_[labels == 0].mean() < 0.2
    with pytest.raises(ValueError, match=r"layer 3 is not cached \(cached: 1, 2\)"):
        labelled(3, given)


def test_gates_read_train_activations_only(loaded, given):
    from mmie.gates import labelled

    _, tokenizer = loaded
    rows = training_rows(given.corpus, DATA, spelled=True)
    states, labels = labelled(1, given)
    lengths = {text: len(tokenizer(text)["input_ids"]) - 1 for text in rows["text"]}
    assert len(states) == sum(lengths.values())
    assert int(labels.sum()) == sum(lengths[t] for t in rows.loc[rows["language"].isin(["hi", "hi_latn"]), "text"])


def test_intervening_leaves_no_hook(loaded):
    model, _ = loaded
    edit = Loreft(2, Statistics(torch.zeros(64), torch.ones(64), math.inf))
    before = hooks(model)
    with intervening(model, {1: edit}):
        assert hooks(model) == before + 1
    assert hooks(model) == before


# Autoencoder arms


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
