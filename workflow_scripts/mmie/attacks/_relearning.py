"""Settings shared by the attacks that train on top of the edited model."""

from __future__ import annotations

from dataclasses import dataclass

from mmie.arms._training import above, at_least


@dataclass(frozen=True)
class Relearning:
    """How a fresh adapter is trained on top of the edited model, whose edits are frozen."""

    texts: int = 10
    """Texts to learn, drawn from the tune split: neither trained on nor tested."""
    steps: int = 20
    """Optimizer steps."""
    lr: float = 3e-4
    """Learning rate of AdamW after warm-up."""
    rank: int = 8
    """Rank of the adapters, which are on every linear module of every layer."""
    batch: int = 8
    """Texts in a batch, an even number."""
    max_tokens: int = 32
    """Texts are cut at this length, in tokens."""

    def __post_init__(self) -> None:
        at_least(self, 1, "texts", "steps", "rank")
        at_least(self, 8, "max_tokens")
        above(self, 0, "lr")
        if self.batch < 2 or self.batch % 2:
            raise ValueError(f"batch: {self.batch} is not allowed: an even number of at least 2.")
