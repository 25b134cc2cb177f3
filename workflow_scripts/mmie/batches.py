"""Texts as batches of token ids."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, with one beginning-of-text token where the tokenizer has one (a chat template brings it)."""
    has_bos = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
    return list(tokenizer(text, add_special_tokens=not has_bos)["input_ids"])


def encoded(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text. Raises ValueError when one has no token, or more than fit the model's context."""
    ids = [encode(tokenizer, text) for text in texts]
    context = model.config.max_position_embeddings
    for row, text in zip(ids, texts, strict=True):
        if not 1 < len(row) <= context:
            raise ValueError(f"a text of {len(row)} tokens; it must have 2 to {context} (the context): {text[:60]!r}")
    return ids


def by_length(lengths: Sequence[int], batch_tokens: int, batch_size: int | None = None) -> list[list[int]]:
    """
    Indices in batches of similar length, each of at most ``batch_tokens`` padded tokens (at least one text) and
    ``batch_size`` texts.
    """
    batches: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        more = len(batches[-1]) + 1 if batches else 0
        if batches and more * lengths[i] <= batch_tokens and (batch_size is None or more <= batch_size):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def padded(ids: Sequence[Sequence[int]], pad: int, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and mask ``[text, token]``, padded on the right."""
    width = max(map(len, ids))
    tokens = torch.tensor([[*row, *[pad] * (width - len(row))] for row in ids], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids], device=device)
    return tokens, mask
