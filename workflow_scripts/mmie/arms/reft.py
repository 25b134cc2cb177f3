"""Low-rank rewriting of the residual stream after some layers (LoReFT, 2404.03592), trained with pyreft."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import Training, at_least, increasing_layers

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = True


@dataclass(frozen=True)
class Params(Training):
    """Parameters of the arm."""

    lr: float = 2e-3
    """Learning rate of AdamW after warm-up."""
    steps: int = 50
    """Optimizer steps."""
    retain_weight: float = 20.0
    """Weight of the retain loss. An ungated edit acts on every token: with the 10 of other arms it harms Bengali."""
    layers: tuple[int, ...] = (9, 12, 15)
    """Decoder layers whose output is rewritten."""
    rank: int = 8
    """Rank of the rewritten subspace, per layer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "rank")
        increasing_layers(self)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Train one intervention per layer; the model is left as it came."""
    import torch

    from mmie.edits import Edit
    from mmie.interventions import Loreft, frozen, intervening
    from mmie.unlearn import Trained, batches_of, held_out, layer_statistics, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
    seen = layer_statistics(model, batches[:2], params.layers)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        edits = {n: Loreft(params.rank, seen[n]).to(model.device) for n in params.layers}
    with intervening(model, edits):
        weights = [p for edit in edits.values() for p in edit.parameters()]
        history = optimise(model, weights, batches, base, params, seed, held=tune)
    return Trained([Edit("hook", params.layers, frozen(edits), {"rank": params.rank, "gated": False})], history)
