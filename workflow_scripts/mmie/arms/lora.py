"""Low-rank adapters on the linear modules of some layers (LoRA, 2106.09685), trained with PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import Training, at_least, increasing_layers

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = True


@dataclass(frozen=True)
class Params(Training):
    """Parameters of the arm."""

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


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """Train the adapters; the model is left as it came."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    from mmie.edits import Edit
    from mmie.unlearn import Trained, batches_of, held_out, optimise, reference_states

    batches = batches_of(given, tokenizer, params, seed)
    base = reference_states(model, batches, params)
    tune = held_out(model, given, tokenizer, params, seed)
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
        history = optimise(model, weights, batches, base, params, seed, held=tune)
        found = {name: value.detach().clone() for name, value in get_peft_model_state_dict(adapted).items()}
    finally:
        adapted.unload()
    facts = {"r": params.rank, "lora_alpha": 2 * params.rank, "target_modules": sorted(params.modules)}
    return Trained([Edit("lora", params.layers, found, facts)], history)
