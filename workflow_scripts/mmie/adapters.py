"""PEFT's low-rank adapters: put on a model, trained, and taken off again as an edit."""

from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from transformers import PreTrainedModel

from mmie.arms._training import Adapters
from mmie.edits import Edit
from mmie.unlearn import Trained


def trained(
    model: PreTrainedModel,
    params: Adapters,
    seed: int,
    run: Callable[[list[torch.nn.Parameter]], list[dict[str, Any]]],
) -> Trained:
    """
    What ``run`` makes of fresh adapters (fp32 parameters, attached to ``model``), and the history that it returns.

    Fresh adapters change nothing, since B = 0; the model is left as it came.
    """
    config = LoraConfig(
        r=params.rank,
        lora_alpha=2 * params.rank,
        target_modules=list(params.modules),
        layers_to_transform=list(params.layers),
        task_type="CAUSAL_LM",
    )
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
    facts = {"r": params.rank, "lora_alpha": 2 * params.rank, "target_modules": sorted(params.modules)}
    return Trained([Edit("lora", params.layers, found, facts)], history)
