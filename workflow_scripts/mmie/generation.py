"""Batched continuation with a key-value cache: a short decode loop, greedy or sampling inside the top k."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length, encode
from mmie.key_values import roomy_cache


@dataclass(frozen=True)
class Generation:
    """A continuation: its text without the prompt, its length in tokens, and ``eos`` or ``length``."""

    text: str
    n_tokens: int
    finish: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Temperature 0 is greedy; otherwise a draw among the ``top_k`` most likely tokens."""

    temperature: float = 0.0
    top_k: int = 50
    seed: int = 0


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    max_new_tokens: int,
    batch_size: int = 128,
    sampling: Sampling = Sampling(),
    label: str = "generate",
    batch_tokens: int = 8192,
) -> list[Generation]:
    """
    Continue every prompt; the answers come in the order of the prompts.

    Prompts of similar length share a batch (left-padded), so that little is computed on padding: at most
    ``batch_size`` of them and ``batch_tokens`` padded tokens. Edits attached to the model act on prompt and generated
    tokens alike, since every token passes the same hooks. A sampled token depends on the seed, the prompt and its
    position, never on the batch.

    Raises ValueError when a prompt and its continuation do not fit the model's context.
    """
    ids = [encode(tokenizer, prompt) for prompt in prompts]
    check_context(model, ids, max_new_tokens)
    batches = by_length([len(row) for row in ids], batch_tokens, batch_size)
    answers: list[Generation | None] = [None] * len(ids)
    for batch in stage.track(batches, len(batches), f"{label}, batches"):
        draws = _draws(sampling, [prompts[i] for i in batch])
        tokens = _continue(model, tokenizer, [ids[i] for i in batch], max_new_tokens, sampling, draws)
        for i, row in zip(batch, tokens, strict=True):
            answers[i] = _answer(tokenizer, row, _end_tokens(model, tokenizer))
    return [answer for answer in answers if answer is not None]


def check_context(model: PreTrainedModel, ids: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Raises ValueError when the longest prompt and its continuation exceed the context of the model."""
    context = model.config.max_position_embeddings
    longest = max(map(len, ids), default=0)
    if longest + max_new_tokens > context:
        raise ValueError(
            f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's context of {context}. "
            "Lower config `prompts.share` or `generation.max_new_tokens`, or shorten the texts."
        )


@torch.inference_mode()
def _continue(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    ids: list[list[int]],
    max_new_tokens: int,
    sampling: Sampling,
    draws: list[np.random.Generator],
) -> list[list[int]]:
    device = model.device
    width = max(map(len, ids))
    tokens = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in ids], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=device)
    position = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = roomy_cache(model.config)
    end = torch.tensor(sorted(_end_tokens(model, tokenizer)), device=device)
    finished = torch.zeros(len(ids), dtype=torch.bool, device=device)
    chosen: list[torch.Tensor] = []
    for _ in range(max_new_tokens):
        states = model.get_decoder()(
            input_ids=tokens, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        token = _choose(model, states, sampling, draws).masked_fill(finished, tokenizer.pad_token_id)
        chosen.append(torch.where(finished, -1, token))
        finished |= torch.isin(token, end)
        if bool(finished.all()):
            break
        tokens = token[:, None]
        mask = torch.cat([mask, mask.new_ones(len(ids), 1)], dim=1)
        position = position[:, -1:] + 1
    return [[t for t in row if t >= 0] for row in torch.stack(chosen, dim=1).tolist()]


def _choose(
    model: PreTrainedModel, states: torch.Tensor, sampling: Sampling, draws: list[np.random.Generator]
) -> torch.Tensor:
    """One token per row of the last hidden states ``[batch, d_model]``."""
    if sampling.temperature == 0:
        return head.most_likely(model, states)
    logits = head.logits(model, states)
    top = logits.topk(min(sampling.top_k, logits.shape[-1]), dim=-1)
    share = (top.values.float() / sampling.temperature).softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.tensor([[draw.random()] for draw in draws], device=logits.device)
    place = torch.searchsorted(share, uniform.to(share.dtype) * share[:, -1:]).clamp(max=share.shape[-1] - 1)
    return top.indices.gather(-1, place)[:, 0]


def _draws(sampling: Sampling, prompts: list[str]) -> list[np.random.Generator]:
    keys = [hashlib.sha256(f"{sampling.seed}\0{prompt}".encode()).digest()[:8] for prompt in prompts]
    return [np.random.default_rng(int.from_bytes(key, "little")) for key in keys]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids that end a text: the tokenizer's, and those of the model's generation config (chat models have two)."""
    configured: Any = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None}


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: list[int], end: set[int]) -> Generation:
    finish = "eos" if tokens and tokens[-1] in end else "length"
    return Generation(str(tokenizer.decode(tokens, skip_special_tokens=True)), len(tokens), finish)
