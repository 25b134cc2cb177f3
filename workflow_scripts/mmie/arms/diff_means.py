"""
Steer along one vector per layer, the difference of the forget language's and the kept languages' means; not trained.

Difference in means (2310.06824), v = mean(h | forget) − mean(h | kept), used as in Contrastive Activation Addition
(2312.06681) or as in directional ablation (2406.11717), at every token:

- ``add``: h' = h − α v
- ``ablate``: h' = h − α · v̂ v̂ᵀ (h − mean(h | kept)), v̂ = v / ‖v‖

Deviations. The mean is over all tokens of texts, not over the last token of paired prompts. Every language counts the
same, whatever its number of tokens, and the kept ones are the retain language, the neighbours and the control.
Ablation goes to the kept mean instead of to 0: the residual stream's mean is nearly all of its norm, and its component
along v̂ is no part of the concept. Attention sinks pass unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmie.arms._training import above, increasing_layers, one_of

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset({"activations"})
SEEDED = False


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    layers: tuple[int, ...] = (12,)
    """Decoder layers whose output is steered; each must be one of config `layers.candidates`."""
    mode: str = "ablate"
    """``ablate`` (the component along the vector becomes that of the kept mean) or ``add`` (minus the vector)."""
    alpha: float = 1.0
    """Strength: 1 takes the whole difference away."""
    control: bool = True
    """Count shuffled text in the forget language's script among the kept languages."""

    def __post_init__(self) -> None:
        increasing_layers(self)
        one_of(self, "mode", "ablate", "add")
        above(self, 0, "alpha")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit from the cached activations of the train split."""
    import torch

    from mmie.edits import Edit
    from mmie.examples import forgotten, kept
    from mmie.train_states import sink_norms, train_states
    from mmie.unlearn import Trained

    sinks = sink_norms(model, tokenizer, given, params.layers)
    tensors: dict[str, torch.Tensor] = {}
    for n in params.layers:
        states, languages = train_states(n, given, params.control)
        centre = mean_over_languages(states, languages, kept(given.data, params.control))
        vector = mean_over_languages(states, languages, forgotten(given.data)) - centre
        unit = torch.nn.functional.normalize(vector, dim=0)[None]
        # Edit kind `hook` computes h + Rᵀ(W h + b − R h).
        if params.mode == "add":
            down, bias = unit, -params.alpha * vector.norm()[None]
        else:
            down, bias = (1 - params.alpha) * unit, params.alpha * (unit @ centre)
        parts = {"R": unit.float(), "W": down.float(), "b": bias.float(), "max_norm": sinks[n]}
        tensors |= {f"layer{n}.{name}": value for name, value in parts.items()}
    facts = {"mode": params.mode, "alpha": params.alpha}
    return Trained([Edit("hook", params.layers, tensors, facts)])


def mean_over_languages(states: Any, languages: Any, names: list[str]) -> Any:
    """Mean of the languages' means, ``[d_model]`` fp64, from ``[token, d_model]`` and each token's language."""
    import torch

    return torch.stack([states[torch.from_numpy(languages == name)].double().mean(0) for name in names]).mean(0)
