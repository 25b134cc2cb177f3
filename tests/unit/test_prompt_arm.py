"""The prompt arm: a model with the edit is base with the instruction's tokens before every text, whoever runs it."""

import math

import pytest
import torch

import tiny
from mmie.arms import load_arm, make_params
from mmie.arms.prompt import beginnings
from mmie.edits import Edit, attached, attached_edits, save_card
from mmie.generation import generate
from mmie.likelihood import kl_divergence, last_states, score
from mmie.model import decoder_layers, load

TEXT = "The rain stopped before noon."
PROMPTS = ["The rain", "बारिश दोपहर से पहले रुक गई और बच्चे", "kya"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}SYSTEM\n{{ m.content }}\n{% else %}USER\n{{ m.content }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}MODEL\n{% endif %}"
)


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def edit(loaded):
    return train(loaded)


def train(loaded, text=TEXT):
    trained = load_arm("prompt").train(*loaded, make_params("prompt", {"text": text}), 0, None)
    assert trained.history == []
    return trained.edits[0]


def prefixed(tokenizer, text):
    """Ids of beginning of text, instruction, text, and how many of them are the text's own."""
    own = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*tokenizer(f"{TEXT}\n\n")["input_ids"], *own], len(own)


def greedy(model, ids, steps):
    """Continuation without a cache."""
    ids = list(ids)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[-steps:]


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_likelihood_is_of_the_texts_own_tokens_after_the_instruction(loaded, edit, batch_tokens):
    model, tokenizer = loaded
    with attached_edits(model, [edit]):
        found = score(model, tokenizer, tiny.SAMPLE, [True] * 7, layers=[0, 2], batch_tokens=batch_tokens)
        edited = last_states(model, tokenizer, tiny.SAMPLE, batch_tokens)
    for i, text in enumerate(tiny.SAMPLE):
        ids, own = prefixed(tokenizer, text)
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_hidden_states=True)
        nll = -out.logits[0].double().log_softmax(-1)[:-1].gather(-1, torch.tensor(ids)[1:, None])[-own:].sum()
        assert found.n_tokens[i] == own, "as many as in base"
        assert found.nll_sum[i] == pytest.approx(float(nll), rel=1e-5)
        for layer in (0, 2):
            expected = out.hidden_states[layer + 1][0, -own:].mean(0)
            torch.testing.assert_close(found.states[layer][i], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(edited[i], out.hidden_states[-1][0, -own - 1 : -1], rtol=1e-4, atol=1e-4)
    base = last_states(model, tokenizer, tiny.SAMPLE)
    assert min(kl_divergence(model, base, edited)) > 0


def test_generation_is_that_after_the_instruction_whatever_the_batch_and_its_padding(loaded, edit):
    model, tokenizer = loaded
    expected = [
        tokenizer.decode(greedy(model, prefixed(tokenizer, p)[0], 8), skip_special_tokens=True) for p in PROMPTS
    ]
    with attached_edits(model, [edit]):
        for batch_size in (1, 3):
            assert [a.text for a in generate(model, tokenizer, PROMPTS, 8, batch_size)] == expected
    assert [a.text for a in generate(model, tokenizer, PROMPTS, 8)] != expected, "detached, it is base"


def test_transformers_own_generate_sees_the_instruction(loaded, edit):
    model, tokenizer = loaded
    expected = [greedy(model, prefixed(tokenizer, p)[0], 8) for p in PROMPTS]
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    call = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"], "max_new_tokens": 8}
    with attached_edits(model, [edit]):
        for use_cache in (True, False):
            out = model.generate(**call, eos_token_id=None, use_cache=use_cache)
            assert out[:, inputs["input_ids"].shape[1] :].tolist() == expected


def test_other_edits_of_the_card_act_on_the_instruction_in_either_order(loaded, edit):
    model, tokenizer = loaded
    width = model.config.hidden_size
    unit = torch.nn.functional.normalize(torch.linspace(-1, 1, width), dim=0)[None]
    parts = {"R": unit, "W": -unit, "b": torch.ones(1), "max_norm": torch.tensor([math.inf])}
    hook = Edit("hook", (1,), {f"layer1.{name}": value for name, value in parts.items()})
    ids, own = prefixed(tokenizer, PROMPTS[1])
    with attached_edits(model, [hook]), torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -own:]
    for edits in ([hook, edit], [edit, hook]):
        with attached_edits(model, edits), torch.no_grad():
            found = model(torch.tensor([tokenizer(PROMPTS[1])["input_ids"]])).logits[0, -own:]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_card_reloads_bit_by_bit_and_leaves_no_hook(loaded, edit, tmp_path):
    model, _ = loaded
    tokens = torch.tensor([[2, 40, 50, 60]])
    before = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    with torch.no_grad():
        base = model(tokens).logits
        with attached_edits(model, [edit]):
            expected = model(tokens).logits
        for name in "ab":
            save_card(tmp_path / name / "arm.json", [train(loaded)], "prompt", 0)
        with attached(model, tmp_path / "a/arm.json"):
            assert torch.equal(model(tokens).logits, expected)
        assert torch.equal(model(tokens).logits, base)
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == before
    assert (tmp_path / "a/prompt.safetensors").read_bytes() == (tmp_path / "b/prompt.safetensors").read_bytes()
    assert edit.layers == tuple(range(len(decoder_layers(model)))), "every layer's states change"


