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
    ReLU(pre_i) ``[token, latent]`` of the latents whose rows are given, from states ``[token, d_model]``.

    Pre-activations: a latent under its threshold is not yet safe from the next token.
    """
    return torch.nn.functional.linear(states.float(), parts["encoder"], parts["bias"]).relu()


@contextmanager
def watching(
    model: PreTrainedModel, rows: dict[str, torch.Tensor], probe: Sequence[Batch]
) -> Iterator[Callable[[Batch], torch.Tensor]]:
    """
    Inside the block, the loss of a batch after its forward pass: mean activation of each latent over its tokens in the
    forget language, in units of base's on the ``probe``, mean over latents and layers. It is 1 at the start.

    In these units every latent counts the same: one of a script in which the model is loud does not hide the others.

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
        return {n: activation(parts, states[n][wanted]).mean(0) for n, parts in layers.items()}

    with ExitStack() as undo:
        for n in layers:
            undo.callback(decoder_layers(model)[n].register_forward_hook(keep(n)).remove)
        base = {n: torch.zeros_like(parts["bias"]) for n, parts in layers.items()}
        for batch in probe:
            with torch.no_grad():
                model.get_decoder()(
                    input_ids=batch.tokens.to(model.device), attention_mask=batch.mask.to(model.device), use_cache=False
                )
                base = {n: base[n] + value / len(probe) for n, value in mean_of(batch).items()}
        # A latent that the probe does not wake has no unit: it counts in that of the others.
        unit = {n: value.clamp(min=float(value.mean()) / 10) for n, value in base.items()}
        yield lambda batch: torch.stack([(value / unit[n]).mean() for n, value in mean_of(batch).items()]).mean()
