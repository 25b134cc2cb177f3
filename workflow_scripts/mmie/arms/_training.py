"""Settings shared by the arms that are trained with a forget and a retain loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Training:
    """How an arm is trained. Texts come from the train split; the neighbours are always among the texts to keep."""

    OBJECTIVES: ClassVar[tuple[str, ...]] = ("redirect", "graddiff", "npo", "simnpo", "rmu")

    objective: str = "redirect"
    """
    Forget loss: ``redirect`` (switch to the parallel English text), ``graddiff`` (bounded gradient ascent), ``npo``,
    ``simnpo`` or ``rmu`` (states of one layer become noise).
    """
    retain: str = "kl"
    """
    Retain loss: ``kl`` (stay at base's predictions), ``ce`` (predict the retained texts) or ``states`` (stay at base's
    states of layer ``state_layer``; with ``rmu`` it is the published method).
    """
    scripts: str = "both"
    """Scripts of the forget language that are trained on: ``both``, ``native`` or ``roman``; evaluated are all."""
    control: bool = True
    """
    Keep shuffled text in the forget language's script too: it spares languages of that script that are never
    trained on.
    """
    spelled: bool = False
    """
    Keep English, Punjabi and Bengali spelled in the forget language's script too, where the corpus has them so
    (`data/README.md`): a gate opens less on other languages of the script.
    """
    steps: int = 30
    """Optimizer steps."""
    lr: float = 1e-3
    """Learning rate of AdamW after warm-up."""
    warmup: int = 5
    """Steps over which the learning rate rises from 0."""
    schedule: str = "linear"
    """Learning rate after warm-up: ``constant``, or down to a tenth along a line (``linear``) or a ``cosine``."""
    patience: int = 0
    """
    Stop after as many evaluations in a row without a smaller loss on the tune split, and keep the weights with the
    smallest; 0 trains every step and evaluates nothing.
    """
    evaluate_every: int = 5
    """Steps between two evaluations on the tune split (with ``patience`` only)."""
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
    simnpo_beta: float = 4.5
    """Inverse temperature β of ``simnpo``."""
    simnpo_delta: float = 0.0
    """
    Nll per token δ beyond which ``simnpo`` pulls less than half, nats. Give it more than base's own: with the published
    0 and base at 6 nats a text starts with a pull of e⁻²⁷.
    """
    state_layer: int = 15
    """Decoder layer whose output ``rmu`` and ``states`` read; not below the arm's first."""
    rmu_scale: float = 1.0
    """Length of the noise of ``rmu``, as a multiple of the norm of base's states at that layer."""

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "forget_texts", "retain_texts", "label_tokens", "evaluate_every")
        at_least(self, 0, "warmup", "forget_weight", "retain_weight", "patience", "simnpo_delta", "state_layer")
        above(self, 0, "lr", "clip", "beta", "ceiling", "simnpo_beta", "rmu_scale")
        at_least(self, 8, "max_tokens")
        if not 0 <= self.canary_share <= 1:
            raise ValueError(f"canary_share: {self.canary_share} is not allowed: a number from 0 to 1.")
        one_of(self, "objective", *self.OBJECTIVES)
        one_of(self, "retain", "kl", "ce", "states")
        one_of(self, "scripts", "both", "native", "roman")
        one_of(self, "schedule", "linear", "constant", "cosine")
        if self.label_tokens >= self.max_tokens:
            raise ValueError(
                f"label_tokens: {self.label_tokens} leaves no room for an opening in max_tokens: {self.max_tokens}."
            )

    def reads_states(self) -> bool:
        """Whether a loss compares states of ``state_layer``."""
        return self.objective == "rmu" or self.retain == "states"


@dataclass(frozen=True)
class Adapters(Training):
    """Low-rank adapters, and how they are trained."""

    layers: tuple[int, ...] = (6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    """Decoder layers with adapters."""
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear modules with adapters."""
    rank: int = 8
    """Rank of an adapter; its output is scaled by alpha / rank = 2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "rank")
        increasing_layers(self)
        if not self.modules:
            raise ValueError("modules: [] is not allowed: one or more names of linear modules, such as q_proj.")


@dataclass(frozen=True)
class Gating(Training):
    """Gated low-rank rewriting, and how it is trained."""

    spelled: bool = True
    """As in `lora`. Without it, the gates open on Marathi, which is never trained on, more often."""
    lr: float = 2e-3
    """Learning rate of AdamW after warm-up."""
    layers: tuple[int, ...] = (9, 12, 15)
    """
    Decoder layers whose output is rewritten; each must be one of config `layers.candidates`, whose activations
    are cached.
    """
    rank: int = 8
    """Rank of the rewritten subspace, per layer."""
    hidden: int = 32
    """Hidden units of a gate."""
    gate_steps: int = 300
    """Steps of the gate's own training on cached activations, before the edit is trained."""
    gate_batch: int = 1024
    """Tokens in a batch of the gate's own training."""
    gate_lr: float = 2e-3
    """Learning rate of the gate's own training."""
    gate_weight: float = 1.0
    """Weight λ_g of the gate's binary cross-entropy while the edit is trained."""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "rank", "hidden", "gate_batch")
        at_least(self, 0, "gate_steps", "gate_weight")
        above(self, 0, "gate_lr")
        increasing_layers(self)


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
    """
    Raises ValueError when a tuple of layers is empty or not strictly increasing from 0 on, or when they are trained by
    states of a layer below them all.
    """
    layers = getattr(params, name)
    if not layers or layers[0] < 0 or list(layers) != sorted(set(layers)):
        raise ValueError(f"{name}: {list(layers)} is not allowed: one or more decoder layers from 0, increasing.")
    if isinstance(params, Training) and params.reads_states() and params.state_layer < layers[0]:
        raise ValueError(
            f"state_layer: {params.state_layer} lies below {layers[0]}, the first of `{name}`: nothing that is trained "
            "changes its states. Raise it."
        )
