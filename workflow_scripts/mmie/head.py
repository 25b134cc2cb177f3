"""
The head over a large vocabulary, tile by tile: what the model predicts at each position, and how sure it is.

A tile is the logits of some positions over part of the vocabulary. It stays in a CPU's cache, where the whole row of
262144 logits goes through memory at every step of a softmax.
"""

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

ROWS = 512
"""Positions of a tile: bf16 products of fewer are slower, as the weights are read again for each."""
COLUMNS = 8192
"""Vocabulary of a tile."""
LEAST_DEVIATION = 1e-4
"""A log-probability's least standard deviation, nats: below it, fp32 rounding is all there is."""


def log_probabilities(model: PreTrainedModel, states: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """
    Log-probability of each label, nats, ``[token]`` fp64, from the last hidden states ``[token, d_model]`` that predict
    it.
    """
    return _by_rows(model, states, labels, moments=False)[0]


def standardised(
    model: PreTrainedModel, states: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    `log_probabilities`, and the same less their mean over the vocabulary and divided by their standard deviation.

    Mean and deviation are those of ln p(z) when z is drawn from the model's own prediction p, as in Min-K%++
    (2404.02936, equation 3). Both ``[token]`` fp64.
    """
    log_p, mean, square = _by_rows(model, states, labels, moments=True)
    deviation = (square - mean**2).clamp(min=LEAST_DEVIATION**2).sqrt()
    return log_p, (log_p - mean) / deviation


def mass(model: PreTrainedModel, states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """
    Probability of all tokens ``inside`` (``[vocabulary]`` bool) together, ``[row]`` fp64, from the last hidden states
    ``[row, d_model]``.
    """
    inside = inside.to(states.device)
    parts = []
    for start in range(0, len(states), ROWS):
        whole, chosen = [], []
        for column, logits in _tiles(model, states[start : start + ROWS]):
            whole.append(logits.logsumexp(-1))
            if (wanted := inside[column : column + logits.shape[1]]).any():
                chosen.append(logits[:, wanted].logsumexp(-1))
        of_all = torch.stack(whole).double().logsumexp(0)
        parts.append((torch.stack(chosen).double().logsumexp(0) - of_all).exp().cpu())
    return torch.cat(parts)


def _by_rows(model: PreTrainedModel, states: torch.Tensor, labels: torch.Tensor, moments: bool) -> torch.Tensor:
    """ln p of the labels and, with ``moments``, the means of ln p and (ln p)² under p: ``[1 or 3, token]`` fp64."""
    parts = [
        _predicted(model, states[start : start + ROWS], labels[start : start + ROWS], moments)
        for start in range(0, len(states), ROWS)
    ]
    return torch.cat(parts, dim=1)


def _predicted(model: PreTrainedModel, states: torch.Tensor, labels: torch.Tensor, moments: bool) -> torch.Tensor:
    label_logit = torch.empty(len(states), device=states.device)
    totals, means, squares = [], [], []
    for start, logits in _tiles(model, states):
        inside = (labels >= start) & (labels < start + logits.shape[1])
        label_logit[inside] = logits[inside, labels[inside] - start]
        log_p = logits.log_softmax(-1)  # among the tile's own tokens
        totals.append(logits[:, 0] - log_p[:, 0])
        if moments:
            p = log_p.exp()
            means.append(torch.linalg.vecdot(p, log_p))
            squares.append(torch.linalg.vecdot(p.mul_(log_p), log_p))
    tile = torch.stack(totals).double()
    whole = tile.logsumexp(0)
    found = [label_logit.double() - whole]
    if moments:
        # In the whole vocabulary a tile's ln p is `shift` more, and its share of the probability exp(shift).
        shift = tile - whole
        mean, square = torch.stack(means).double(), torch.stack(squares).double()
        found.append((shift.exp() * (mean + shift)).sum(0))
        found.append((shift.exp() * (square + 2 * shift * mean + shift**2)).sum(0))
    return torch.stack(found).cpu()


def _tiles(model: PreTrainedModel, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """First token id of each tile, and its logits ``[token, tile]`` fp32."""
    head = model.get_output_embeddings()
    bias, cap = getattr(head, "bias", None), getattr(model.config, "final_logit_softcapping", None)
    for start in range(0, len(head.weight), COLUMNS):
        columns = slice(start, start + COLUMNS)
        part = torch.nn.functional.linear(states, head.weight[columns], None if bias is None else bias[columns])
        logits = part.float()
        yield start, logits if cap is None else cap * torch.tanh(logits / cap)
