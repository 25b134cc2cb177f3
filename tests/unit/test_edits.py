"""Edits: what a card restores is what was trained, inside the block only, cached or not, padded or not."""

import json

import pytest
import torch
from transformers import DynamicCache

import tiny
from mmie.edits import Edit, attached, attached_edits, read_card, save_card
from mmie.edits import dsg as dsg_kind
from mmie.edits import hook as hook_kind
from mmie.edits import sae_gate as sae_kind
from mmie.generation import generate
from mmie.model import load

MODULES = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def tokens():
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 300, (3, 12), generator=generator)
    ids[:, 0] = 2
    return ids


def random(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def orthonormal(rank, d_model, seed=0):
    return torch.linalg.qr(random(d_model, rank, seed=seed))[0].T.contiguous()


def lora_edit(model, layers=(1, 3), r=4):
    tensors = {}
    for name, module in model.named_modules():
        if name.split(".")[-1] in MODULES and any(f".layers.{n}." in name for n in layers):
            key = f"base_model.model.{name}"
            tensors[f"{key}.lora_A.weight"] = random(r, module.in_features, seed=len(tensors), scale=0.2)
            tensors[f"{key}.lora_B.weight"] = random(module.out_features, r, seed=len(tensors), scale=0.2)
    return Edit("lora", layers, tensors, {"r": r, "lora_alpha": 2 * r})


def hook_edit(d_model, layers=(1, 2), gate=False, max_norm=float("inf")):
    tensors = {}
    for n in layers:
        parts = {
            "R": orthonormal(3, d_model, seed=n),
            "W": random(3, d_model, seed=n + 10),
            "b": random(3, seed=n + 20),
            "max_norm": torch.tensor([max_norm]),
        }
        if gate:
            parts |= {
                "gate_mean": random(d_model, seed=n + 30),
                "gate_scale": random(d_model, seed=n + 40).abs() + 0.5,
                "gate_in": random(5, d_model, seed=n + 50),
                "gate_in_bias": random(5, seed=n + 60),
                "gate_out": random(5, seed=n + 70),
                "gate_out_bias": random(1, seed=n + 80),
            }
        tensors |= {f"layer{n}.{name}": value for name, value in parts.items()}
    return Edit("hook", layers, tensors, {"rank": 3})


def sae_edit(d_model, layer=2, scale=1.0):
    decoder = torch.nn.functional.normalize(random(6, d_model, seed=1), dim=-1)
    parts = {
        "encoder": decoder,
        "bias": torch.full((6,), 0.1),
        "threshold": torch.full((6,), 0.3),
        "decoder": scale * decoder,
        "max_norm": torch.tensor([float("inf")]),
    }
    return Edit("sae_gate", (layer,), {f"layer{layer}.{k}": v for k, v in parts.items()}, {"scale": scale})


def gated_sae_edit(d_model):
    edit, gate = sae_edit(d_model), hook_edit(d_model, layers=(2,), gate=True).tensors
    gate = {name: value for name, value in gate.items() if ".gate" in name}
    return Edit(edit.kind, edit.layers, edit.tensors | gate, edit.facts)


def dsg_edit(d_model, tau=0.4, clamp=5.0, min_tokens=3):
    edit = sae_edit(d_model)
    more = {"layer2.tau": torch.tensor([tau]), "layer2.clamp": torch.tensor([clamp])}
    # Half of the latents: the texts of these tests lie on both sides of the threshold.
    parts = {name: value if "norm" in name else value[:1] for name, value in edit.tensors.items()}
    return Edit("dsg", (2,), parts | more, {"special": [0, 1, 2, 3], "min_tokens": min_tokens})


def all_edits(model):
    d_model = model.config.hidden_size
    sae = [sae_edit(d_model), gated_sae_edit(d_model), dsg_edit(d_model)]
    return [lora_edit(model), hook_edit(d_model, gate=True), *sae]


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


def test_inside_the_block_the_model_is_edited_and_afterwards_it_is_untouched(loaded, tokens):
    model, _ = loaded
    before = logits(model, tokens)
    for edit in all_edits(model):
        with attached_edits(model, [edit]) as same:
            assert same is model
            assert not torch.allclose(logits(model, tokens), before, atol=1e-3), edit.kind
        assert torch.equal(logits(model, tokens), before), edit.kind
    with pytest.raises(KeyError), attached_edits(model, all_edits(model)):
        raise KeyError
    assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize("kind", range(5))
def test_a_card_restores_the_same_edit_and_the_same_edit_gives_the_same_bytes(loaded, tokens, tmp_path, kind):
    model, _ = loaded
    edit = all_edits(model)[kind]
    with attached_edits(model, [edit]):
        expected = logits(model, tokens)
    for folder in ("one", "two"):
        save_card(tmp_path / folder / "arm.json", [edit], "x", 3)
    with attached(model, tmp_path / "one/arm.json"):
        assert torch.equal(logits(model, tokens), expected)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    card = json.loads((tmp_path / "one/arm.json").read_text())
    assert (card["arm"], card["seed"], card["variant"]) == ("x", 3, "plain")
    assert card["edits"][0]["layers"] == list(edit.layers)


def test_edits_act_in_the_order_of_the_card(loaded, tokens, tmp_path):
    model, _ = loaded
    d_model = model.config.hidden_size
    first, second = hook_edit(d_model, layers=(2,)), sae_edit(d_model)
    save_card(tmp_path / "a/arm.json", [first, second], "x", 0)
    save_card(tmp_path / "b/arm.json", [second, first], "x", 0)
    assert [e.kind for e in read_card(tmp_path / "a/arm.json")] == ["hook", "sae_gate"]
    with attached(model, tmp_path / "a/arm.json"):
        one = logits(model, tokens)
    with attached(model, tmp_path / "b/arm.json"):
        other = logits(model, tokens)
    with attached_edits(model, [first, second]):
        assert torch.equal(logits(model, tokens), one)
    assert not torch.allclose(one, other, atol=1e-4)


def test_a_card_without_edits_is_the_base_model(loaded, tokens, tmp_path):
    model, _ = loaded
    before = logits(model, tokens)
    save_card(tmp_path / "arm.json", [], "base", 0)
    with attached(model, tmp_path / "arm.json"):
        assert torch.equal(logits(model, tokens), before)


def test_peft_reads_the_lora_folder_and_gives_the_same_logits(loaded, tokens, tmp_path, tiny_model):
    from peft import PeftModel

    model, _ = loaded
    save_card(tmp_path / "arm.json", [lora_edit(model)], "lora", 0)
    with attached(model, tmp_path / "arm.json"):
        ours = logits(model, tokens)
    other, _ = load(tiny_model, tiny.RUNTIME)
    theirs = logits(PeftModel.from_pretrained(other, str(tmp_path / "lora")), tokens)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "lora").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert str(tmp_path) not in (tmp_path / "lora/adapter_config.json").read_text()


