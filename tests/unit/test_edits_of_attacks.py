"""The edits that attacks append: what each computes, in which order they act, and that nothing of them stays."""

import hashlib
import json

import pytest
import torch
from test_edits import hook_edit, logits, lora_edit, sae_edit

import tiny
from mmie.edits import Edit, attached, attached_edits, extend_card, noise, quantise, save_card, scale
from mmie.generation import generate
from mmie.model import load

EDITS = {
    "rtn": Edit("quantise", (), {}, {"scheme": "rtn", "bits": 4, "merge_lora": False}),
    "merged": Edit("quantise", (), {}, {"scheme": "rtn", "bits": 4, "merge_lora": True}),
    "int8": Edit("quantise", (), {}, {"scheme": "int8", "bits": 8, "merge_lora": False}),
    "nf4": Edit("quantise", (), {}, {"scheme": "nf4", "bits": 4, "merge_lora": False}),
    "noise": Edit("noise", (1, 2), {}, {"scale": 0.3, "seed": 0, "max_norm": {"1": 1e9, "2": 1e9}}),
    "scale": Edit("scale", (), {}, {"factor": 0.5}),
}


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def tokens():
    ids = torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(5))
    ids[:, 0] = 2
    return ids


def arm(model):
    return [lora_edit(model), hook_edit(model.config.hidden_size, gate=True)]


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", EDITS)
def test_it_acts_on_an_edited_model_and_leaves_the_model_as_it_was(loaded, tokens, name):
    model, _ = loaded
    before, kept, modules = logits(model, tokens), weights(model), dict(model.named_modules())
    with attached_edits(model, arm(model)):
        plain = logits(model, tokens)
    with attached_edits(model, [*arm(model), EDITS[name]]):
        assert not torch.allclose(logits(model, tokens), plain, atol=1e-3)
    with pytest.raises(KeyError), attached_edits(model, [*arm(model), EDITS[name]]):
        raise KeyError
    assert torch.equal(logits(model, tokens), before)
    assert all(torch.equal(kept[key], value) for key, value in model.state_dict().items())
    assert all(module is modules[path] for path, module in model.named_modules())


@pytest.mark.parametrize("name", EDITS)
def test_a_card_names_the_files_of_the_plain_one_and_leaves_them_alone(loaded, tokens, tmp_path, name, tiny_model):
    model, _ = loaded
    plain, card = tmp_path / "plain/arm.json", tmp_path / name / "arm.json"
    save_card(plain, arm(model), "x", 3)
    files = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in plain.parent.rglob("*") if p.is_file()}
    extend_card(card, plain, [EDITS[name]], name)
    with attached_edits(model, [*arm(model), EDITS[name]]):
        expected = logits(model, tokens)
    again, _ = load(tiny_model, tiny.RUNTIME)
    with attached(again, card):
        assert torch.equal(logits(again, tokens), expected)
    assert files == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in plain.parent.rglob("*") if p.is_file()}
    content = json.loads(card.read_text())
    assert (content["arm"], content["seed"], content["variant"]) == ("x", 3, name)
    assert [edit["kind"] for edit in content["edits"]] == ["lora", "hook", EDITS[name].kind]
    assert content["edits"][0]["file"] == "../plain/0-lora/adapter_model.safetensors"
    assert [p.name for p in card.parent.iterdir()] == ["arm.json"]
    first = card.read_bytes()
    extend_card(card, plain, [EDITS[name]], name)
    assert card.read_bytes() == first


def test_a_changed_file_of_the_plain_card_is_named(loaded, tmp_path):
    model, _ = loaded
    plain, card = tmp_path / "plain/arm.json", tmp_path / "rtn/arm.json"
    save_card(plain, arm(model), "x", 3)
    extend_card(card, plain, [EDITS["rtn"]], "rtn")
    file = plain.parent / "1-hook.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match=r"1-hook\.safetensors.*sha256"), attached(model, card):
        pass
    with pytest.raises(ValueError, match=r"1-hook\.safetensors.*sha256"):
        extend_card(card, plain, [EDITS["rtn"]], "rtn")


