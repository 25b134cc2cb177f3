"""Suppress the latents of the sparse autoencoders that fire on the forget language; nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import above, one_of
from mmie.selector_names import SELECTORS

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"sae"})
SEEDED = False


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    selector: str = "per_script"
    """Which selection of features.parquet is suppressed, one of those that config `features.selector` may name."""
    scale: float = 1.0
    """How much of a latent is taken away: 1 removes it, 2 turns it into its opposite."""

    def __post_init__(self) -> None:
        above(self, 0, "scale")
        one_of(self, "selector", *SELECTORS)


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit from the selected latents of every site. Raises ValueError when no site has a selected latent."""
    from mmie.suppression import selected, suppression
    from mmie.unlearn import Trained

    return Trained([suppression(model, tokenizer, given, selected(given, params.selector), params.scale)])