@pytest.mark.parametrize("kind", range(5))
def test_cached_decoding_and_left_padding_change_nothing(loaded, kind):
    model, tokenizer = loaded
    prompts = ["The rain", "बारिश दोपहर से पहले रुक गई और बच्चे", "baarish"]
    with attached_edits(model, [all_edits(model)[kind]]):
        together = generate(model, tokenizer, prompts, 8, 3)
        for prompt, answer in zip(prompts, together, strict=True):
            ids = tokenizer(prompt)["input_ids"]
            for _ in range(8):
                ids.append(int(logits(model, torch.tensor([ids]))[0, -1].argmax()))
            assert answer.text == tokenizer.decode(ids[-8:], skip_special_tokens=True)


def guarded(d_model=4, tau=0.5, clamp=3.0, min_tokens=2):
    """Two latents, the first two dimensions; active above .5."""
    encoder = torch.eye(d_model)[:2]
    numbers = {"max_norm": float("inf"), "tau": tau, "clamp": clamp}
    parts = {"encoder": encoder, "decoder": encoder, "bias": torch.zeros(2), "threshold": torch.full((2,), 0.5)}
    return dsg_kind.rewrite(parts | {k: torch.tensor([v]) for k, v in numbers.items()}, min_tokens)


def test_dsg_clamps_active_latents_where_the_share_so_far_exceeds_the_threshold():
    h = torch.tensor([[[2.0, 0.4, 3, -1], [0, 0, 5, 5], [0, 4, 1, 1], [1, 1, 0, 0], [0, 0, 2, 0]]])
    out, now = guarded()(h, torch.ones(1, 5, dtype=torch.bool), None)
    # Shares 1 (too short), 1/2 (not above), 2/3, 3/4, 3/5: in the third and fourth text the active ones become -3.
    expected = h.clone()
    expected[0, 2, 1] = expected[0, 3, 0] = expected[0, 3, 1] = -3
    assert torch.equal(out, expected)
    assert (now.active.tolist(), now.total.tolist(), now.columns) == ([[3]], [[5]], 5)


