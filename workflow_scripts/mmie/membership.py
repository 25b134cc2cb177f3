"""Membership attacks on the canaries: what a model's likelihood gives away of what it was trained on."""

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length, encoded, padded
from mmie.likelihood import last_hidden

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus")
"""Scores that one forward pass gives, columns of `tables.MEMBERSHIP`; larger says member."""
GRADNORM, REFERENCE = "gradnorm", "reference"
"""Scores that need a backward pass, and the pretrained model."""
SHARE = 0.2
"""Share of the tokens that min-k and min-k++ look at: the least likely (2310.16789 and 2404.02936 use 0.2 as well)."""


def membership_rows(
    canaries: pd.DataFrame,
    scores: Sequence[dict[str, float]],
    gradients: Mapping[str, float],
    pretrained: Mapping[str, float],
    run: dict[str, Any],
) -> list[dict[str, Any]]:
    """
    Rows of `tables.MEMBERSHIP`: ``scores`` belong to the rows of ``canaries``, in their order.

    ``gradients``: gradient score by canary, of those that have one. ``pretrained``: the ``loss`` score of each canary
    under the pretrained model, which never saw any; the reference attack (2012.07805) is the score that remains when
    it is taken off. Raises ValueError when the pretrained model was scored on other canaries.
    """
    rows = scored_rows(canaries, scores, gradients)
    if any(row["canary_id"] not in pretrained for row in rows):
        raise ValueError("results/reference.parquet is of other canaries. Delete it, and Snakemake makes it again.")
    return [{**run, **row, REFERENCE: row["loss"] - pretrained[row["canary_id"]]} for row in rows]


def scored_rows(
    canaries: pd.DataFrame, scores: Sequence[dict[str, float]], gradients: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Rows of `tables.REFERENCE`: each canary with its scores."""
    about = canaries[["canary_id", "language", "member"]].to_dict("records")
    return [
        {**row, **found, GRADNORM: gradients.get(row["canary_id"])} for row, found in zip(about, scores, strict=True)
    ]


def choose_canaries(canaries: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` members and as many non-members of each language, drawn by a hash of their ids."""
    order = canaries["canary_id"].map(lambda name: hashlib.sha256(name.encode()).hexdigest())
    drawn = canaries.assign(order=order).sort_values("order").groupby(["language", "member"]).head(count)
    return canaries[canaries["canary_id"].isin(drawn["canary_id"])]


def gradient_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_tokens: int = 512
) -> list[float]:
    """
    Minus the norm of the gradient of each text's mean nll with respect to its embedded tokens (2402.17012, section 4).

    A text that the model was trained on is nearer to a minimum. The gradient with respect to all weights, which the
    paper measures as well, would need one backward pass per text.
    """
    ids = encoded(model, tokenizer, texts)
    found = [0.0] * len(ids)
    batches = by_length([len(row) for row in ids], batch_tokens)
    for batch in stage.track(batches, len(batches), "canaries with gradients, batches"):
        tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
        keep = mask[:, 1:].bool()
        with torch.enable_grad(), _embedded(model) as embedded:
            states = last_hidden(model, tokens, mask)[:, :-1][keep]
            logits = model.get_output_embeddings()(states).float()
            nll = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][keep], reduction="none")
            loss = sum(part.mean() for part in nll.split(keep.sum(-1).tolist()))
            (gradient,) = torch.autograd.grad(loss, embedded)
        for i, row in zip(batch, gradient.float(), strict=True):
            found[i] = -float(row.norm())
    return found


@contextmanager
def _embedded(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Inside the block, the embedded tokens are where gradients begin."""
    found: list[torch.Tensor] = []

    def hook(_: torch.nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        found.append(out.detach().requires_grad_())
        return found[-1]

    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield found
    finally:
        handle.remove()


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
