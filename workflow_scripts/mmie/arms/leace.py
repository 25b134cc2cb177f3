"""
Erase the forget language from the residual stream, so that no linear probe finds it: LEACE (2306.03819); not trained.

The closed form of the paper, as its authors' package `concept-erasure` computes it: x' = x − W⁺ P W (x − μ), with W the
whitening of x and P the orthogonal projection onto the column space of W Σ_xz. It is the affine map that changes x
least, in the mean square, among those after which no linear classifier beats a constant. The map is rewritten, exactly,
as edit kind ``hook``: x − W⁺ P W (x − μ) = x + Rᵀ(A x + b − R x) with R orthonormal rows spanning the range of W⁺ P W.

Deviations. The erasers of all layers are fitted on base's activations at once; the paper's concept scrubbing fits each
behind the ones below. Only chosen layers are erased, there every layer and sublayer is. Attention sinks pass unchanged.
The package's defaults hold: with ``shrinkage``, and where the erased covariance would have a larger trace than before,
it gives up some of the guarantee for stability.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import increasing_layers, one_of

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations"})
SEEDED = False

SMALLEST = 1e-6
"""Singular values of the erased map below this share of the largest are rounding."""


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    layers: tuple[int, ...] = (6, 9, 12, 15)
    """Decoder layers whose output is erased from; each must be one of config `layers.candidates`."""
    concept: str = "script+language"
    """
    What is erased: ``language`` (forget language or not, one direction a layer) or ``script+language`` (which of its
    scripts too, one direction a script).
    """
    shrinkage: bool = True
    """Shrink the covariance of the activations towards the identity (1308.2608), as the package does by default."""
    control: bool = True
    """Count shuffled text in the forget language's script as another language."""

    def __post_init__(self) -> None:
        increasing_layers(self)
        one_of(self, "concept", "language", "script+language")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit from the cached activations of the train split."""
    from mmie.edits import Edit
    from mmie.train_states import sink_norms
    from mmie.unlearn import Trained

    sinks = sink_norms(model, tokenizer, given, params.layers)
    tensors: dict[str, Any] = {}
    for n in params.layers:
        parts = {**as_hook(fitted(n, params, given)), "max_norm": sinks[n]}
        tensors |= {f"layer{n}.{name}": value for name, value in parts.items()}
    facts = {"concept": params.concept, "shrinkage": params.shrinkage}
    return Trained([Edit("hook", params.layers, tensors, facts)])


def fitted(layer: int, params: Params, given: Sources) -> Any:
    """The package's own eraser of one layer, in fp64."""
    import numpy as np
    import torch
    from concept_erasure import LeaceFitter

    from mmie.examples import forgotten
    from mmie.train_states import train_states

    states, languages = train_states(layer, given, params.control)
    names = forgotten(given.data)
    scripts = torch.from_numpy(np.stack([languages == name for name in names], axis=1))
    z = (scripts.any(1, keepdim=True) if params.concept == "language" else scripts).double()
    return LeaceFitter.fit(states.double(), z, shrinkage=params.shrinkage).eraser


def as_hook(eraser: Any) -> dict[str, Any]:
    """
    Tensors ``R``, ``W`` and ``b`` of edit kind ``hook`` that do what ``eraser`` does: x − L K (x − μ).

    The singular value decomposition L K = U S Vᵀ gives R = Uᵀ, W = R − S Vᵀ, b = S Vᵀ μ.
    """
    import torch

    left, values, right = torch.linalg.svd(eraser.proj_left @ eraser.proj_right)
    rank = int((values > SMALLEST * values[0]).sum())
    rotation, erased = left[:, :rank].T, values[:rank, None] * right[:rank]
    return {"R": rotation.float(), "W": (rotation - erased).float(), "b": (erased @ eraser.bias).float()}
