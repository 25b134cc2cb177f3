"""
Gates that tell the forget language from the others, token by token: their training on cached activations, and their
loss.
"""

from collections.abc import Iterable

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from mmie.arms._training import Gating
from mmie.edits import Edit
from mmie.edits.hook import by_layer
from mmie.examples import FORGET, NEITHER, RETAIN, Batch, forgotten
from mmie.interventions import Gated, Suppression, frozen
from mmie.train_states import train_states
from mmie.unlearn import Sources, Statistics

HIDDEN, BATCH, RATE = 32, 1024, 2e-3
"""A gate that is trained by itself: hidden units, tokens a step and learning rate of AdamW."""


def gated(edit: Edit, given: Sources, steps: int, seed: int) -> Edit:
    """
    An edit of kind ``sae_gate`` behind gates trained on cached activations, one per layer; with 0 ``steps`` as it is.

    Raises ValueError when one of its layers is not cached.
    """
    if not steps:
        return edit
    found: dict[int, Suppression] = {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for n, parts in by_layer(edit.tensors, torch.device("cpu")):
            states = labelled(n, given)[0].float()
            seen = Statistics(states.mean(0), states.std(0).clamp(min=1e-6), float(parts["max_norm"]))
            found[n] = Suppression(parts, seen, HIDDEN)
            warm(found[n], n, given, steps, BATCH, RATE, seed)
    return Edit(edit.kind, edit.layers, frozen(found), {**edit.facts, "gated": True})


def labelled(
    layer: int, given: Sources, control: bool = True, scripts: str = "both", spelled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Cached base activations of the train split, ``[token, d_model]``, and 1 on the forget language (in ``scripts``), 0
    on what is `kept`.

    Raises ValueError when the layer is not cached.
    """
    states, languages = train_states(layer, given, control, scripts, spelled)
    return states, torch.from_numpy(np.isin(languages, forgotten(given.data, scripts))).float()


def warm_all(edits: Iterable[tuple[int, Gated]], given: Sources, params: Gating, seed: int) -> None:
    """`warm` for each (layer, edit), as ``params`` say."""
    for n, edit in edits:
        steps, batch, lr = params.gate_steps, params.gate_batch, params.gate_lr
        warm(edit, n, given, steps, batch, lr, seed, params.control, params.scripts, params.spelled)


def warm(
    edit: Gated,
    layer: int,
    given: Sources,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    control: bool = True,
    scripts: str = "both",
    spelled: bool = True,
) -> None:
    """
    Train the gate of ``edit`` alone, on base's activations: without it, the edit starts on every language at once.

    Both classes weigh the same, whatever their number of tokens.
    """
    if not steps:
        return
    states, labels = labelled(layer, given, control, scripts, spelled)
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


def gate_loss(edits: Iterable[Gated], batch: Batch) -> torch.Tensor:
    """
    Mean over edits of BCE(gate; 1 on text to forget, 0 on text to keep) in the last forward pass, both classes
    weighing the same.

    Text that was switched to counts as text to keep: the gate closes on it, and the model goes on undisturbed. First
    tokens and padding have no label.
    """
    side = batch.side[batch.side != NEITHER]
    counts = {value: max(1, int((side == value).sum())) for value in (FORGET, RETAIN)}
    weight = torch.where(side == FORGET, 0.5 / counts[FORGET], 0.5 / counts[RETAIN])
    losses = []
    for edit in edits:
        assert edit.log_odds is not None
        log_odds = edit.log_odds[..., 0][(batch.side != NEITHER).to(edit.log_odds.device)]
        target, scaled = (side == FORGET).float().to(log_odds.device), weight.to(log_odds.device)
        losses.append(binary_cross_entropy_with_logits(log_odds, target, scaled, reduction="sum"))
    return torch.stack(losses).mean()
