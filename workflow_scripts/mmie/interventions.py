"""
Interventions on the residual stream while they are trained: pyreft's LoReFT, and its gated form, GRUN.

Once trained they are frozen into the plain tensors of edit kind ``hook``; inference needs none of this.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch
from pyreft.interventions import LoreftIntervention
from transformers import PreTrainedModel

from mmie.edits.hook import layer_of, on_output
from mmie.unlearn import Statistics


class Loreft(LoreftIntervention):
    """
    h + Rᵀ(W h + b − R h) (LoReFT, 2404.03592, equation 2), which starts as the identity.

    Trained is the difference W − R, as a map of the standardised state x = (h − mean) / deviation, in units of the
    deviations' mean square: W h + b − R h = c · (V x + √d · v), with V and v (pyreft's ``learned_source``) 0 at the
    start. It is the same function. But one dimension of h holds most of its energy and its mean is nearly all of its
    norm, so that W itself would learn a shift of every token in every language, and learn it first; and a random W, as
    pyreft starts, raises the nll from 3 to 22.
    """

    # pyreft's own leave out what a subclass adds.
    state_dict = torch.nn.Module.state_dict
    load_state_dict = torch.nn.Module.load_state_dict

    def __init__(self, rank: int, seen: Statistics) -> None:
        d_model = len(seen.mean)
        super().__init__(embed_dim=d_model, low_rank_dimension=rank, dtype=torch.float32)
        self.max_norm = seen.max_norm
        self.unit = float(seen.deviation.square().mean().sqrt())
        self.register_buffer("mean", seen.mean.float())
        self.register_buffer("deviation", seen.deviation.float())
        torch.nn.init.zeros_(self.learned_source.weight)
        torch.nn.init.zeros_(self.learned_source.bias)

    def forward(self, base: torch.Tensor, source: Any = None, subspaces: Any = None) -> torch.Tensor:
        """The rewritten hidden states, fp32 ``[batch, token, d_model]``; attention sinks pass unchanged."""
        delta = self.delta((base - self.mean) / self.deviation)
        return torch.where(base.norm(dim=-1, keepdim=True) > self.max_norm, base, base + delta)

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """What is added, from standardised states."""
        rotation = self.rotate_layer.weight  # once: every access works the parametrisation out again
        bias = self.learned_source.bias * len(self.mean) ** 0.5
        return self.unit * torch.nn.functional.linear(x, self.learned_source.weight, bias) @ rotation.T

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """
        The tensors of edit kind ``hook``: R, W and b in the units of h.

        Raises ValueError when training has lost the orthonormality of R (AdamW's weight decay does that).
        """
        rotation = self.rotate_layer.weight.T.contiguous()
        error = float((rotation @ rotation.T - torch.eye(len(rotation), device=rotation.device)).abs().max())
        if not error < 1e-3:
            raise ValueError(f"R is no longer orthonormal (off by {error:.2g}) after training: lower `lr` of this arm.")
        difference = self.unit * self.learned_source.weight / self.deviation
        bias = self.unit * self.learned_source.bias * len(self.mean) ** 0.5 - difference @ self.mean
        return {"R": rotation, "W": rotation + difference, "b": bias, "max_norm": torch.tensor([self.max_norm])}


class Grun(Loreft):
    """
    h + g(h) · Rᵀ(W h + b − R h), g = σ(MLP(x)) per token (GRUN, 2502.17823, section 4.1), x the standardised h.

    The paper acts at the last prompt token; forgetting a language needs every position, of prompt and continuation.
    """

    def __init__(self, rank: int, seen: Statistics, hidden: int) -> None:
        super().__init__(rank, seen)
        self.gate = torch.nn.Sequential(
            torch.nn.Linear(len(seen.mean), hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
        )
        self.log_odds: torch.Tensor | None = None

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """What is added; the gate's log-odds ``[batch, token, 1]`` stay in ``log_odds`` for its loss."""
        self.log_odds = self.gate(x)
        return torch.sigmoid(self.log_odds) * super().delta(x)

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of edit kind ``hook``, with the gate's."""
        first, second = cast(torch.nn.Linear, self.gate[0]), cast(torch.nn.Linear, self.gate[2])
        return {
            **super().tensors(),
            "gate_mean": self.mean,
            "gate_scale": self.deviation,
            "gate_in": first.weight,
            "gate_in_bias": first.bias,
            "gate_out": second.weight[0],
            "gate_out_bias": second.bias,
        }


@contextmanager
def intervening(model: PreTrainedModel, edits: Mapping[int, Loreft]) -> Iterator[None]:
    """Inside the block each layer's output passes through its intervention, differentiably."""
    with ExitStack() as undo:
        for n, edit in edits.items():
            layer = layer_of(model, n, len(edit.mean))
            undo.callback(layer.register_forward_hook(on_output(edit)).remove)
        yield


def frozen(edits: Mapping[int, Loreft]) -> dict[str, torch.Tensor]:
    """Tensors of edit kind ``hook``, of all layers."""
    return {
        f"layer{n}.{name}": value.detach().cpu() for n, edit in edits.items() for name, value in edit.tensors().items()
    }
