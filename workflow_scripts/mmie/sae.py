"""Sparse autoencoders: trained with SAELens on the activation cache, saved as a folder that SAELens loads."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mmie import files, stage, tensors
from mmie.cached_texts import Rows
from mmie.sae_architectures import Settings, inference_form, untrained
from mmie.sparse_code import TENSORS, SparseCode
from mmie.storage import States
from mmie.streaming import shuffled, split

LOG_EVERY = 10
DEAD_WINDOW = 50
"""Steps without firing after which a latent counts as dead, and is trained on the residual instead."""
SAMPLE = 4096
"""Training tokens on which the threshold of a ``topk`` autoencoder is measured."""


def metadata(model: str, layer: int) -> dict[str, Any]:
    """What SAELens keeps about where an autoencoder belongs, in its names."""
    return {"model_name": model, "hook_name": f"blocks.{layer}.hook_resid_post", "prepend_bos": True}


def train(
    states: States,
    rows: Rows | torch.Tensor,
    settings: Settings,
    about: dict[str, Any],
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[SparseCode, dict[str, Any], pd.DataFrame]:
    """
    Train on ``states[rows]``, ``[token, d_model]``; same input, settings, device and dtype, same weights.

    At most config `sae.buffer_tokens` of them are in memory, see `mmie.streaming.shuffled`.
    ``about`` (see `metadata`) goes into the SAELens config. Weights are fp32; with ``dtype`` bf16 the products are not.

    Returns the inference form, its SAELens config, and one row per `LOG_EVERY` steps (`tables.SAE_TRAINING` without
    site and layer). Two choices matter: the decoder bias starts at the mean (the mean is most of a residual stream),
    and the input is scaled to the norm √d_model that the learning rate expects; both are folded into the weights.
    """
    # SAELens takes 7 s to import: only training pays for it.
    from sae_lens import SAETrainer
    from sae_lens.config import SAETrainerConfig

    d_model = states.shape[1]
    mean, norm = _mean_and_norm(states, rows)
    scale = d_model**0.5 / norm
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        sae = untrained(settings, d_model)
    sae.b_dec.data.copy_(mean * scale)
    sae.to(device=device)
    batches = shuffled(states, rows, settings.batch_size, settings.seed, settings.buffer_tokens)
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
    sae.to(device="cpu")
    sae.cfg.metadata = type(sae.cfg.metadata)(**{**sae.cfg.metadata.to_dict(), **about})
    sample = rows[torch.arange(0, len(rows), max(1, len(rows) // SAMPLE))]
    parts, described = inference_form(sae, scale, states[sample])
    weights = {name: parts[name] for name in TENSORS}
    return SparseCode(**weights, subtracts_bias=described["apply_b_dec_to_input"]), described, pd.DataFrame(log)


def save(
    trained: SparseCode, cfg: dict[str, Any], weights_path: str | Path, cfg_path: str | Path, **provenance: str
) -> None:
    """Write the two files that ``SAE.load_from_disk`` reads from their folder."""
    tensors.save({name: getattr(trained, name) for name in TENSORS}, weights_path, **provenance)
    files.write(json.dumps(cfg, indent=1, sort_keys=True) + "\n", cfg_path)


def _mean_and_norm(states: States, rows: Rows | torch.Tensor) -> tuple[torch.Tensor, float]:
    total, norm = torch.zeros(states.shape[1], dtype=torch.float64), 0.0
    for part in split(rows, 8192):
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
