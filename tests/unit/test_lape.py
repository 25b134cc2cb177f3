"""LAPE: entropies by hand, neurons against a plain reading of the model, and the edit that holds them."""

import math

import pytest
import torch

import tiny
from mmie.arms import load_arm, make_params
from mmie.arms.lape import counted, entropy, specific
from mmie.edits import Edit, attached, attached_edits, save_card
from mmie.examples import training_rows
from mmie.generation import generate
from mmie.model import decoder_layers, load
from small_sources import small_sources

LANGUAGES = ["hi", "hi_latn", "en", "ur", "pa", "bn"]
SETTINGS = {"rate": 0.1, "bar": 0.5}


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def given(tiny_model, tmp_path_factory):
    return small_sources(tmp_path_factory.mktemp("sources"), tiny_model)


def train(loaded, given, **settings):
    (edit,) = load_arm("lape").train(*loaded, make_params("lape", SETTINGS | settings), 0, given).edits
    return edit


def activations(model, tokenizer, text):
    """act(W_gate h) of every layer, ``[layer, token, neuron]``, from the layers' inputs."""
    inputs = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for layer in decoder_layers(model)
    ]
    with torch.no_grad():
        model(torch.tensor([tokenizer(text)["input_ids"]]))
        found = [
            layer.mlp.act_fn(layer.mlp.gate_proj(x)) for layer, x in zip(decoder_layers(model), inputs, strict=True)
        ]
    for handle in handles:
        handle.remove()
    return torch.cat(found)[:, 1:]


def test_entropy_by_hand():
    active = torch.tensor([[0.5, 0.5, 0.0], [0.3, 0.0, 0.0], [0.2, 0.2, 0.4], [0.0, 0.0, 0.0]], dtype=torch.float64)
    # 1/2 and 1/2; one language alone; 1/4, 1/4 and 1/2; never active
    expected = [math.log(2), 0.0, 1.5 * math.log(2), 0.0]
    torch.testing.assert_close(entropy(active), torch.tensor(expected, dtype=torch.float64))


def test_the_lowest_entropies_above_the_bar_are_specific():
    active = torch.tensor(
        [
            [0.02, 0.0],  # of one language alone, but below the bar
            [0.9, 0.0],  # of one language alone
            [0.8, 0.8],
            [0.1, 0.7],
            [0.01, 0.01],
        ],
        dtype=torch.float64,
    )[None]
    # half of the ten probabilities are at most 0.02: the bar
    assert specific(active, rate=0.2, bar=0.5).tolist() == [[False, True, False, False, False]]
    assert specific(active, rate=0.4, bar=0.5).tolist() == [[False, True, False, True, False]]
    assert specific(active, rate=0.99, bar=0.5).tolist() == [[False, True, True, True, False]], "no others pass the bar"


def test_probabilities_are_shares_of_the_train_tokens(loaded, given):
    model, tokenizer = loaded
    active, mean = counted(model, tokenizer, given, LANGUAGES, 80)
    rows = training_rows(given.corpus, given.data, control=False)
    for i, language in enumerate(LANGUAGES):
        values = torch.cat([activations(model, tokenizer, t) for t in rows.text[rows.language == language]], dim=1)
        torch.testing.assert_close(active[..., i], (values > 0).double().mean(1), rtol=0, atol=1e-9)
        torch.testing.assert_close(mean[..., i], values.double().mean(1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("hold", ["zero", "mean"])
def test_the_forget_languages_neurons_are_held(loaded, given, hold):
    model, tokenizer = loaded
    edit = train(loaded, given, hold=hold)
    active, mean = counted(model, tokenizer, given, LANGUAGES, 80)
    expected = specific(active, SETTINGS["rate"], SETTINGS["bar"]) & (active.argmax(-1) < 2)
    assert 0 < expected.sum() < specific(active, SETTINGS["rate"], SETTINGS["bar"]).sum(), "others are other languages'"
    values = {}
    for n in edit.layers:
        assert edit.tensors[f"layer{n}.neurons"].tolist() == expected[n].nonzero()[:, 0].tolist()
        wanted = mean[n, expected[n], 2:].mean(-1) if hold == "mean" else torch.zeros(int(expected[n].sum()))
        torch.testing.assert_close(edit.tensors[f"layer{n}.value"], wanted.float())
    n = edit.layers[0]
    neurons = edit.tensors[f"layer{n}.neurons"]
    mlp = decoder_layers(model)[n].mlp
    for name, edits in (("base", []), ("edited", [edit])):
        handle = mlp.down_proj.register_forward_pre_hook(lambda _, args, name=name: values.__setitem__(name, args[0]))
        up = mlp.up_proj.register_forward_hook(lambda _, __, out, name=name: values.__setitem__(f"{name} up", out))
        with attached_edits(model, edits), torch.no_grad():
            model(torch.tensor([tokenizer("बारिश बाज़ार")["input_ids"]]))
        handle.remove(), up.remove()
    held = edit.tensors[f"layer{n}.value"] * values["edited up"][..., neurons]
    torch.testing.assert_close(values["edited"][..., neurons], held)
    others = [j for j in range(mlp.down_proj.in_features) if j not in neurons.tolist()]
    assert torch.equal(values["edited"][..., others], values["base"][..., others]), "of the first edited layer"


def test_the_edit_repeats_reloads_and_decodes_with_a_cache(loaded, given, tmp_path):
    model, tokenizer = loaded
    prompts = ["The rain", "बारिश दोपहर से पहले रुक गई और बच्चे"]
    before = generate(model, tokenizer, prompts, 6)
    for name in "ab":
        save_card(tmp_path / name / "arm.json", [train(loaded, given)], "lape", 0)
    assert (tmp_path / "a/neurons.safetensors").read_bytes() == (tmp_path / "b/neurons.safetensors").read_bytes()
    with attached(model, tmp_path / "a/arm.json"):
        together = generate(model, tokenizer, prompts, 6, 2)
        for prompt, answer in zip(prompts, together, strict=True):
            ids = tokenizer(prompt)["input_ids"]
            for _ in range(6):
                with torch.no_grad():
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            assert answer.text == tokenizer.decode(ids[-6:], skip_special_tokens=True)
    assert generate(model, tokenizer, prompts, 6) == before


def test_what_does_not_fit_is_refused(loaded, given):
    model, _ = loaded
    with pytest.raises(ValueError, match="no neuron is specific to hi or hi_latn"):
        train(loaded, given, rate=1e-5, bar=0.999)
    for name, neuron, says in (("layer9", 0, "model of 4 layers"), ("layer1", 128, "128 neurons a layer")):
        edit = Edit("neurons", (1,), {f"{name}.neurons": torch.tensor([neuron]), f"{name}.value": torch.zeros(1)})
        with pytest.raises(ValueError, match=says), attached_edits(model, [edit]):
            pass
    with pytest.raises(ValueError, match=r"arms.lape.rate: 1.5.*between 0 and 1"):
        make_params("lape", {"rate": 1.5})