def test_dsg_of_nothing_active_or_of_a_share_of_one_is_the_identity():
    h, text = random(2, 6, 4), torch.ones(2, 6, dtype=torch.bool)
    assert torch.equal(guarded(tau=1.0)(h, text, None)[0], h)
    quiet = h.clamp(max=0.4)
    assert torch.equal(guarded(tau=-1.0)(quiet, text, None)[0], quiet)


def test_dsg_counts_no_special_token_and_goes_on_where_it_stopped():
    h, text = random(3, 9, 4, scale=2.0), torch.ones(3, 9, dtype=torch.bool)
    whole, end = guarded()(h, text, None)
    pads = torch.full((3, 2, 4), 9.0)
    padded, same = guarded()(torch.cat([pads, h], 1), torch.cat([text[:, :2] & False, text], 1), None)
    assert torch.equal(padded[:, 2:], whole) and torch.equal(padded[:, :2], pads)
    assert torch.equal(same.total, end.total) and torch.equal(same.active, end.active)
    first, before = guarded()(h[:, :4], text[:, :4], None)
    steps = [first]
    for i in range(4, 9):
        step, before = guarded()(h[:, i : i + 1], text[:, i : i + 1], before)
        steps.append(step)
    assert torch.equal(torch.cat(steps, 1), whole) and not torch.equal(whole, h)


def test_dsg_refuses_a_cache_that_it_has_not_seen_from_the_start(loaded, tokens):
    model, _ = loaded
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=tokens, past_key_values=cache)
        with attached_edits(model, [dsg_edit(model.config.hidden_size)]), pytest.raises(ValueError, match="before the"):
            model(input_ids=tokens[:, :1], past_key_values=cache)


def test_a_gate_scales_the_suppression_of_each_token(loaded):
    model, _ = loaded
    d_model = model.config.hidden_size
    parts = {n.split(".")[1]: v for n, v in gated_sae_edit(d_model).tensors.items()}
    ungated = {n: v for n, v in parts.items() if "gate" not in n}
    h = random(2, 3, d_model, seed=9)
    x = torch.relu((h - parts["gate_mean"]) / parts["gate_scale"] @ parts["gate_in"].T + parts["gate_in_bias"])
    gate = torch.sigmoid(x @ parts["gate_out"] + parts["gate_out_bias"])[..., None]
    expected = h + gate * (sae_kind.rewrite(ungated)(h) - h)
    assert torch.allclose(sae_kind.rewrite(parts)(h), expected, atol=1e-4)
    closed = parts | {"gate_out": parts["gate_out"] * 0, "gate_out_bias": torch.tensor([-1e4])}
    assert torch.equal(sae_kind.rewrite(closed)(h), h)


