"""Weaken the edit to a fraction of its strength, as merging the edited model with base does (2212.04089)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = False
ON_BASE = False


@dataclass(frozen=True)
class Params:
    """Parameters of the attack."""

    factor: float = 0.5
    """Strength that is left of the edit: 1 would be all of it, 0 would be base."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ValueError(f"factor: {self.factor} is not allowed: above 0, below 1.")


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The edit that weakens those before it. Raises ValueError when none of them can be weakened."""
    from mmie.edits import HOOKS, Edit

    if not any(edit.kind in HOOKS for edit in target.edits):
        kinds = ", ".join(edit.kind for edit in target.edits) or "none"
        raise ValueError(
            f"attack merge: the arm has no edit that a factor could weaken (its edits: {kinds}). Leave it out of the "
            "attack: list the others in `arms` of the attack in config `attacks`."
        )
    return [Edit("scale", (), {}, {"factor": params.factor})]
