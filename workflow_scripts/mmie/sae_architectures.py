"""SAELens' training classes, one per config `sae.architecture`, and the JumpReLU form that each is saved in."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

THRESHOLD_RATE = 0.03
"""Of SAELens' moving average of the activation threshold: its own 0.01 is still far from converged after 300 steps."""
JUMP_START, JUMP_WIDTH = 0.1, 0.5
"""
First threshold and width of the straight-through estimator of ``jumprelu``, for inputs of norm √d_model: SAELens' own,
0.01 and 0.05, are for thousands of steps, and in a few hundred no threshold gets anywhere.
"""
JUMP_WEIGHT = 0.1
"""Of the ``jumprelu`` penalty: after 300 steps on Gemma's layer 12, 1.5 k latents are active (2.4 k with 0.02)."""


@dataclass(frozen=True)
class Settings:
    """Config `sae`, as far as it is about training."""

    architecture: str
    """``matryoshka``, ``batch_topk``, ``topk`` or ``jumprelu``; see `untrained`."""
    d_sae: int
    k: int
    """Active latents per token, on average over a batch."""
    matryoshka_widths: list[int]
    """``matryoshka`` only. Each prefix of the latents must reconstruct on its own: rising, the last is ``d_sae``."""
    steps: int
    batch_size: int
    """Tokens a step."""
    lr: float
    """Adam's; a tenth of it at the end."""
    seed: int
    buffer_tokens: int = 1 << 18
    """Tokens in memory from which a batch is drawn, see `mmie.streaming.shuffled`."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Settings":
        """From a rule's settings, which hold more."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        widths = self.matryoshka_widths if self.architecture == "matryoshka" else [self.d_sae]
        if sorted(set(widths)) != widths or not widths or widths[0] < 1 or widths[-1] != self.d_sae:
            raise ValueError(
                f"config `sae.matryoshka_widths: {widths}` must rise and end in `sae.d_sae: {self.d_sae}`, "
                f"for example {[self.d_sae // 16, self.d_sae // 4, self.d_sae]}."
            )
        if not 0 < self.k < widths[0]:
            raise ValueError(f"config `sae.k: {self.k}` must lie between 0 and {widths[0]}, the (first) width.")


def untrained(settings: Settings, d_model: int) -> Any:
    """
    A fresh SAELens ``TrainingSAE``, initialised from the global generator.

    ``matryoshka`` (2503.17547) nests dictionaries and, like ``batch_topk`` (2412.06410), keeps k latents a token on
    average over a batch; ``topk`` (2406.04093) keeps k on every token; ``jumprelu`` (2407.14435) learns a threshold per
    latent under a quadratic penalty on the distance from k (Gemma Scope 2's).
    """
    import sae_lens as lens

    common = {
        "d_in": d_model,
        "d_sae": settings.d_sae,
        "decoder_init_norm": 1.0,
        "normalize_activations": "expected_average_only_in",
        "device": "cpu",
        "dtype": "float32",
    }
    match settings.architecture:
        case "matryoshka":
            widths = list(settings.matryoshka_widths)
            config = lens.MatryoshkaBatchTopKTrainingSAEConfig(
                k=settings.k, matryoshka_widths=widths, topk_threshold_lr=THRESHOLD_RATE, **common
            )
            return lens.MatryoshkaBatchTopKTrainingSAE(config)
        case "batch_topk":
            config = lens.BatchTopKTrainingSAEConfig(k=settings.k, topk_threshold_lr=THRESHOLD_RATE, **common)
            return lens.BatchTopKTrainingSAE(config)
        case "topk":
            return lens.TopKTrainingSAE(lens.TopKTrainingSAEConfig(k=settings.k, **common))
        case _:
            config = lens.JumpReLUTrainingSAEConfig(
                jumprelu_sparsity_loss_mode="quadratic",
                target_l0=settings.k,
                l0_coefficient=JUMP_WEIGHT,
                jumprelu_init_threshold=JUMP_START,
                jumprelu_bandwidth=JUMP_WIDTH,
                jumprelu_ste_to_input=True,
                **common,
            )
            return lens.JumpReLUTrainingSAE(config)


@torch.no_grad()
def inference_form(sae: Any, scale: float, sample: torch.Tensor) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """
    Weights and SAELens config of the trained autoencoder as a JumpReLU one on unscaled input, decoder rows of norm 1.

    ``scale`` is what its input was multiplied by. A ``topk`` autoencoder asks which k latents are largest, which no
    latent can answer by itself: it gets the threshold above which k are active on average over ``sample``
    ``[token, d_model]``, as SAELens does for ``batch_topk``.
    """
    from sae_lens import JumpReLUSAEConfig

    sae.fold_activation_norm_scaling_factor(scale)
    if sae.cfg.architecture() == "jumprelu":
        sae.fold_W_dec_norm()
    described = sae.cfg.get_inference_sae_cfg_dict()
    parts = sae.state_dict()
    sae.process_state_dict_for_saving_inference(parts)
    parts = {name: value.float().clone() for name, value in parts.items()}
    if "threshold" not in parts:
        pre = (sample.float() - parts["b_dec"]) @ parts["W_enc"] + parts["b_enc"]
        active = int(sae.cfg.k * len(sample))
        parts["threshold"] = pre.flatten().topk(active + 1).values[-1].clamp(min=0).repeat(pre.shape[1])
        allowed = {*JumpReLUSAEConfig.__dataclass_fields__, "metadata"}
        described = {name: value for name, value in described.items() if name in allowed} | {"architecture": "jumprelu"}
    return parts, described
