"""
Edit kind ``scale``: the edits before it act at a fraction of their strength, as if merged with the base model.

Facts: ``factor`` s. What a hook makes of a module's output y becomes y + s · (hook(y) − y). For ``lora``, ``hook``
without a gate, and ``sae_gate``, taken alone, that is the edit with its weights scaled by s.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def strengths(factors: Sequence[float]) -> list[float]:
    """Strength of each edit: the product of the factors that come after it (an edit that is no scale has factor 1)."""
    found, product = [], 1.0
    for factor in reversed(factors):
        found.append(product)
        product *= factor
    return found[::-1]


def weakened(run: Callable[..., Any], strength: float) -> Callable[..., Any]:
    """
    The forward hook ``run`` at ``strength``: fp32, and cast back. At strength 1 it is ``run`` itself.

    The last of a hook's arguments is the module's output, whether it takes keyword arguments or not.
    """
    if strength == 1:
        return run

    def between(module: torch.nn.Module, *given: Any) -> Any:
        changed, out = run(module, *given), given[-1]
        if changed is None:
            return None
        if torch.is_tensor(out):
            return _between(out, changed, strength)
        return (_between(out[0], changed[0], strength), *out[1:])

    return between


def _between(before: torch.Tensor, after: torch.Tensor, strength: float) -> torch.Tensor:
    start = before.float()
    return (start + strength * (after.float() - start)).to(before.dtype)
