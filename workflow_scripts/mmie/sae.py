"""Sparse autoencoders: trained with SAELens on the activation cache, saved as a folder that SAELens loads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmie import files, stage, tensors
from mmie.sparse_code import TENSORS, SparseCode

LOG_EVERY = 10
DEAD_WINDOW = 50
"""Steps without firing after which a latent counts as dead, and is trained on the residual instead."""
THRESHOLD_RATE = 0.03
"""Of SAELens' moving average of the activation threshold: its own 0.01 is still far from converged after 300 steps."""


@dataclass(frozen=True)
class Settings:
    """Config `sae`: a Matryoshka BatchTopK autoencoder (2503.17547, 2412.06410)."""

    d_sae: int
    k: float
    """Active latents per token, on average over a batch."""
    matryoshka_widths: list[int]
    """Each prefix of the latents must reconstruct on its own: rising, the last one is ``d_sae``."""
    steps: int
    batch_size: int
    """Tokens a step."""
    lr: float
    """Adam's; a tenth of it at the end."""
    seed: int

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Settings":
        """From a rule's settings, which hold more."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})

    def __post_init__(self) -> None:
        widths = self.matryoshka_widths
        if sorted(set(widths)) != widths or not widths or widths[0] < 1 or widths[-1] != self.d_sae:
            raise ValueError(
                f"config `sae.matryoshka_widths: {widths}` must rise and end in `sae.d_sae: {self.d_sae}`, "
                f"for example {[self.d_sae // 16, self.d_sae // 4, self.d_sae]}."
            )
        if not 0 < self.k < widths[0]:
            raise ValueError(f"config `sae.k: {self.k}` must lie between 0 and the first width, {widths[0]}.")


def rows_of_split(tokens: pd.DataFrame, split: str) -> torch.Tensor:
    """
    Rows ``[n]`` of the cache that belong to a split; ``tokens`` as from `mmie.cache.described`.

    Raises ValueError when there are none.
    """
    rows = torch.tensor(tokens.loc[tokens["split"] == split, "row"].to_numpy())
    if not len(rows):
        raise ValueError(f"the activation cache has no token of the {split} split: raise config `data.splits.{split}`.")
    return rows


def shuffled(states: torch.Tensor, rows: torch.Tensor, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches ``[batch_size, d_model]`` fp32 without end: epochs over ``rows``, each in a new seeded order."""
    draw = torch.Generator().manual_seed(seed)
    waiting = torch.empty(0, dtype=torch.long)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, rows[torch.randperm(len(rows), generator=draw)]])
        yield states[waiting[:batch_size]].float()
        waiting = waiting[batch_size:]


def metadata(model: str, layer: int) -> dict[str, Any]:
    """What SAELens keeps about where an autoencoder belongs, in its names."""
    return {"model_name": model, "hook_name": f"blocks.{layer}.hook_resid_post", "prepend_bos": True}


def train(
    states: torch.Tensor,
    rows: torch.Tensor,
    settings: Settings,
    about: dict[str, Any],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[SparseCode, dict[str, Any], pd.DataFrame]:
    """
    Train on ``states[rows]``, ``[token, d_model]``; same input, settings, device and dtype, same weights.

    ``about`` (see `metadata`) goes into the SAELens config. Weights are fp32; with ``dtype`` bf16 the products are not.

    Returns the inference form, its SAELens config, and one row per `LOG_EVERY` steps (`tables.SAE_TRAINING` without
    site and layer). Two choices matter: the decoder bias starts at the mean (the mean is most of a residual stream),
    and the input is scaled to the norm √d_model that the learning rate expects; both are folded into the weights.
    """
    # SAELens takes 7 s to import: only training pays for it.
    from sae_lens import MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig, SAETrainer
    from sae_lens.config import SAETrainerConfig

    d_model = states.shape[1]
    mean, norm = _mean_and_norm(states, rows)
    scale = d_model**0.5 / norm
    config = MatryoshkaBatchTopKTrainingSAEConfig(
        d_in=d_model,
        d_sae=settings.d_sae,
        k=settings.k,
        matryoshka_widths=list(settings.matryoshka_widths),
        decoder_init_norm=1.0,
        normalize_activations="expected_average_only_in",
        topk_threshold_lr=THRESHOLD_RATE,
        device="cpu",
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        sae = MatryoshkaBatchTopKTrainingSAE(config)
    sae.b_dec.data.copy_(mean * scale)
    sae.to(device=device)
    batches = shuffled(states, rows, settings.batch_size, settings.seed)
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=settings.steps * settings.batch_size,
            train_batch_size_samples=settings.batch_size,
            lr=settings.lr,
            lr_end=settings.lr / 10,
            lr_decay_steps=settings.steps * 3 // 20,
            dead_feature_window=DEAD_WINDOW,
            feature_sampling_window=settings.steps + 1,
            autocast=dtype == torch.bfloat16,
            device=device,
        ),
        sae=sae,
        data_provider=batches,
    )
    trainer.activation_scaler.scaling_factor = scale
    log: list[dict[str, float]] = []
    for step in stage.track(range(1, settings.steps + 1), settings.steps, "SAE training, steps"):
        out = trainer.step(next(batches))
        trainer.n_training_steps += 1
        if step % LOG_EVERY == 0 or step == settings.steps:
            log.append(_logged(step, out, int(trainer.dead_neurons.sum())))
    sae.fold_activation_norm_scaling_factor(scale)
    sae.to(device="cpu")
    parts = sae.state_dict()
    sae.process_state_dict_for_saving_inference(parts)
    sae.cfg.metadata = type(sae.cfg.metadata)(**{**sae.cfg.metadata.to_dict(), **about})
    code = SparseCode(**{name: parts[name].float().clone() for name in TENSORS})
    return code, sae.cfg.get_inference_sae_cfg_dict(), pd.DataFrame(log)


def save(
    trained: SparseCode, cfg: dict[str, Any], weights_path: str | Path, cfg_path: str | Path, **provenance: str
) -> None:
    """Write the two files that ``SAE.load_from_disk`` reads from their folder."""
    tensors.save({name: getattr(trained, name) for name in TENSORS}, weights_path, **provenance)
    files.write(json.dumps(cfg, indent=1, sort_keys=True) + "\n", cfg_path)


def _mean_and_norm(states: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    total, norm = torch.zeros(states.shape[1], dtype=torch.float64), 0.0
    for part in rows.split(8192):
        x = states[part].double()
        total += x.sum(0)
        norm += float(x.norm(dim=-1).sum())
    return (total / len(rows)).float(), norm / len(rows)


@torch.no_grad()
def _logged(step: int, out: Any, dead: int) -> dict[str, float]:
    x, reconstruction = out.sae_in.float(), out.sae_out.float()
    return {
        "step": step,
        "loss": float(out.loss),
        "explained_variance": 1 - float((x - reconstruction).square().sum() / (x - x.mean(0)).square().sum()),
        "l0": float((out.feature_acts > 0).sum(-1).float().mean()),
        "dead": dead,
    }
