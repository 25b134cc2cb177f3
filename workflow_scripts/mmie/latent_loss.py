"""What chosen latents do on the texts to forget, as a loss: CRISP's (2508.13650)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from mmie.edits.hook import by_layer
from mmie.examples import FORGET, Batch
from mmie.model import decoder_layers


def activation(parts: Mapping[str, torch.Tensor], states: torch.Tensor) -> torch.Tensor:
    """
    Σ_i ReLU(pre_i) per token ``[token]`` of the latents whose rows are given, from states ``[token, d_model]``.

    Pre-activations: a latent under its threshold is not yet safe from the next token.
    """
    return torch.nn.functional.linear(states.float(), parts["encoder"], parts["bias"]).relu().sum(-1)


@contextmanager
def watching(
    model: PreTrainedModel, rows: dict[str, torch.Tensor], probe: Sequence[Batch]
) -> Iterator[Callable[[Batch], torch.Tensor]]:
    """
    Inside the block, the loss of a batch after its forward pass: mean activation of the latents over its tokens in the
    forget language, in units of base's on the ``probe``, mean over layers. It is 1 at the start.

    ``rows`` as from `mmie.suppression.rows_of`. The model must be as it came when the block is entered.
    """
    layers = dict(by_layer(rows, model.device))
    states: dict[int, torch.Tensor] = {}

    def keep(n: int) -> Callable[..., None]:
        def run(_: torch.nn.Module, __: Any, out: Any) -> None:
            states[n] = out if torch.is_tensor(out) else out[0]

        return run

    def mean_of(batch: Batch) -> dict[int, torch.Tensor]:
        wanted = (batch.side == FORGET).to(model.device)
        return {n: activation(parts, states[n][wanted]).mean() for n, parts in layers.items()}

    with ExitStack() as undo:
        for n in layers:
            undo.callback(decoder_layers(model)[n].register_forward_hook(keep(n)).remove)
        base = dict.fromkeys(layers, 0.0)
        for batch in probe:
            with torch.no_grad():
                model.get_decoder()(
                    input_ids=batch.tokens.to(model.device), attention_mask=batch.mask.to(model.device), use_cache=False
                )
                base = {n: base[n] + float(value) / len(probe) for n, value in mean_of(batch).items()}
        yield lambda batch: torch.stack([value / base[n] for n, value in mean_of(batch).items()]).mean()