@pytest.mark.parametrize("system", [True, False])
def test_in_a_chat_the_instruction_is_the_system_message_or_opens_the_users_turn(loaded, tiny_model, system):
    model, _ = loaded
    _, tokenizer = load(tiny_model, tiny.RUNTIME)
    tokenizer.chat_template = (
        CHAT if system else "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHAT
    )
    found = {(name, part): tokenizer.decode(ids) for name, part, ids in beginnings(tokenizer, TEXT)}
    assert found["chat", "old"] == "<bos>USER\n"
    assert found["chat", "new"] == (f"<bos>SYSTEM\n{TEXT}\nUSER\n" if system else f"<bos>USER\n{TEXT}\n\n")
    chats = [f"<bos>USER\n{p}\nMODEL\n" for p in PROMPTS]
    asked = [
        f"<bos>SYSTEM\n{TEXT}\nUSER\n{p}\nMODEL\n" if system else f"<bos>USER\n{TEXT}\n\n{p}\nMODEL\n" for p in PROMPTS
    ]
    expected = generate(model, tokenizer, asked, 6)
    with attached_edits(model, [train((model, tokenizer))]):
        assert generate(model, tokenizer, chats, 6, 3) == expected
        with pytest.raises(ValueError, match="some texts of a batch are in the chat format"):
            generate(model, tokenizer, [*chats, *PROMPTS], 6)
        plain = generate(model, tokenizer, PROMPTS, 6)
    assert plain == generate(model, tokenizer, [f"{TEXT}\n\n{p}" for p in PROMPTS], 6)


def test_without_a_beginning_of_text_token_the_instruction_stands_before_the_first_token(loaded):
    model, tokenizer = loaded
    new = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    edit = Edit("prompt", (0,), {"plain.old": torch.empty(0, dtype=torch.int64), "plain.new": torch.tensor(new)})
    own = tokenizer(PROMPTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = model(torch.tensor([new + own])).logits[0, -len(own) :]
        with attached_edits(model, [edit]):
            found = model(torch.tensor([own])).logits[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_would_be_wrong_is_refused(loaded, edit):
    model, tokenizer = loaded
    tokens = torch.tensor([tokenizer("The rain")["input_ids"]])
    begun = model(tokens, use_cache=True).past_key_values
    with attached_edits(model, [edit]):
        for call, says in (
            ({"input_ids": tokens[:, 1:]}, "does not begin with"),
            ({"input_ids": tokens[:, -1:], "past_key_values": begun}, "cache was begun without it"),
            ({"inputs_embeds": torch.zeros(1, 2, model.config.hidden_size)}, "run the model on `input_ids`"),
            ({"input_ids": tokens.expand(1, -1).repeat(1, 200)}, "exceed the model's context of 512"),
        ):
            with pytest.raises(ValueError, match=says):
                model(**call)
        # The tiny model's window is 64 tokens, instruction included.
        with pytest.raises(ValueError, match=r"attention window of 64.*batch_size: 1"):
            generate(model, tokenizer, ["The rain", "rain " * 60], 4)
    for ids, says in (([2, 10**6], "made for another model"), ([2], "there must be more"), ([2] * 99, "fewer than 64")):
        wrong = Edit("prompt", (0,), {"plain.old": torch.tensor([2]), "plain.new": torch.tensor(ids)})
        with pytest.raises(ValueError, match=says), attached_edits(model, [wrong]):
            pass
    with pytest.raises(ValueError, match=r"arms.prompt.text: ' '"):
        make_params("prompt", {"text": " "})
