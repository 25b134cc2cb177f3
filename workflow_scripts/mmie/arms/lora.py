"""Low-rank adapters on the linear modules of some layers (LoRA, 2106.09685), trained with PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mmie.arms._training import Adapters

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = True


@dataclass(frozen=True)
class Params(Adapters):
    """Parameters of the arm."""


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Train the adapters; the model is left as it came."""
    from mmie.adapters import trained
    from mmie.unlearn import batches_of, held_out, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
    run = partial(optimise, model, batches=batches, base=base, params=params, seed=seed, held=tune)
    return trained(model, params, seed, run)
