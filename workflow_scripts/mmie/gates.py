"""
Gates that tell the forget language from the others, token by token: their training on cached activations, and their
loss.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mmie.examples import FORGET, NEITHER, RETAIN, Batch, forgotten
from mmie.interventions import Grun
from mmie.train_states import train_states
from mmie.unlearn import Sources


def labelled(
    layer: int, given: Sources, control: bool = True, scripts: str = "both"
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Cached base activations of the train split, ``[token, d_model]``, and 1 on the forget language (in ``scripts``), 0
    on what is `kept`.

    Raises ValueError when the layer is not cached.
    """
    states, languages = train_states(layer, given, control, scripts)
    return states, torch.from_numpy(np.isin(languages, forgotten(given.data, scripts))).float()


def warm(
    edit: Grun,
    layer: int,
    given: Sources,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    control: bool = True,
    scripts: str = "both",
) -> None:
    """
    Train the gate of ``edit`` alone, on base's activations: without it, the edit starts on every language at once.

    Both classes weigh the same, whatever their number of tokens.
    """
    if not steps:
        return
    states, labels = labelled(layer, given, control, scripts)
    device = edit.mean.device
    share = float(labels.mean())
    weight = torch.where(labels > 0, 0.5 / share, 0.5 / (1 - share))
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(edit.gate.parameters(), lr=lr, weight_decay=0.0)
    for _ in range(steps):
        rows = torch.randint(len(states), (batch,), generator=generator)
        x = (states[rows].float().to(device) - edit.mean) / edit.deviation
        log_odds = edit.gate(x)[:, 0]
        loss = binary_cross_entropy_with_logits(log_odds, labels[rows].to(device), weight[rows].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def gate_loss(edits: Mapping[int, Grun], batch: Batch) -> torch.Tensor:
    """
    Mean over layers of BCE(gate; 1 on text to forget, 0 on text to keep) in the last forward pass, both classes
    weighing the same.

    Text that was switched to counts as text to keep: the gate closes on it, and the model goes on undisturbed. First
    tokens and padding have no label.
    """
    side = batch.side[batch.side != NEITHER]
    counts = {value: max(1, int((side == value).sum())) for value in (FORGET, RETAIN)}
    weight = torch.where(side == FORGET, 0.5 / counts[FORGET], 0.5 / counts[RETAIN])
    losses = []
    for edit in edits.values():
        assert edit.log_odds is not None
        log_odds = edit.log_odds[..., 0][(batch.side != NEITHER).to(edit.log_odds.device)]
        target, scaled = (side == FORGET).float().to(log_odds.device), weight.to(log_odds.device)
        losses.append(binary_cross_entropy_with_logits(log_odds, target, scaled, reduction="sum"))
    return torch.stack(losses).mean()
