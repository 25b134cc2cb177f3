"""Finetune the edited model on benign texts in the language it keeps: the control of `relearn` (2406.13356)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmie.attacks._relearning import Relearning

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = True
ON_BASE = True


@dataclass(frozen=True)
class Params(Relearning):
    """Parameters of the attack; give it those of the `relearn` attack that it is compared with."""


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The adapter. Raises ValueError when the tune split has too few texts."""
    from mmie.attacking import relearned

    return relearned(target, params, target.data["retain"], seed)
