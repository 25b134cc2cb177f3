"""The decode loop gives what a cache-free reference gives, whatever the batch; sampling depends on seed and prompt."""

import pytest
import torch

import tiny
from mmie.batches import encode
from mmie.generation import Sampling, generate
from mmie.model import decoder_layers, load

PROMPTS = [*tiny.SAMPLE, "बारिश", "The rain stopped before noon and", "kya"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


def reference(model, tokenizer, prompt, steps):
    """Greedy continuation by full forward passes, one prompt at a time, no cache, no padding."""
    ids = encode(tokenizer, prompt)
    start = len(ids)
    for _ in range(steps):
        logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return tokenizer.decode(ids[start:], skip_special_tokens=True)


def test_greedy_is_the_cache_free_reference(loaded):
    model, tokenizer = loaded
    answers = generate(model, tokenizer, PROMPTS, 12, batch_size=4)
    with torch.inference_mode():
        assert [a.text for a in answers] == [reference(model, tokenizer, p, 12) for p in PROMPTS]


def test_an_edit_acts_on_prompt_and_generated_tokens(loaded):
    """A position-wise edit of a layer's output gives the cache-free reference too."""
    model, tokenizer = loaded
    shift = torch.linspace(-3, 3, model.config.hidden_size)

    def edit(_, __, out):
        states = out if torch.is_tensor(out) else out[0]
        edited = states + 20 * torch.tanh(states @ shift)[..., None] * shift
        return edited if torch.is_tensor(out) else (edited, *out[1:])

    plain = generate(model, tokenizer, PROMPTS, 12)
    handle = decoder_layers(model)[1].register_forward_hook(edit)
    try:
        answers = generate(model, tokenizer, PROMPTS, 12, batch_size=3)
        with torch.inference_mode():
            assert [a.text for a in answers] == [reference(model, tokenizer, p, 12) for p in PROMPTS]
    finally:
        handle.remove()
    assert [a.text for a in answers] != [a.text for a in plain]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0, top_k=20, seed=3)])
def test_batch_size_and_order_do_not_matter(loaded, sampling):
    model, tokenizer = loaded
    one = generate(model, tokenizer, PROMPTS, 8, batch_size=1, sampling=sampling)
    many = generate(model, tokenizer, PROMPTS[::-1], 8, batch_size=7, sampling=sampling)
    short = generate(model, tokenizer, PROMPTS, 8, sampling=sampling, batch_tokens=60)
    assert one == many[::-1] == short


def test_sampling_depends_on_the_seed(loaded):
    model, tokenizer = loaded
    one, again, other = (
        generate(model, tokenizer, PROMPTS, 8, sampling=Sampling(temperature=1.0, seed=seed)) for seed in (0, 0, 1)
    )
    assert one == again != other


def test_a_prompt_longer_than_the_context_is_refused(loaded):
    model, tokenizer = loaded
    with pytest.raises(ValueError, match="exceed the model's context of 512"):
        generate(model, tokenizer, ["rain " * 600], 8)


def test_a_text_ends_at_the_end_token(loaded):
    model, tokenizer = loaded
    answers = generate(model, tokenizer, PROMPTS, 200, sampling=Sampling(temperature=5.0, top_k=576, seed=1))
    ended = [a for a in answers if a.finish == "eos"]
    assert ended and all(a.n_tokens < 200 for a in ended)
    assert all(a.n_tokens == 200 for a in answers if a.finish == "length")


def test_a_window_narrower_than_the_prompt_is_kept_to(loaded):
    """The cache keeps every token, also in layers with a sliding window; the mask alone hides what lies outside it."""
    model, tokenizer = loaded
    layers = [layer.self_attn for layer in decoder_layers(model)]
    windows = [(attention, attention.sliding_window) for attention in layers if attention.sliding_window]
    assert windows, "the tiny model has layers with a window"
    before = model.config.sliding_window
    plain = [answer.text for answer in generate(model, tokenizer, PROMPTS, 12)]
    try:
        model.config.sliding_window = 6
        for attention, _ in windows:
            attention.sliding_window = 6
        answers = [answer.text for answer in generate(model, tokenizer, PROMPTS, 12, batch_size=4)]
        with torch.inference_mode():
            assert answers == [reference(model, tokenizer, prompt, 12) for prompt in PROMPTS]
    finally:
        model.config.sliding_window = before
        for attention, window in windows:
            attention.sliding_window = window
    assert answers != plain
