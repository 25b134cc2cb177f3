"""Settings shared by the arms that are trained with a forget and a retain loss."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """How an arm is trained. Texts come from the train split; the neighbours are always among the texts to keep."""

    objective: str = "redirect"
    """
    Forget loss: ``redirect`` (switch to the parallel English text), ``graddiff`` (bounded gradient ascent) or
    ``npo``.
    """
    retain: str = "kl"
    """Retain loss: ``kl`` (stay at base's predictions) or ``ce`` (predict the retained texts)."""
    control: bool = True
    """
    Keep shuffled text in the forget language's script too: it spares languages of that script that are never
    trained on.
    """
    steps: int = 30
    """Optimizer steps."""
    lr: float = 1e-3
    """Learning rate of AdamW after warm-up."""
    warmup: int = 5
    """Steps over which the learning rate rises from 0."""
    clip: float = 1.0
    """Gradient norm above which the gradient is scaled down."""
    forget_weight: float = 1.0
    """Weight of the forget loss."""
    retain_weight: float = 10.0
    """Weight of the retain loss."""
    forget_texts: int = 4
    """Texts to forget in a batch."""
    retain_texts: int = 8
    """Texts to keep in a batch."""
    canary_share: float = 0.25
    """Share of the texts to forget that are planted canaries, where there are any."""
    max_tokens: int = 32
    """Texts are cut at this length, in tokens."""
    label_tokens: int = 4
    """Tokens of English to predict after a Hindi opening (``redirect`` only)."""
    beta: float = 0.1
    """Inverse temperature β of ``npo``."""
    ceiling: float = 12.5
    """Nll of a token above which ``graddiff`` pulls no further, nats; 12.5 is ln of a vocabulary of 262144."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "forget_texts", "retain_texts", "label_tokens")
        at_least(self, 0, "warmup", "forget_weight", "retain_weight")
        above(self, 0, "lr", "clip", "beta", "ceiling")
        at_least(self, 8, "max_tokens")
        if not 0 <= self.canary_share <= 1:
            raise ValueError(f"canary_share: {self.canary_share} is not allowed: a number from 0 to 1.")
        one_of(self, "objective", "redirect", "graddiff", "npo")
        one_of(self, "retain", "kl", "ce")
        if self.label_tokens >= self.max_tokens:
            raise ValueError(
                f"label_tokens: {self.label_tokens} leaves no room for an opening in max_tokens: {self.max_tokens}."
            )


def at_least(params: object, bound: float, *names: str) -> None:
    """Raises ValueError naming the first parameter that is no finite number of at least ``bound``."""
    for name in names:
        if not bound <= getattr(params, name) < math.inf:
            raise ValueError(f"{name}: {getattr(params, name)} is not allowed: a number of at least {bound}.")


def above(params: object, bound: float, *names: str) -> None:
    """Raises ValueError naming the first parameter that is no finite number above ``bound``."""
    for name in names:
        if not bound < getattr(params, name) < math.inf:
            raise ValueError(f"{name}: {getattr(params, name)} is not allowed: a number above {bound}.")


def one_of(params: object, name: str, *allowed: str) -> None:
    """Raises ValueError when parameter ``name`` is none of ``allowed``."""
    if getattr(params, name) not in allowed:
        raise ValueError(f"{name}: {getattr(params, name)!r} is not allowed: one of {', '.join(allowed)}.")


def increasing_layers(params: object, name: str = "layers") -> None:
    """Raises ValueError when a tuple of layers is empty or not strictly increasing from 0 on."""
    layers = getattr(params, name)
    if not layers or layers[0] < 0 or list(layers) != sorted(set(layers)):
        raise ValueError(f"{name}: {list(layers)} is not allowed: one or more decoder layers from 0, increasing.")
