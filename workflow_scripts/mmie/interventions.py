"""
Interventions on the residual stream while they are trained: pyreft's LoReFT, its gated form, GRUN, and the gated
suppression of latents.

Once trained they are frozen into the plain tensors of their edit kind; inference needs none of this.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol, cast

import torch
from pyreft.interventions import LoreftIntervention
from transformers import PreTrainedModel

from mmie.edits.hook import layer_of, on_output
from mmie.unlearn import Statistics


class Gated(Protocol):
    """An intervention with a gate on the standardised state."""

    mean: torch.Tensor
    deviation: torch.Tensor
    gate: torch.nn.Sequential
    log_odds: torch.Tensor | None
    """The gate's, of the last forward pass, ``[batch, token, 1]``."""


def new_gate(d_model: int, hidden: int) -> torch.nn.Sequential:
    """d_model → hidden → 1, log-odds of the standardised state."""
    return torch.nn.Sequential(torch.nn.Linear(d_model, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))


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
        self.gate = new_gate(len(seen.mean), hidden)
        self.log_odds: torch.Tensor | None = None

    def delta(self, x: torch.Tensor) -> torch.Tensor:
        """What is added; the gate's log-odds ``[batch, token, 1]`` stay in ``log_odds`` for its loss."""
        self.log_odds = self.gate(x)
        return torch.sigmoid(self.log_odds) * super().delta(x)

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of edit kind ``hook``, with the gate's."""
        return {**super().tensors(), **gate_tensors(self)}


class Suppression(torch.nn.Module):
    """
    h − g(h) · Σ_{i∈K} s · z_i · d_i: edit kind ``sae_gate`` while its gate, g = σ(MLP(x)), is trained.

    ``parts`` are one layer's tensors of that kind, which stay as they are.
    """

    def __init__(self, parts: Mapping[str, torch.Tensor], seen: Statistics, hidden: int) -> None:
        super().__init__()
        self.mean, self.deviation = (value.float().to(parts["bias"].device) for value in (seen.mean, seen.deviation))
        self.parts = dict(parts)
        self.gate = new_gate(len(seen.mean), hidden)
        self.log_odds: torch.Tensor | None = None

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The rewritten hidden states, fp32 ``[batch, token, d_model]``; attention sinks pass unchanged."""
        self.log_odds = self.gate((h - self.mean) / self.deviation)
        pre = torch.nn.functional.linear(h, self.parts["encoder"], self.parts["bias"])
        taken = (pre * (pre > self.parts["threshold"].clamp(min=0))) @ self.parts["decoder"]
        is_sink = h.norm(dim=-1, keepdim=True) > self.parts["max_norm"]
        return torch.where(is_sink, h, h - torch.sigmoid(self.log_odds) * taken)

    @torch.no_grad()
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of edit kind ``sae_gate``, with the gate's."""
        return {**self.parts, **gate_tensors(self)}


def gate_tensors(edit: Gated) -> dict[str, torch.Tensor]:
    """A gate's tensors, by the names of edit kind ``hook``."""
    first, second = (cast(torch.nn.Linear, edit.gate[i]) for i in (0, 2))
    return {
        "gate_mean": edit.mean,
        "gate_scale": edit.deviation,
        "gate_in": first.weight,
        "gate_in_bias": first.bias,
        "gate_out": second.weight[0],
        "gate_out_bias": second.bias,
    }


@contextmanager
def intervening(model: PreTrainedModel, edits: Mapping[int, Loreft | Suppression]) -> Iterator[None]:
    """Inside the block each layer's output passes through its intervention, differentiably."""
    with ExitStack() as undo:
        for n, edit in edits.items():
            layer = layer_of(model, n, len(edit.mean))
            undo.callback(layer.register_forward_hook(on_output(edit)).remove)
        yield


def frozen(edits: Mapping[int, Loreft | Suppression]) -> dict[str, torch.Tensor]:
    """Tensors of their edit kind, of all layers."""
    return {
        f"layer{n}.{name}": value.detach().cpu() for n, edit in edits.items() for name, value in edit.tensors().items()
    }
