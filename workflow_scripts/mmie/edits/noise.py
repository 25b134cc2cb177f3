"""
Edit kind ``noise``: Gaussian noise on the residual stream after some layers, in proportion to its norm.

h' = h + scale · ‖h‖ / √d · e, with e ~ N(0, 1)^d fixed by seed, layer and token id: each id has one of `POOL` draws.
So a token gets the same noise in any batch, at any padding, cached or not; independent draws at every position could
not promise that. The added vector is about scale · ‖h‖ long.

Facts: ``scale``, ``seed``, and ``max_norm``, layer → the norm above which a token (an attention sink) passes unchanged.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie.edits.hook import layer_of, on_output

POOL = 4096
"""Draws per layer: ids that are equal modulo this share one. A draw for every id of a large vocabulary is 1 GB."""


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """
    Pairs of module and forward hook: the embedding's notes the ids, the layers' add the noise.

    Raises ValueError when a layer does not exist.
    """
    d_model = model.config.hidden_size
    noted: dict[str, torch.Tensor] = {}

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        noted["ids"] = args[0]

    def adding(n: int, limit: float) -> Callable[..., Any]:
        draws = pool(facts["seed"], n, d_model).to(model.device)

        def add(h: torch.Tensor) -> torch.Tensor:
            norm = h.norm(dim=-1, keepdim=True)
            noise = facts["scale"] / d_model**0.5 * norm * draws[noted["ids"] % POOL]
            return torch.where(norm > limit, h, h + noise)

        return on_output(add)

    layers = sorted((int(n), float(limit)) for n, limit in facts["max_norm"].items())
    embeddings: Any = model.get_input_embeddings()
    return [(embeddings, note), *((layer_of(model, n, d_model), adding(n, limit)) for n, limit in layers)]


def pool(seed: int, layer: int, d_model: int) -> torch.Tensor:
    """The draws of a layer, fp32 ``[POOL, d_model]``."""
    key = hashlib.sha256(f"noise {seed} {layer}".encode()).digest()[:7]
    generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
    return torch.randn(POOL, d_model, generator=generator)
