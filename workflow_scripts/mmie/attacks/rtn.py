"""Round the weights to 8 or 4 bits, as 2410.16454 does to unlearned models: plain rounding to nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = False
ON_BASE = True


@dataclass(frozen=True)
class Params:
    """Parameters of the attack."""

    bits: int = 4
    """Bits of a weight, 4 or 8: one step size per output channel, symmetric around 0."""
    merge_lora: bool = False
    """
    Merge LoRA edits into the weights before rounding, as in a model that is shipped merged: what 2410.16454 rounds. By
    default they act unrounded on top of rounded weights, as other edits do.
    """

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ValueError(f"bits: {self.bits} is not allowed: 4 or 8.")


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The edit that rounds; nothing is loaded or trained."""
    from mmie.edits import Edit

    return [Edit("quantise", (), {}, {"scheme": "rtn", "bits": params.bits, "merge_lora": params.merge_lora})]
