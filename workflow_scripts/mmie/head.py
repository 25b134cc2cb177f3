"""
The head over a large vocabulary, tile by tile: what the model predicts at each position, and how sure it is.

A tile is the logits of some positions over part of the vocabulary, and a strip some rows of a tile. A strip stays in a
CPU's cache through all steps of a softmax, where whole rows of 262144 logits would go through memory at every step.
"""

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

ROWS = 512
"""Positions of a tile: bf16 products of fewer are slower, as the weights are read again for each."""
COLUMNS = 8192
"""Vocabulary of a tile."""
STRIP = 16
"""Positions of a strip on a CPU: half a megabyte in fp32. A GPU takes a tile at once."""
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


@torch.no_grad()
def most_likely(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """
    The token of the largest logit, ``[token]``, from the last hidden states ``[token, d_model]``; the first of equals.

    Raises ValueError where a logit is no number: such a model says token 0 for ever, which would pass for forgetting.
    """
    best = states.new_full((len(states),), -torch.inf)
    token = torch.zeros(len(states), dtype=torch.long, device=states.device)
    for start, part in _tiles(model, states.contiguous()):
        largest = part.max(dim=-1)  # four times faster than argmax in bf16 on a CPU
        token = torch.where(largest.values > best, start + largest.indices, token)
        best = torch.maximum(best, largest.values)
    if not best.isfinite().all():
        raise ValueError(
            "the model's logits are not finite: its weights or an edit have overflowed. Train this arm again."
        )
    return token


def logits(model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
    """The logits of the whole vocabulary, ``[token, vocabulary]`` fp32: for a few positions."""
    return _capped(model, torch.cat([part for _, part in _tiles(model, states.contiguous())], dim=-1).float())


def mass(model: PreTrainedModel, states: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """
    Probability of all tokens ``inside`` (``[vocabulary]`` bool) together, ``[row]`` fp64, from the last hidden states
    ``[row, d_model]``.
    """
    inside = inside.to(states.device)
    parts = []
    for start in range(0, len(states), ROWS):
        whole, chosen = [], []
        for column, part in _tiles(model, states[start : start + ROWS]):
            logits = _capped(model, part.float())
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
    rows = STRIP if states.device.type == "cpu" else ROWS
    for start, logits in _tiles(model, states):
        inside = (labels >= start) & (labels < start + logits.shape[1])
        label_logit[inside] = logits[inside, labels[inside] - start].float()
        found = [_strip(model, strip, moments) for strip in logits.split(rows)]
        total, *rest = (torch.cat(column) for column in zip(*found, strict=True))
        totals.append(total)
        if moments:
            means.append(rest[0])
            squares.append(rest[1])
    tile = torch.stack(totals)
    whole = tile.logsumexp(0)
    parts = [_capped(model, label_logit).double() - whole]
    if moments:
        # In the whole vocabulary a tile's ln p is `shift` more, and its share of the probability exp(shift).
        shift = tile - whole
        mean, square = torch.stack(means), torch.stack(squares)
        parts.append((shift.exp() * (mean + shift)).sum(0))
        parts.append((shift.exp() * (square + 2 * shift * mean + shift**2)).sum(0))
    return torch.stack(parts).cpu()


def _strip(model: PreTrainedModel, logits: torch.Tensor, moments: bool) -> list[torch.Tensor]:
    """Of the logits ``[token, tile]``: logsumexp and, with ``moments``, the means of ln p and (ln p)² under p."""
    # A copy, worked on in place: each buffer more leaves less of the cache to the others.
    logits = _capped(model, logits.to(torch.float32, copy=True))
    largest = logits.amax(-1)
    logits.sub_(largest[:, None])
    p = logits.exp() if moments else logits.exp_()
    total = p.sum(-1).double().log()
    whole = largest.double() + total
    if not moments:
        return [whole]
    # ln p is the logit less `total`; p is divided by its sum once it has been summed over.
    scale = total.neg().exp()
    weighted = p.mul_(logits)
    mean = weighted.sum(-1).double() * scale
    square = torch.linalg.vecdot(weighted, logits).double() * scale
    return [whole, mean - total, square - 2 * total * mean + total**2]


def _tiles(model: PreTrainedModel, states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """First token id of each tile, and its logits ``[token, tile]``, not capped, where ``states`` are."""
    head = model.get_output_embeddings()
    home, states = states.device, states.to(head.weight.device)
    bias = getattr(head, "bias", None)
    for start in range(0, len(head.weight), COLUMNS):
        columns = slice(start, start + COLUMNS)
        part = torch.nn.functional.linear(states, head.weight[columns], None if bias is None else bias[columns])
        yield start, part.to(home)


def _capped(model: PreTrainedModel, logits: torch.Tensor) -> torch.Tensor:
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)
