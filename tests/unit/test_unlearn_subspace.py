"""UNLEARN: the directions equal an independent computation, kept inputs pass, and PEFT reads the edit."""

import numpy as np
import pytest
import torch

import tiny
from mmie.arms import load_arm, make_params
from mmie.arms.unlearn_subspace import own_directions
from mmie.edits import attached, attached_edits, save_card
from mmie.examples import training_rows
from mmie.model import load
from small_sources import small_sources

SETTINGS = {"layers": [1, 2], "rank": 3, "protect": 0.9}
FORGET = ["hi", "hi_latn"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def given(tiny_model, tmp_path_factory):
    return small_sources(tmp_path_factory.mktemp("sources"), tiny_model)


def train(loaded, given, **settings):
    (edit,) = (
        load_arm("unlearn_subspace")
        .train(*loaded, make_params("unlearn_subspace", SETTINGS | settings), 0, given)
        .edits
    )
    return edit


def inputs_of(model, tokenizer, path, text):
    """Inputs ``[token, d_in]`` of one module on one text, its first token left out."""
    found = []
    handle = model.get_submodule(path).register_forward_pre_hook(lambda _, args: found.append(args[0][0, 1:]))
    with torch.no_grad():
        model(torch.tensor([tokenizer(text)["input_ids"]]))
    handle.remove()
    return found[0].double().numpy()


@pytest.mark.parametrize("leaf", ["self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"])
def test_the_weights_lose_the_forget_languages_own_singular_directions(loaded, given, leaf):
    model, tokenizer = loaded
    edit = train(loaded, given)
    path = f"model.layers.2.{leaf}"
    rows = training_rows(given.corpus, given.data)
    sides = {True: [], False: []}
    for language in sorted(set(rows.language)):
        x = np.concatenate([inputs_of(model, tokenizer, path, t) for t in rows.text[rows.language == language]])
        sides[language in FORGET].append(x / np.sqrt(len(x)))  # every language counts the same
    # Singular vectors of the stacked inputs, not eigenvectors of moments.
    _, s, vt = np.linalg.svd(np.concatenate(sides[False]), full_matrices=True)
    share = np.cumsum(s**2) / np.sum(s**2)
    shared = vt[: int(np.argmax(share >= SETTINGS["protect"])) + 1]
    forget = np.concatenate(sides[True])
    own = np.linalg.svd(forget - forget @ shared.T @ shared)[2][: SETTINGS["rank"]]
    weight = model.get_submodule(path).weight.double().numpy()
    down, up = (edit.tensors[f"base_model.model.{path}.lora_{x}.weight"].double().numpy() for x in "AB")
    np.testing.assert_allclose(up @ down, -weight @ own.T @ own, atol=1e-4)
    np.testing.assert_allclose(down @ down.T, np.eye(SETTINGS["rank"]), atol=1e-5)
    np.testing.assert_allclose(down @ shared.T, 0, atol=1e-5)


def test_inputs_within_the_protected_span_map_to_what_they_did():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    keep = basis[:, :4] @ torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]).double()) @ basis[:, :4].T
    mixed = (basis[:, 3] + basis[:, 4])[:, None]  # half shared, half its own
    own = own_directions(mixed @ mixed.T, keep, rank=2, protect=0.99)
    torch.testing.assert_close(own[:, 0].abs(), basis[:, 4].abs(), rtol=0, atol=1e-8)
    assert own[:, 1].abs().max() == 0, "there is one direction to take out, not two"
    assert (basis[:, :4].T @ own).abs().max() < 1e-8
    free = own_directions(mixed @ mixed.T, keep, rank=1, protect=0.0)
    torch.testing.assert_close(free.abs(), mixed.abs() / 2**0.5, rtol=0, atol=1e-8)


def test_peft_reads_the_edit(loaded, given, tmp_path, tiny_model):
    from peft import PeftModel

    model, _ = loaded
    tokens = torch.tensor([[2, 40, 50, 60, 70]])
    for name in "ab":
        save_card(tmp_path / name / "arm.json", [train(loaded, given)], "unlearn_subspace", 0)
    file = "lora/adapter_model.safetensors"
    assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    with torch.no_grad():
        base = model(tokens).logits
        with attached(model, tmp_path / "a/arm.json"):
            ours = model(tokens).logits
        other, _ = load(tiny_model, tiny.RUNTIME)
        theirs = PeftModel.from_pretrained(other, str(tmp_path / "a/lora"))(tokens).logits
        assert torch.equal(model(tokens).logits, base)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ours, base, atol=1e-4)


def test_more_is_changed_on_the_forget_language(loaded, given):
    model, tokenizer = loaded
    rows = training_rows(given.corpus, given.data, control=False)
    change = {}
    edit = train(loaded, given)
    for forget in (True, False):
        distances = []
        for text in rows.text[rows.language.isin(FORGET) == forget]:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                base = model(ids).logits
                with attached_edits(model, [edit]):
                    distances.append(float((model(ids).logits - base).norm() / base.norm()))
        change[forget] = np.mean(distances)
    assert change[True] > 1.5 * change[False]


def test_what_does_not_fit_is_refused(loaded, given, tiny_model):
    quantised, _ = load(tiny_model, tiny.RUNTIME)
    weight = torch.zeros(128, 64, dtype=torch.int8)
    quantised.model.layers[2].mlp.up_proj.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ValueError, match=r"layers.2.mlp.up_proj is quantised.*model.quantisation: none"):
        train((quantised, loaded[1]), given)
    with pytest.raises(ValueError, match=r"modules: \['c_attn'\]"):
        train(loaded, given, modules=["q_proj", "c_attn"])
    with pytest.raises(ValueError, match="4 layers"):
        train(loaded, given, layers=[2, 7])
    with pytest.raises(ValueError, match=r"arms.unlearn_subspace.protect: 1.0"):
        make_params("unlearn_subspace", {"protect": 1.0})
