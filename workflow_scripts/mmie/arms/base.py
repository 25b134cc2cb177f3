"""The untouched model: what every other arm is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = False


@dataclass(frozen=True)
class Params:
    """The arm has no parameters."""


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """No edits."""
    from mmie.unlearn import Trained

    return Trained([])
