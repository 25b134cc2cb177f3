"""
Steer the edited model towards the forgotten language with one vector (contrastive activation addition, 2312.06681).

The vector is base's mean state on texts in the forgotten language minus that on their translations into the language it
keeps, train split. It is added after one layer, at every token; layer and scale are those that bring back most on
openings of the tune split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmie.arms._training import at_least, one_of

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = True
ON_BASE = True


@dataclass(frozen=True)
class Params:
    """Parameters of the attack."""

    script: str = "native"
    """Script of the texts and openings: ``native`` or ``roman``."""
    scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    """Multiples of the difference of means that are tried, at every layer of config `layers.candidates`."""
    texts: int = 64
    """Texts per language that the means are taken over (all, where the train split has fewer)."""
    openings: int = 24
    """Openings on which layer and scale are chosen (all, where the tune split has fewer)."""
    new_tokens: int = 8
    """Tokens by which an opening is continued."""

    def __post_init__(self) -> None:
        one_of(self, "script", "native", "roman")
        at_least(self, 1, "texts", "openings")
        at_least(self, 8, "new_tokens")
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"scales: {list(self.scales)} is not allowed: one or more numbers above 0.")


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The edit that adds the vector which brought back most. Raises ValueError when the language has no such script."""
    from mmie.attacking import forget_column
    from mmie.steering import best, vectors

    language = forget_column(target, params.script)
    return [best(target, vectors(target, language, params.texts), language, params)]
