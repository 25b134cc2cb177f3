"""Teach the edited model a few held-out texts of the forgotten language again (relearning, 2406.13356)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmie.arms._training import one_of
from mmie.attacks._relearning import Relearning

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = True
ON_BASE = True


@dataclass(frozen=True)
class Params(Relearning):
    """Parameters of the attack."""

    script: str = "native"
    """Script of the texts: ``native`` or ``roman``. The other one shows whether the language came back, or a script."""

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, "script", "native", "roman")


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The adapter. Raises ValueError when the language has no such script, or the tune split too few texts."""
    from mmie.attacking import forget_column, relearned

    return relearned(target, params, forget_column(target, params.script), seed)
