"""
What a job asks a scheduler for: memory and time, from the size of the model, the work in the config, and the attempt.

The numbers were measured on the default experiment (268 M parameters, one CPU core) and rounded up: a job that asks for
too much waits longer in the queue, one that asks for too little is killed. Each further attempt asks for as much again.
On a laptop nothing reads them, and jobs run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

LIBRARIES_MB = 1500
"""Python, torch and transformers, once imported."""
CUDA_MB = 3000
"""What CUDA's libraries add to that, in the memory of the host."""
CPU_BYTES, GPU_BYTES, FETCH_BYTES = 14, 4, 6
"""
Memory of the host per parameter of the model. CPU: weights in fp32 (4) and the largest batches (10, measured). GPU: the
weights in 16 bits, twice while they are moved. Fetching: the weights in 16 bits, their copy, and a file being written.
"""
SAE_BYTES = 16
"""Per weight of a sparse autoencoder in training: weight, gradient, and Adam's two moments, in fp32."""
SAE_BATCH_BYTES = 24
"""Per token of its batch and latent: activations before and after the cut, and their gradients, in fp32."""
BUFFER_BYTES = 4
"""Per token of its shuffle buffer and dimension: 2 where activations are stored in bf16, fp32 from 8 bits."""

REPLICATED = ("cache_activations", "generate")
"""Stages that run config `resources.replicas` of the model side by side."""

SMALL = {"corpus": 1000, "canaries": 1000, "prompts": 1000, "power": 1000, "measure_lid": 1000, "score_lid": 1000,
         "probe": 2000, "select_layers": 4000, "metrics": 2000, "gate": 2000, "tune": 2000, "figures": 2000,
         "report": 2000, "audit": 2000, "comprehension_items": 1000, "judge": 1000}  # fmt: skip
"""MB of stages that do not run the model."""
ROW_BYTES, ROWS_PER_GROUP = 100, 180
"""
Of the table of metrics in the gate: bytes a row (73 measured), and rows a run per held-out group (171 measured), on a
quarter of which attacked models are measured.
"""
LARGE = {"fetch_model": (10, 1), "plant_canaries": (12, 20), "cache_activations": (4, 50), "train_sae": (4, 200),
         "select_features": (4, 50), "unlearn": (12, 20), "attack": (12, 20), "generate": (24, 20),
         "score_texts": (20, 50), "score_reference": (6, 50), "score_comprehension": (12, 20), "look_inside": (4, 20),
         "transfer_sae": (6, 50)}  # fmt: skip
"""
Of stages that do: minutes with the default model on a CPU core (four times the measured ones), and how many times
faster a GPU is. The second is cautious arithmetic: the steps of generation and training are too small to fill a GPU.
"""
SPARE_MINUTES = 10
"""Added to every stage: starting, imports, a slow disk."""
DEFAULT = {"parameters_million": 268, "d_model": 640, "d_sae": 1024, "steps": 300, "batch_size": 512, "groups": 280,
           "held_out": 200, "max_new_tokens": 16, "items": 60, "judged": 10}  # fmt: skip
"""What the measured experiment had."""
TEXTS_PER_GROUP = 11
"""Eight languages and three controls."""


def gpus(config: Mapping[str, Any]) -> int:
    """GPUs of a job that runs the model: none unless one is configured; on a CPU it would queue jobs for nothing."""
    return int(config["resources"]["gpus"]) if config["model"]["device"].startswith("cuda") else 0


def mem_mb(stage: str, config: Mapping[str, Any], attempt: int = 1) -> int:
    """Memory of the host, MB. Raises KeyError for a stage that is not listed here."""
    if stage in SMALL:
        table = ROW_BYTES * _metric_rows(config) // 10**6 if stage == "gate" else 0
        return math.ceil((SMALL[stage] + table) / 500) * 500 * attempt
    parameters = config["resources"]["parameters_million"]
    if stage == "fetch_model":
        needed = LIBRARIES_MB + FETCH_BYTES * parameters
    elif gpus(config):
        needed = LIBRARIES_MB + CUDA_MB + GPU_BYTES * parameters
    else:
        needed = LIBRARIES_MB + CPU_BYTES * parameters
    if stage in ("train_sae", "select_features"):
        sae = config["sae"]
        weights = 2 * sae["d_sae"] * config["resources"]["d_model"]
        buffer = BUFFER_BYTES * sae["buffer_tokens"] * config["resources"]["d_model"]
        needed += (SAE_BYTES * weights + SAE_BATCH_BYTES * sae["batch_size"] * sae["d_sae"] + buffer) // 10**6
    if stage in REPLICATED and (replicas := config["resources"]["replicas"]) > 1:
        needed = needed * replicas + LIBRARIES_MB  # and the process that gives out the work
    return math.ceil(needed / 500) * 500 * attempt


def runtime(stage: str, config: Mapping[str, Any], attempt: int = 1) -> int:
    """Minutes after which a scheduler may end the job. Raises KeyError for a stage that is not listed here."""
    minutes, speed = (5, 1) if stage in SMALL else LARGE[stage]
    work = max(1.0, _work(stage, config)) / (speed if gpus(config) else 1)
    return (SPARE_MINUTES + math.ceil(minutes * work)) * attempt


def _metric_rows(config: Mapping[str, Any]) -> int:
    """Rows of results/metrics.parquet, at most about as many."""
    sweeps = [(arm or {}).get("sweep", {}).values() for arm in config["arms"].values()]
    arms = sum(math.prod(map(len, swept)) for swept in sweeps)
    variants = 1 + len(config["attacks"]) / 4
    groups = config["data"]["splits"][config["evaluation"]["split"]]
    return round(arms * len(config["seeds"]) * variants * groups * ROWS_PER_GROUP)


def _work(stage: str, config: Mapping[str, Any]) -> float:
    """How many times the work of the measured experiment this is."""
    sae, splits = config["sae"], config["data"]["splits"]
    further = sum(source["count"] for source in config["data"]["texts"].values()) / TEXTS_PER_GROUP
    texts = (splits["train"] + splits["tune"] + further) / DEFAULT["groups"]
    held_out = splits[config["evaluation"]["split"]] / DEFAULT["held_out"]
    parameters = config["resources"]["parameters_million"] / DEFAULT["parameters_million"]
    latents = sae["d_sae"] / DEFAULT["d_sae"] * config["resources"]["d_model"] / DEFAULT["d_model"]
    steps = sae["steps"] / DEFAULT["steps"] * sae["batch_size"] / DEFAULT["batch_size"]
    tokens = config["generation"]["max_new_tokens"] / DEFAULT["max_new_tokens"]
    return {
        "corpus": texts,
        "cache_activations": texts * parameters,
        "select_layers": texts,
        "train_sae": steps * latents,
        "select_features": texts * latents,
        "generate": held_out * tokens * parameters,
        "score_lid": held_out,
        "score_texts": held_out * parameters,
        "probe": held_out,
        "plant_canaries": parameters,
        "unlearn": parameters,
        "attack": parameters,
        "score_reference": parameters,
        "score_comprehension": parameters * max(1.0, config["comprehension"]["items"] / DEFAULT["items"]),
        "look_inside": parameters,
        "transfer_sae": held_out * parameters,
        "judge": max(1.0, config["judge"]["prompts"] / DEFAULT["judged"]),
        "fetch_model": parameters,
    }.get(stage, 1.0)
