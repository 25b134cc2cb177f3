"""
A model that is spread over two devices gives the numbers of one that is not, whatever is attached to it.

The two devices are pretended (`pretend.py`): what two GPUs would refuse is refused. That accelerate itself spreads a
model over GPUs, and how fast that is, takes GPUs: `test_two_gpus`.
"""

import pandas as pd
import pytest
import torch
from test_edits import all_edits, lora_edit
from test_edits_of_attacks import EDITS
from transformers import AutoModelForCausalLM

import tiny
from mmie import inside, likelihood, membership, placement
from mmie.activations import fill
from mmie.arms import load_arm, make_params
from mmie.batches import encode
from mmie.edits import Edit, attached_edits
from mmie.generation import Sampling, generate
from mmie.influence import influence
from mmie.model import load
from mmie.option_scores import option_scores
from mmie.sae_quality import behaviour
from mmie.sparse_code import encoder_of
from pretend import HERE, THERE, Placed, pretended, spread

TEXTS = tiny.SAMPLE[:4]


@pytest.fixture(scope="module", params=["tied", "untied"])
def pair(request, tiny_model):
    """The same model on one device and on two; the head is on the first of them, or on the second."""
    one, tokenizer = load(tiny_model, tiny.RUNTIME)
    two, _ = load(tiny_model, tiny.RUNTIME)
    with pretended():
        spread(two, HERE if request.param == "tied" else THERE)
        yield one, two, tokenizer


def on_both(pair, measure, edits=()):
    """What is measured of the model on one device and on two, as tensors of the CPU."""
    found = []
    for model in pair[:2]:
        with attached_edits(model, list(edits)):
            found.append(measure(model, pair[2]))
    return found


def here(value):
    return value.inner if isinstance(value, Placed) else value


def said(model, tokenizer):
    return generate(model, tokenizer, TEXTS, 4)


def named_edits(model):
    """Edits on layers of both devices."""
    neurons = {
        f"layer{n}.{k}": v for n in (1, 3) for k, v in {"neurons": torch.tensor([3]), "value": torch.ones(1)}.items()
    }
    instruction = {"plain.old": torch.tensor([2]), "plain.new": torch.tensor([2, 40, 41, 42])}
    return {
        **{f"{i}-{edit.kind}": [edit] for i, edit in enumerate(all_edits(model))},
        **{name: [lora_edit(model), EDITS[name]] for name in ("rtn", "merged", "noise", "scale")},
        "neurons": [Edit("neurons", (1, 3), neurons)],
        "prompt": [Edit("prompt", (0, 1, 2, 3), instruction)],
    }


@pytest.mark.parametrize("number", range(11))
def test_every_edit_acts_alike(pair, number):
    name, edits = list(named_edits(pair[0]).items())[number]
    one, two = on_both(pair, said, edits)
    assert one == two, name
    assert said(pair[1], pair[2]) == said(pair[0], pair[2]) != one, "detached, and attached"


def test_every_kind_of_edit_is_tried(pair):
    from mmie.edits import KINDS

    tried = {edit.kind for edits in named_edits(pair[0]).values() for edit in edits}
    assert tried == set(KINDS) and len(named_edits(pair[0])) == 11


def test_sampling(pair):
    one, two = on_both(pair, lambda *loaded: generate(*loaded, TEXTS, 4, sampling=Sampling(1.0, 20, 1)))
    assert one == two


def test_likelihood_states_and_kl(pair):
    def measure(model, tokenizer):
        found = likelihood.score(model, tokenizer, TEXTS, [True] * 4, layers=[0, 3])
        states = likelihood.last_states(model, tokenizer, TEXTS)
        with attached_edits(model, [lora_edit(model)]):
            kl = likelihood.kl_divergence(model, states, likelihood.last_states(model, tokenizer, TEXTS))
        return found.nll_sum, [here(found.states[n]).tolist() for n in (0, 3)], kl

    one, two = on_both(pair, measure)
    assert one == two


def test_membership_with_and_without_gradients(pair):
    one, two = on_both(pair, lambda *loaded: membership.attack(*loaded, TEXTS))
    assert one == two
    one, two = on_both(pair, lambda *loaded: membership.gradient_scores(*loaded, TEXTS))
    assert one == pytest.approx(two)


def test_inside_and_questions(pair):
    def masses(model, tokenizer):
        script = inside.tokens_in(tokenizer, "Latn", model.config.vocab_size)
        _, passes = inside.edited_passes(model, tokenizer, TEXTS)
        found = [measure(model, passes[0], script) for measure in (inside.lens_mass, inside.patched_mass)]
        return [here(part).tolist() for part in found]

    one, two = on_both(pair, masses, [lora_edit(pair[0])])
    assert one == two
    questions = [([2, 40, 41], [[50], [60]]), ([2, 44], [[50, 51], [60, 61]])]
    one, two = on_both(pair, lambda *loaded: option_scores(*loaded, questions))
    assert one == two


