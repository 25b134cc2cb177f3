"""Suppress as many random latents as `sae_gate` does selected ones: the control of every claim about latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import above, at_least, one_of
from mmie.selector_names import SELECTORS

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations", "sae"})
SEEDED = True


@dataclass(frozen=True)
class Params:
    """Parameters of the arm; give it those of the `sae_gate` arm that it is compared with."""

    selector: str = "per_script"
    """
    Selection of features.parquet whose number of latents is matched, and which is left out: one of those that config
    `features.selector` may name.
    """
    scale: float = 2.0
    """How much of a latent is taken away: 1 removes it, 2 turns it into its opposite."""
    gate_steps: int = 300
    """Steps in which a gate per site learns on cached activations where to act; 0: no gate, on every token."""

    def __post_init__(self) -> None:
        above(self, 0, "scale")
        at_least(self, 0, "gate_steps")
        one_of(self, "selector", *SELECTORS)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit from latents drawn with ``seed`` among those that are alive and not selected, per site."""
    from mmie.gates import gated
    from mmie.suppression import drawn, suppression
    from mmie.unlearn import Trained

    edit = suppression(model, tokenizer, given, drawn(given, params.selector, seed), params.scale)
    return Trained([gated(edit, given, params.gate_steps, seed)])
