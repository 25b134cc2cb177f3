"""
Suppress the latents of the sparse autoencoders that fire on the forget language, where a gate finds that language.

No latent fires on one language alone: suppressed on every token, latents of Hindi cost English and Urdu as much as
Hindi. The gate is that of `grun` (2502.17823), trained by itself on cached activations; nothing else is trained.
"""

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
    """Parameters of the arm."""

    selector: str = "per_script"
    """Which selection of features.parquet is suppressed, one of those that config `features.selector` may name."""
    scale: float = 2.0
    """How much of a latent is taken away: 1 removes it, 2 turns it into its opposite."""
    gate_steps: int = 300
    """Steps in which a gate per site learns on cached activations where to act; 0: no gate, on every token."""

    def __post_init__(self) -> None:
        above(self, 0, "scale")
        at_least(self, 0, "gate_steps")
        one_of(self, "selector", *SELECTORS)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit from the selected latents of every site. Raises ValueError when no site has a selected latent."""
    from mmie.gates import gated
    from mmie.suppression import selected, suppression
    from mmie.unlearn import Trained

    edit = suppression(model, tokenizer, given, selected(given, params.selector), params.scale)
    return Trained([gated(edit, given, params.gate_steps, seed)])
