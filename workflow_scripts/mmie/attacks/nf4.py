"""Quantise the weights to 4 bits with bitsandbytes (NormalFloat, 2305.14314); runs on a CPU too."""

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

    merge_lora: bool = False
    """Merge LoRA edits into the weights before, as in a model that is shipped merged."""


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The edit that quantises; nothing is loaded or trained."""
    from mmie.edits import Edit

    return [Edit("quantise", (), {}, {"scheme": "nf4", "bits": 4, "merge_lora": params.merge_lora})]
