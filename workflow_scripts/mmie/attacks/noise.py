"""
Add Gaussian noise to the residual stream at the edited layers (activation perturbation, after ActPert, 2505.23270).

ActPert perturbs the embeddings of chosen words and steers with what that changes; here the states themselves are
perturbed, of every token, since a language has no chosen words. Noise is fixed by seed and token, not drawn anew at
every position: edit kind ``noise`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmie.arms._training import above

if TYPE_CHECKING:
    from mmie.attacking import Target
    from mmie.edits import Edit

TUNES = False
ON_BASE = True
PROBED = 24
"""Training texts on which the norm of attention sinks is measured."""


@dataclass(frozen=True)
class Params:
    """Parameters of the attack."""

    scale: float = 0.02
    """Length of the noise, as a share of the norm of the state it is added to."""

    def __post_init__(self) -> None:
        above(self, 0, "scale")


def attack(target: Target, params: Params, seed: int) -> list[Edit]:
    """The edit that adds the noise, at the layers that the edits act on."""
    from mmie.attacking import sink_norms, train_texts
    from mmie.edits import Edit

    model, tokenizer = target.load()
    texts = train_texts(target, target.data["retain"], PROBED)
    layers = target.edited_layers()
    limits = {str(n): limit for n, limit in sink_norms(model, tokenizer, texts, layers).items()}
    return [Edit("noise", layers, {}, {"scale": params.scale, "seed": seed, "max_norm": limits})]
