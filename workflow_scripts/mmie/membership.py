"""Membership attacks on the canaries: what a model's likelihood gives away of what it was trained on."""

import zlib
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length, encoded, padded
from mmie.likelihood import last_hidden

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus")
"""Columns of `tables.MEMBERSHIP`; larger says member."""
SHARE = 0.2
"""Share of the tokens that min-k and min-k++ look at: the least likely (2310.16789 and 2404.02936 use 0.2 as well)."""


def membership_rows(
    canaries: pd.DataFrame, scores: Sequence[dict[str, float]], run: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of `tables.MEMBERSHIP`: ``scores`` belong to the rows of ``canaries``, in their order."""
    about = canaries[["canary_id", "language", "member"]].to_dict("records")
    return [{**run, **row, **found} for row, found in zip(about, scores, strict=True)]


@torch.inference_mode()
def attack(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_tokens: int = 512
) -> list[dict[str, float]]:
    """`attack_scores` of each text under the model, in one pass. Raises ValueError when one exceeds the context."""
    ids = encoded(model, tokenizer, texts)
    found: list[dict[str, float]] = [{}] * len(ids)
    batches = by_length([len(row) for row in ids], batch_tokens)
    for batch in stage.track(batches, len(batches), "canaries, batches"):
        tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
        keep = mask[:, 1:].bool()
        states = last_hidden(model, tokens, mask)[:, :-1][keep]
        parts = [
            values.split(keep.sum(-1).tolist()) for values in head.standardised(model, states, tokens[:, 1:][keep])
        ]
        for i, log_p, standard in zip(batch, *parts, strict=True):
            found[i] = attack_scores(texts[i], log_p, standard)
    return found


def attack_scores(text: str, log_p: torch.Tensor, standard: torch.Tensor) -> dict[str, float]:
    """
    Scores of one text from its tokens' log-probabilities and standardised log-probabilities, ``[token]`` each.

    ``loss`` (1709.01604) is the mean log-probability; ``zlib`` (2012.07805) their sum per byte of the compressed text,
    so that an easy text counts less; ``min_k`` (2310.16789) and ``min_k_plus`` (2404.02936) are means over the least
    likely tokens, which a model that has not seen the text finds hard.
    """
    least = max(1, int(SHARE * len(log_p)))
    return {
        "n_tokens": len(log_p),
        "loss": float(log_p.mean()),
        "zlib": float(log_p.sum()) / len(zlib.compress(text.encode())),
        "min_k": float(log_p.sort().values[:least].mean()),
        "min_k_plus": float(standard.sort().values[:least].mean()),
    }
