"""PEFT's low-rank adapters: put on a model, trained, and taken off again as an edit."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import PreTrainedModel

from mmie.arms._training import Adapters
from mmie.edits import Edit
from mmie.unlearn import Trained

Run = Callable[[list[torch.nn.Parameter]], list[dict[str, Any]]]
"""Trains the parameters it is given, and returns the history."""


def trained(model: PreTrainedModel, params: Adapters, seed: int, run: Run) -> Trained:
    """What ``run`` makes of fresh adapters as ``params`` describe them; the model is left as it came."""
    config = LoraConfig(
        r=params.rank,
        lora_alpha=2 * params.rank,
        target_modules=list(params.modules),
        layers_to_transform=list(params.layers),
        task_type="CAUSAL_LM",
    )
    found, history = fitted(model, config, seed, run)
    facts = {"r": params.rank, "lora_alpha": 2 * params.rank, "target_modules": sorted(params.modules)}
    return Trained([Edit("lora", params.layers, found, facts)], history)


def fitted(
    model: PreTrainedModel, config: LoraConfig, seed: int, run: Run
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """
    The weights of adapters (fp32, attached to ``model``) after ``run``, by their names in PEFT, and its history.

    Fresh adapters change nothing, since B = 0; the model is left as it came, whatever happens.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    try:
        weights = [p for p in adapted.parameters() if p.requires_grad]
        for weight in weights:
            weight.data = weight.data.float()
        history = run(weights)
        found = {name: value.detach().clone() for name, value in get_peft_model_state_dict(adapted).items()}
    finally:
        adapted.unload()
    return found, history
