"""
GRUN (2502.17823) and suppressed latents, each behind its own gate, trained together.

After GRUN's h + g(h) · Rᵀ(W h + b − R h) on its layers comes, on the sites' layers, h − g'(h) · Σ_i s · z_i · d_i over
the selected latents. Both gates are warmed up on cached activations and go on learning with the edit; the latents and s
are fixed. No paper has the combination: it asks whether suppressing named latents adds to a learned shift.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import Gating, at_least, one_of
from mmie.selector_names import SELECTORS

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations", "sae"})
SEEDED = True


@dataclass(frozen=True)
class Params(Gating):
    """Parameters of the arm: those of `grun`, and which latents are suppressed."""

    selector: str = "per_script"
    """Which selection of features.parquet is suppressed, one of those that config `features.selector` may name."""
    scale: float = 1.0
    """How much of a latent is taken away where its gate is open: 1 removes it, 2 turns it into its opposite."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, "scale")
        one_of(self, "selector", *SELECTORS)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Warm the gates, then train gates and shift together; the model is left as it came."""
    import torch

    from mmie.edits import Edit
    from mmie.edits.hook import by_layer
    from mmie.gates import gate_loss, warm_all
    from mmie.interventions import Grun, Suppression, frozen, intervening
    from mmie.suppression import selected, suppression
    from mmie.unlearn import Trained, batches_of, held_out, layer_statistics, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
    taken = suppression(model, tokenizer, given, selected(given, params.selector), params.scale)
    seen = layer_statistics(model, batches[:2], sorted({*params.layers, *taken.layers}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shifts = {n: Grun(params.rank, seen[n], params.hidden).to(model.device) for n in params.layers}
        latents = {
            n: Suppression(parts, seen[n], params.hidden).to(model.device)
            for n, parts in by_layer(taken.tensors, model.device)
        }
        warm_all([*shifts.items(), *latents.items()], given, params, seed)
    gates = [*shifts.values(), *latents.values()]
    with intervening(model, shifts), intervening(model, latents):
        history = optimise(
            model,
            [p for edit in gates for p in edit.parameters()],
            batches,
            base,
            params,
            seed,
            lambda batch: gate_loss(gates, batch),
            params.gate_weight,
            held=tune,
        )
    facts = {"rank": params.rank, "gated": True}
    edits = [
        Edit("hook", params.layers, frozen(shifts), facts),
        Edit("sae_gate", taken.layers, frozen(latents), {**taken.facts, "gated": True}),
    ]
    return Trained(edits, history)
