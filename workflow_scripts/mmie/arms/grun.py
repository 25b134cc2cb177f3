"""
Gated low-rank rewriting of the residual stream (GRUN, 2502.17823): a gate opens on the forget language.

h' = h + g(h) · Rᵀ(W h + b − R h), g = σ(MLP(h)), under L_unlearn + L_retain + λ_g · BCE(g; 1 on text to forget, 0 on
text to keep), section 4 of the paper. Deviations: the paper acts at the last prompt token, and a language needs every
token, prompted and generated; the gate reads the standardised state, and is trained by itself on cached activations
before it goes on learning with the edit; both classes weigh the same in its BCE; text to keep includes the neighbours
and controls in the forget language's script; what is kept is base's predictions (KL; `retain: ce` is the paper's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import Gating

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations"})
SEEDED = True


@dataclass(frozen=True)
class Params(Gating):
    """Parameters of the arm."""


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Train a gate per layer on cached activations, then gates and edits together; the model is left as it came."""
    import torch

    from mmie.edits import Edit
    from mmie.gates import gate_loss, warm_all
    from mmie.interventions import Grun, frozen, intervening
    from mmie.unlearn import Trained, batches_of, held_out, layer_statistics, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
    seen = layer_statistics(model, batches[:2], params.layers)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        edits = {n: Grun(params.rank, seen[n], params.hidden).to(model.device) for n in params.layers}
        warm_all(edits.items(), given, params, seed)
    with intervening(model, edits):
        weights = [p for edit in edits.values() for p in edit.parameters()]
        history = optimise(
            model,
            weights,
            batches,
            base,
            params,
            seed,
            lambda batch: gate_loss(edits.values(), batch),
            params.gate_weight,
            held=tune,
        )
    facts = {"rank": params.rank, "gated": True}
    return Trained([Edit("hook", params.layers, frozen(edits), facts)], history)