def test_activations(pair):
    def measure(model, tokenizer):
        ids = [encode(tokenizer, text) for text in TEXTS]
        into = {n: torch.zeros(sum(len(row) - 1 for row in ids), 64) for n in (1, 3)}
        fill(model, 0, ids, into, 64)
        return [states.tolist() for states in into.values()]

    one, two = on_both(pair, measure)
    assert one == two


def test_latents_and_autoencoders(pair, given):
    code = encoder_of(given.saes[0], given.saes[0].parent / "cfg.json")
    texts = pd.DataFrame({"language": ["en", "en", "hi", "hi"], "text": TEXTS})
    one, two = on_both(pair, lambda *loaded: influence(*loaded, code, 3, texts, ["en", "hi"], 0))
    assert one == pytest.approx(two, rel=1e-4, abs=1e-8)
    one, two = on_both(pair, lambda *loaded: behaviour(*loaded, code, 3, texts))
    pd.testing.assert_frame_equal(one, two)


SMALL = {"steps": 2, "forget_texts": 2, "retain_texts": 3, "max_tokens": 16, "label_tokens": 5, "warmup": 1}
# All but `dsg`, which runs the model only as `sae_gate` does.
ARMS = {
    "lora": {**SMALL, "layers": [1, 2, 3], "rank": 2, "retain": "kl"},
    "npo": {**SMALL, "method": "lora", "layers": [1, 2, 3], "rank": 2, "objective": "npo"},
    "rmu": {**SMALL, "method": "lora", "layers": [1, 2], "rank": 2, "objective": "rmu", "state_layer": 2},
    "reft": {**SMALL, "layers": [1, 2], "rank": 2},
    "grun": {**SMALL, "layers": [1, 2], "rank": 2, "gate_steps": 2},
    "sae_gate": {"gate_steps": 2},
    "crisp": {**SMALL, "layers": [1, 2]},
    "grun_sae": {**SMALL, "layers": [2], "rank": 2, "gate_steps": 2},
    "diff_means": {"layers": [2]},
    "leace": {"layers": [2]},
    "lape": {},
    "unlearn_subspace": {"layers": [1, 2, 3], "rank": 2},
    "prompt": {},
}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_trains_alike(pair, given, name):
    settings = dict(ARMS[name])
    method = settings.pop("method", name)
    params = make_params(method, settings)
    trained = [load_arm(method).train(model, pair[2], params, 0, given) for model in pair[:2]]
    assert [edit.kind for edit in trained[0].edits] == [edit.kind for edit in trained[1].edits]
    for one, two in zip(trained[0].edits, trained[1].edits, strict=True):
        for key, value in one.tensors.items():
            torch.testing.assert_close(here(two.tensors[key]).cpu(), value, rtol=1e-4, atol=1e-5, msg=key)


def test_what_meets_another_device_is_refused(pair):
    """As it is on two GPUs: otherwise nothing here would mean anything."""
    layer = pair[1].get_decoder().layers[3]
    with pytest.raises(RuntimeError, match="same device"):
        layer.self_attn.q_proj.weight @ torch.ones(64, 2, device=HERE)


def test_the_map_of_accelerate_leaves_nothing_on_the_disk_unnoticed(tiny_model, tmp_path):
    parts = {"model.embed_tokens": "cpu", "lm_head": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    split = parts | {f"model.layers.{n}": "cpu" if n < 2 else "disk" for n in range(4)}
    model = AutoModelForCausalLM.from_pretrained(
        tiny_model.parent, device_map=split, offload_folder=tmp_path, dtype=torch.float32
    )
    with pytest.raises(ValueError, match=r"does not fit on the GPUs: .* parts were left over"):
        placement.check_whole(model)


@pytest.mark.parametrize("name", ["auto", "balanced", "sequential"])
def test_without_two_gpus_it_is_refused(tiny_model, name):
    if torch.cuda.device_count() > 1:
        pytest.skip("this machine has two GPUs")
    with pytest.raises(ValueError, match=f"model.device_map: {name}. needs .* at least two CUDA devices"):
        load(tiny_model, {**tiny.RUNTIME, "device_map": name})
    placement.check("none", "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="takes two GPUs")
@pytest.mark.parametrize("name", ["auto", "balanced", "sequential"])
def test_two_gpus(tiny_model, name):
    """What accelerate spreads itself says what one GPU says."""
    one, tokenizer = load(tiny_model, {**tiny.RUNTIME, "device": "cuda"})
    two, _ = load(tiny_model, {**tiny.RUNTIME, "device": "cuda", "device_map": name})
    for edits in named_edits(one).values():
        found = []
        for model in (one, two):
            with attached_edits(model, edits):
                found.append(said(model, tokenizer))
        assert found[0] == found[1]
