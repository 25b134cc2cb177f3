"""
Interventions on the residual stream while they are trained: pyreft's LoReFT, and its gated form, GRUN.

Once trained they are frozen into the plain tensors of edit kind ``hook``; inference needs none of this.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from pyreft.interventions import LoreftIntervention
from transformers import PreTrainedModel

from mmie.edits.hook import layer_of, on_output


class Loreft(LoreftIntervention):
    """
    h + Rᵀ(W h + b − R h) (2404.03592, equation 2) in fp32, which starts as the identity: W = R, b = 0.

    pyreft starts W at random, which on a trained model raises the nll from 3 to 22. ``b`` is kept in units of ``scale``, the size of
    a hidden state: in the model's own units, Adam's steps would not move it. Tokens above ``max_norm`` pass.
    """

    # pyreft's own leave out what a subclass adds.
    state_dict = torch.nn.Module.state_dict
    load_state_dict = torch.nn.Module.load_state_dict

    def __init__(self, d_model: int, rank: int, max_norm: float, scale: float) -> None:
        super().__init__(embed_dim=d_model, low_rank_dimension=rank, dtype=torch.float32)
        self.max_norm, self.scale = max_norm, scale
        with torch.no_grad():
            self.learned_source.weight.copy_(self.rotate_layer.weight.T)
            self.learned_source.bias.zero_()

    def forward(self, base: torch.Tensor, source: Any = None, subspaces: Any = None) -> torch.Tensor:
        """The rewritten hidden states, fp32 ``[batch, token, d_model]``."""
        delta = self.delta(base)
        return torch.where(base.norm(dim=-1, keepdim=True) > self.max_norm, base, base + delta)

    def delta(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to hidden states."""
        rotation = self.rotate_layer.weight  # once: every access works the parametrisation out again
        change = torch.nn.functional.linear(h, self.learned_source.weight - rotation.T, self.learned_source.bias * self.scale)
        return change @ rotation.T

    def tensors(self) -> dict[str, torch.Tensor]:
        """
        The tensors of edit kind ``hook``.

        Raises ValueError when training has lost the orthonormality of R (AdamW's weight decay does that).
        """
        rotation = self.rotate_layer.weight.detach().T.contiguous()
        error = float((rotation @ rotation.T - torch.eye(len(rotation), device=rotation.device)).abs().max())
        if not error < 1e-3:
            raise ValueError(f"R is no longer orthonormal (off by {error:.2g}) after training: lower `lr` of this arm.")
        return {
            "R": rotation,
            "W": self.learned_source.weight.detach().clone(),
            "b": self.learned_source.bias.detach() * self.scale,
            "max_norm": torch.tensor([self.max_norm]),
        }


class Grun(Loreft):
    """
    h + g(h) · Rᵀ(W h + b − R h), g = σ(MLP(h)) per token (GRUN, 2502.17823, section 4.1).

    The gate reads standardised hidden states (``mean`` and ``deviation``, ``[d_model]``): one dimension holds most of the energy. The
    paper acts at the last prompt token; forgetting a language needs every position, of prompt and continuation.
    """

    def __init__(
        self, d_model: int, rank: int, max_norm: float, scale: float, hidden: int, mean: torch.Tensor, deviation: torch.Tensor
    ) -> None:
        super().__init__(d_model, rank, max_norm, scale)
        self.gate = torch.nn.Sequential(torch.nn.Linear(d_model, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1))
        self.register_buffer("mean", mean.float())
        self.register_buffer("deviation", deviation.float())
        self.last: torch.Tensor | None = None

    def gate_logits(self, h: torch.Tensor) -> torch.Tensor:
        """Log-odds that the gate is open, ``[…, 1]``."""
        return self.gate((h - self.mean) / self.deviation)

    def delta(self, h: torch.Tensor) -> torch.Tensor:
        """What is added to hidden states; the gate's log-odds stay in ``last`` for its loss."""
        self.last = self.gate_logits(h)
        return torch.sigmoid(self.last) * super().delta(h)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of edit kind ``hook``, with the gate's."""
        first, _, second = self.gate
        return {
            **super().tensors(),
            "gate_mean": self.mean,
            "gate_scale": self.deviation,
            "gate_in": first.weight.detach(),
            "gate_in_bias": first.bias.detach(),
            "gate_out": second.weight.detach()[0],
            "gate_out_bias": second.bias.detach(),
        }


@contextmanager
def intervening(model: PreTrainedModel, edits: Mapping[int, Loreft]) -> Iterator[None]:
    """Inside the block each layer's output passes through its intervention, differentiably."""
    with ExitStack() as undo:
        for n, edit in edits.items():
            layer = layer_of(model, n, edit.embed_dim)
            undo.callback(layer.register_forward_hook(on_output(edit)).remove)
        yield


def frozen(edits: Mapping[int, Loreft]) -> dict[str, torch.Tensor]:
    """Tensors of edit kind ``hook``, of all layers."""
    return {f"layer{n}.{name}": value.cpu() for n, edit in edits.items() for name, value in edit.tensors().items()}
