"""Arms that move or erase directions of the residual stream equal their definitions, computed independently."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import tiny
from mmie import tensors
from mmie.arms import load_arm, make_params
from mmie.edits import attached, attached_edits, save_card
from mmie.edits.hook import rewrite
from mmie.generation import generate
from mmie.model import load
from small_sources import small_sources

FORGET, KEPT = ["hi", "hi_latn"], ["en", "ur", "pa", "bn", "hi_shuffled"]
ARMS = [
    ("diff_means", {"layers": [1, 3]}),
    ("diff_means", {"layers": [3], "mode": "add", "alpha": 4.0}),
    ("leace", {"layers": [1, 3]}),
    ("leace", {"layers": [1], "concept": "language", "shrinkage": False, "control": False}),
]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def given(tiny_model, tmp_path_factory):
    return small_sources(tmp_path_factory.mktemp("sources"), tiny_model)


def train(loaded, given, method, **settings):
    return load_arm(method).train(*loaded, make_params(method, settings), 0, given)


def parts_of(trained, layer):
    (edit,) = trained.edits
    return {name.split(".")[1]: t for name, t in edit.tensors.items() if name.startswith(f"layer{layer}.")}


def train_table(given, layer, languages):
    """Activations [token, d_model] fp64 and language of the train tokens, from the files alone."""
    index = pd.read_parquet(given.index).merge(given.corpus[["doc_id", "language", "split"]], on="doc_id")
    states = tensors.load(given.activations[layer])[f"layer{layer}"].double().numpy()
    rows = ((index.split == "train") & index.language.isin(languages)).to_numpy()
    return states[rows], index.language.to_numpy()[rows]


def mean(states, languages, names):
    return np.mean([states[languages == name].mean(0) for name in names], axis=0)


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_diff_means_ablates_or_subtracts_the_difference_of_means(loaded, given, alpha):
    states, languages = train_table(given, 3, FORGET + KEPT)
    centre = mean(states, languages, KEPT)
    vector = mean(states, languages, FORGET) - centre
    unit = vector / np.linalg.norm(vector)
    h = states[:7]
    for mode, expected in (
        ("add", h - alpha * vector),
        ("ablate", h - alpha * ((h - centre) @ unit)[..., None] * unit),
    ):
        parts = parts_of(train(loaded, given, "diff_means", layers=[3], mode=mode, alpha=alpha), 3)
        found = rewrite(parts)(torch.from_numpy(h).float()).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_after_ablation_the_means_no_longer_differ_along_the_vector(loaded, given):
    states, languages = train_table(given, 3, FORGET + KEPT)
    parts = parts_of(train(loaded, given, "diff_means", layers=[3]), 3)
    after = rewrite(parts)(torch.from_numpy(states).float()).double().numpy()
    unit = parts["R"][0].double().numpy()
    for values, gap in ((states, None), (after, 0.0)):
        found = (mean(values, languages, FORGET) - mean(values, languages, KEPT)) @ unit
        assert found > 0.1 if gap is None else abs(found) < 1e-4


@pytest.mark.parametrize("concept", ["language", "script+language"])
@pytest.mark.parametrize("shrinkage", [True, False])
def test_the_leace_edit_is_the_packages_own_eraser(loaded, given, concept, shrinkage):
    from concept_erasure import LeaceFitter

    parts = parts_of(train(loaded, given, "leace", layers=[3], concept=concept, shrinkage=shrinkage), 3)
    states, languages = train_table(given, 3, FORGET + KEPT)
    z = np.stack([languages == name for name in FORGET], axis=1).astype(float)
    z = z.max(1, keepdims=True) if concept == "language" else z
    x = torch.from_numpy(states)
    eraser = LeaceFitter.fit(x, torch.from_numpy(z), shrinkage=shrinkage).eraser
    torch.testing.assert_close(rewrite(parts)(x.float()), eraser(x).float(), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(eraser(x), x, atol=1e-2)
    torch.testing.assert_close(parts["R"] @ parts["R"].T, torch.eye(len(parts["R"])), rtol=0, atol=1e-5)


def test_after_leace_every_class_has_the_same_mean(loaded, given):
    """Without shrinkage, erased activations and the concept have no covariance: no linear probe beats a constant."""
    states, languages = train_table(given, 3, FORGET + KEPT)
    for concept, classes in (
        ("script+language", [["hi"], ["hi_latn"], KEPT]),
        ("language", [FORGET, KEPT]),
    ):
        parts = parts_of(train(loaded, given, "leace", layers=[3], concept=concept, shrinkage=False), 3)
        after = rewrite(parts)(torch.from_numpy(states).float()).double().numpy()
        gaps = {}
        for name, values in (("before", states), ("after", after)):
            means = np.array([values[np.isin(languages, c)].mean(0) for c in classes])
            gaps[name] = np.abs(means - means[-1]).max()
        assert gaps["after"] < 1e-3 * gaps["before"]


def test_a_script_is_a_direction(loaded, given):
    ranks = {}
    for concept in ("language", "script+language"):
        trained = train(loaded, given, "leace", layers=[3], concept=concept, shrinkage=False)
        ranks[concept] = len(parts_of(trained, 3)["R"])
    assert ranks["language"] < ranks["script+language"]


@pytest.mark.parametrize(("method", "settings"), ARMS)
def test_an_arm_repeats_reloads_and_leaves_the_model_as_it_came(loaded, given, method, settings, tmp_path):
    model, _ = loaded
    tokens = torch.tensor([[2, 40, 50, 60, 70]])
    before = logits(model, tokens)
    for name in "ab":
        save_card(tmp_path / name / "arm.json", train(loaded, given, method, **settings).edits, method, 0)
    assert torch.equal(logits(model, tokens), before)
    files = [sorted(p for p in (tmp_path / name).iterdir()) for name in "ab"]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    with attached(model, tmp_path / "a/arm.json"):
        assert not torch.allclose(logits(model, tokens), before, atol=1e-4)
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize(("method", "settings"), ARMS)
def test_cached_decoding_in_a_batch_is_the_cache_free_one_alone(loaded, given, method, settings):
    model, tokenizer = loaded
    prompts = ["The rain", "बारिश दोपहर से पहले रुक गई और बच्चे"]
    with attached_edits(model, train(loaded, given, method, **settings).edits):
        for prompt, answer in zip(prompts, generate(model, tokenizer, prompts, 6, 2), strict=True):
            ids = tokenizer(prompt)["input_ids"]
            for _ in range(6):
                ids.append(int(logits(model, torch.tensor([ids]))[0, -1].argmax()))
            assert answer.text == tokenizer.decode(ids[-6:], skip_special_tokens=True)


@pytest.mark.parametrize("method", ["diff_means", "leace"])
def test_only_the_train_split_is_read(loaded, given, method, tmp_path):
    """Other activations of the tune split give the same edit."""
    index = pd.read_parquet(given.index).merge(given.corpus[["doc_id", "split"]], on="doc_id")
    states = tensors.load(given.activations[3])["layer3"].clone()
    states[torch.from_numpy((index.split != "train").to_numpy())] *= -5
    tensors.save({"layer3": states}, tmp_path / "layer3.safetensors")
    other = replace(given, activations={3: tmp_path / "layer3.safetensors"})
    one, two = (train(loaded, g, method, layers=[3]).edits[0].tensors for g in (given, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["diff_means", "leace"])
def test_a_layer_that_is_not_cached_is_named(loaded, given, method):
    with pytest.raises(ValueError, match=r"layer 2 is not cached \(cached: 1, 3\)"):
        train(loaded, given, method, layers=[2])