def test_hook_edit_is_loreft_with_and_without_a_gate():
    h = random(2, 3, 16, seed=9)
    for gate in (False, True):
        edit = hook_edit(16, layers=(0,), gate=gate)
        parts = {name.split(".")[1]: value for name, value in edit.tensors.items()}
        delta = (h @ parts["W"].T + parts["b"] - h @ parts["R"].T) @ parts["R"]
        if gate:
            x = (h - parts["gate_mean"]) / parts["gate_scale"]
            hidden = torch.relu(x @ parts["gate_in"].T + parts["gate_in_bias"])
            delta = torch.sigmoid(hidden @ parts["gate_out"] + parts["gate_out_bias"])[..., None] * delta
        assert torch.allclose(hook_kind.rewrite(parts)(h), h + delta, atol=1e-4)


def test_hook_edit_with_w_equal_r_and_no_bias_is_the_identity():
    rotation = orthonormal(3, 16)
    parts = {"R": rotation, "W": rotation, "b": torch.zeros(3), "max_norm": torch.tensor([float("inf")])}
    h = random(2, 3, 16)
    assert torch.equal(hook_kind.rewrite(parts)(h), h)


def test_tokens_above_the_norm_pass_unchanged():
    edit = hook_edit(16, layers=(0,), max_norm=100.0)
    parts = {name.split(".")[1]: value for name, value in edit.tensors.items()}
    h = random(1, 4, 16)
    h[0, 0] *= 1000
    out = hook_kind.rewrite(parts)(h)
    assert torch.equal(out[0, 0], h[0, 0])
    assert not torch.isclose(out[0, 1:], h[0, 1:]).all(-1).any()


def test_suppression_removes_the_chosen_latent_and_keeps_the_rest():
    encoder = torch.eye(4)[:2]
    parts = {
        "encoder": encoder,
        "bias": torch.zeros(2),
        "threshold": torch.tensor([0.5, 0.5]),
        "decoder": encoder,
        "max_norm": torch.tensor([float("inf")]),
    }
    h = torch.tensor([[[2.0, 0.4, 3.0, -1.0]]])
    # Latent 0 is active (2 > 0.5) and goes; latent 1 (0.4) is below its threshold and stays.
    assert torch.equal(sae_kind.rewrite(parts)(h), torch.tensor([[[0.0, 0.4, 3.0, -1.0]]]))


@pytest.mark.parametrize("what", ["missing", "changed", "not json", "no card"])
def test_a_damaged_card_is_named(loaded, tmp_path, what):
    model, _ = loaded
    card = tmp_path / "arm.json"
    save_card(card, [hook_edit(model.config.hidden_size)], "reft", 0)
    if what == "missing":
        (tmp_path / "hook.safetensors").unlink()
    elif what == "changed":
        (tmp_path / "hook.safetensors").write_bytes((tmp_path / "hook.safetensors").read_bytes() + b" ")
    elif what == "not json":
        card.write_text("{")
    else:
        card.unlink()
    with pytest.raises(ValueError, match="arm.json" if what in ("not json", "no card") else "hook.safetensors"):
        read_card(card)


def test_an_edit_of_another_model_is_refused(loaded):
    model, _ = loaded
    lora = lora_edit(model)
    wrong = [
        hook_edit(model.config.hidden_size, layers=(4,)),
        hook_edit(32),
        Edit("lora", (1,), {k.replace("layers.1", "layers.7"): v for k, v in lora.tensors.items()}, lora.facts),
        Edit("lora", (1,), {k: v[:, :-1] if "lora_A" in k else v for k, v in lora.tensors.items()}, lora.facts),
        Edit("nothing", (1,), {}, {}),
    ]
    before = [len(m._forward_hooks) for m in model.modules()]
    for edit in wrong:
        with pytest.raises(ValueError), attached_edits(model, [edit]):
            pass
    assert [len(m._forward_hooks) for m in model.modules()] == before


def test_bf16_models_keep_their_dtype(tiny_model, tokens):
    model, _ = load(tiny_model, {**tiny.RUNTIME, "dtype": "bfloat16"})
    with attached_edits(model, all_edits(model)):
        assert logits(model, tokens).dtype == torch.bfloat16