@pytest.mark.parametrize("name", EDITS)
def test_cached_decoding_padding_and_batches_change_nothing(loaded, name):
    model, tokenizer = loaded
    prompts = ["The rain", "बारिश दोपहर से पहले रुक गई और बच्चे", "baarish"]
    with attached_edits(model, [*arm(model), EDITS[name]]):
        together = generate(model, tokenizer, prompts, 8, 3)
        for prompt, answer in zip(prompts, together, strict=True):
            ids = tokenizer(prompt)["input_ids"]
            for _ in range(8):
                ids.append(int(logits(model, torch.tensor([ids]))[0, -1].argmax()))
            assert answer.text == tokenizer.decode(ids[-8:], skip_special_tokens=True)


# Quantisation


def test_rounding_by_hand():
    weight = torch.tensor([[0.7, -0.34, 0.06, 0.04], [0.0, 0.0, 0.0, 0.0], [14.0, -7.1, 1.1, 0.9]])
    expected = torch.tensor([[0.7, -0.3, 0.1, 0.0], [0.0, 0.0, 0.0, 0.0], [14.0, -8.0, 2.0, 0.0]])
    assert torch.allclose(quantise.rounded(weight, 4), expected, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_rounding_errs_by_half_a_step_at_most_and_twice_is_once(bits):
    weight = torch.randn(20, 50, generator=torch.Generator().manual_seed(1))
    step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
    once = quantise.rounded(weight, bits)
    assert ((once - weight).abs() <= step / 2 + 1e-6).all()
    assert (once / step).round().unique().numel() <= 2**bits - 1
    assert torch.allclose(quantise.rounded(once, bits), once, atol=1e-6)


def test_only_the_linear_modules_of_the_decoder_are_quantised(loaded):
    model, _ = loaded
    before = weights(model)
    with attached_edits(model, [EDITS["rtn"]]):
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"{path}.weight" for path in quantise.linear_modules(model)}
    assert len(changed) == 4 * 7 and not any("embed" in name or "norm" in name for name in changed)


def test_quantised_weights_lie_under_lora_and_hooks_wherever_the_card_has_them(loaded, tokens):
    """out = Q(W) x + B A x, then the hooks: by hand, and the same with the quantisation first, last or between."""
    model, _ = loaded
    lora, hook = arm(model)
    orders = ([lora, hook, EDITS["rtn"]], [EDITS["rtn"], lora, hook], [lora, EDITS["rtn"], hook])
    found = []
    for edits in orders:
        with attached_edits(model, edits):
            found.append(logits(model, tokens))
    with quantise.quantised(model, EDITS["rtn"].facts), attached_edits(model, [lora, hook]):
        expected = logits(model, tokens)
    assert all(torch.equal(one, expected) for one in found)
    with attached_edits(model, [hook, lora, EDITS["rtn"]]):
        assert torch.allclose(logits(model, tokens), expected, atol=1e-4)  # these two act on different modules


def test_a_merged_lora_is_rounded_with_the_weights_and_acts_once(loaded, tokens):
    model, _ = loaded
    lora, hook = arm(model)
    path = next(iter(sorted(p for p in quantise.linear_modules(model) if ".layers.1." in p and "q_proj" in p)))
    key = f"base_model.model.{path}"
    down, up = lora.tensors[f"{key}.lora_A.weight"], lora.tensors[f"{key}.lora_B.weight"]
    weight = model.get_submodule(path).weight.detach().clone()
    with attached_edits(model, [lora, hook, EDITS["merged"]]):
        assert torch.equal(model.get_submodule(path).weight, quantise.rounded(weight + 2 * up @ down, 4))
        assert not model.get_submodule(path)._forward_hooks
    fine = Edit("quantise", (), {}, {"scheme": "rtn", "bits": 8, "merge_lora": True})
    with attached_edits(model, [lora, hook]):
        plain = logits(model, tokens)
    with attached_edits(model, [lora, hook, fine]):
        eight = (logits(model, tokens) - plain).norm()
    with attached_edits(model, [lora, hook, EDITS["merged"]]):
        four = (logits(model, tokens) - plain).norm()
    assert eight < 0.2 * four < 0.2 * plain.norm()


@pytest.mark.parametrize(("name", "closer"), [("int8", 0.05), ("nf4", 0.5)])
def test_bitsandbytes_runs_on_a_cpu_and_is_close_to_the_weights(loaded, tokens, name, closer):
    model, _ = loaded
    before = logits(model, tokens)
    with attached_edits(model, [EDITS[name]]):
        assert (logits(model, tokens) - before).norm() < closer * before.norm()
        layer = model.get_decoder().layers[0].mlp.down_proj
        assert type(layer).__module__.startswith("bitsandbytes") and not layer.weight.is_floating_point()


def test_a_model_that_is_quantised_already_is_refused(loaded):
    model, _ = loaded
    with (
        attached_edits(model, [EDITS["int8"]]),
        pytest.raises(ValueError, match=r"model\.quantisation: none"),
        attached_edits(model, [EDITS["rtn"]]),
    ):
        pass


def test_a_merged_lora_of_another_model_is_refused(loaded):
    model, _ = loaded
    lora = lora_edit(model)
    other = Edit("lora", (1,), {k.replace("layers.1", "layers.7"): v for k, v in lora.tensors.items()}, lora.facts)
    with pytest.raises(ValueError, match="another model"), attached_edits(model, [other, EDITS["merged"]]):
        pass


# Noise


def test_noise_is_as_long_as_it_says_fixed_by_seed_and_layer_and_spares_sinks(loaded):
    model, _ = loaded
    d_model = model.config.hidden_size
    facts = {"scale": 0.3, "seed": 0, "max_norm": {"1": 50.0}}
    (embedding, note), (layer, add) = noise.hooks(model, {}, facts)
    assert embedding is model.get_input_embeddings() and layer is model.get_decoder().layers[1]
    ids = torch.arange(3, 303)[None]
    h = torch.randn(1, 300, d_model, generator=torch.Generator().manual_seed(0))
    h[0, 0] *= 100
    note(embedding, (ids,), None)
    delta = add(layer, (), h) - h
    assert torch.equal(delta[0, 0], torch.zeros(d_model))
    lengths = delta[0, 1:].norm(dim=-1) / h[0, 1:].norm(dim=-1)
    assert lengths.mean() == pytest.approx(0.3, abs=0.01)
    draws = [noise.pool(seed, n, d_model) for seed, n in ((0, 1), (0, 1), (1, 1), (0, 2))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])
    assert draws[0].mean().abs() < 0.01 and draws[0].std() == pytest.approx(1, abs=0.01)


# Scale


def test_strengths_are_products_of_what_comes_after():
    assert scale.strengths([1.0, 0.5, 1.0, 0.4]) == pytest.approx([0.2, 0.4, 0.4, 1.0])
    assert scale.strengths([1.0, 1.0]) == [1.0, 1.0]


@pytest.mark.parametrize("factor", [0.5, 0.9])
def test_a_scaled_lora_and_a_scaled_suppression_are_those_with_scaled_weights(loaded, tokens, factor):
    model, _ = loaded
    d_model = model.config.hidden_size
    lora, sae = lora_edit(model), sae_edit(d_model)
    halved = Edit("lora", lora.layers, lora.tensors, {**lora.facts, "lora_alpha": lora.facts["lora_alpha"] * factor})
    for edit, expected in ((lora, halved), (sae, sae_edit(d_model, scale=factor))):
        with attached_edits(model, [expected]):
            by_hand = logits(model, tokens)
        with attached_edits(model, [edit, Edit("scale", (), {}, {"factor": factor})]):
            assert torch.allclose(logits(model, tokens), by_hand, atol=1e-4), edit.kind


def test_a_scale_weakens_what_is_before_it_alone(loaded, tokens):
    model, _ = loaded
    first, second = arm(model)
    half = EDITS["scale"]
    with attached_edits(model, [first, second]):
        full = logits(model, tokens)
    with attached_edits(model, [half, first, second]):
        assert torch.equal(logits(model, tokens), full)
    with attached_edits(model, [first, half, second]):
        one = logits(model, tokens)
    with attached_edits(model, [first, second, half]):
        both = logits(model, tokens)
    assert not torch.allclose(one, full, atol=1e-3) and not torch.allclose(both, one, atol=1e-3)
