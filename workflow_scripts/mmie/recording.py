"""One pass over training texts: what goes into and comes out of chosen modules, token by token."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import stage
from mmie.batches import by_length, encode, padded
from mmie.examples import training_rows
from mmie.model import stop_after
from mmie.unlearn import Sources

BATCH_TOKENS = 512
See = Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Called with a module's name, its input and output on a batch's tokens, ``[token, width]``, and the text of each."""


def first_texts(given: Sources, control: bool, per_language: int) -> pd.DataFrame:
    """The first ``per_language`` training texts of each language, of the same groups where they are parallel."""
    rows = training_rows(given.corpus, given.data, control)
    return rows.groupby("language").head(per_language).reset_index(drop=True)


@torch.no_grad()
def record(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    modules: Mapping[str, torch.nn.Module],
    last_layer: int,
    see: See,
    label: str,
) -> None:
    """
    Run ``texts`` through decoder layers 0 to ``last_layer`` and show ``see`` every module on every batch.

    The first token of a text (an attention sink) and padding are left out.
    """
    ids = [encode(tokenizer, text) for text in texts]
    batches = by_length([len(row) for row in ids], BATCH_TOKENS)
    rows = text_of = torch.empty(0)

    def hook(name: str) -> Callable[..., None]:
        def run(_: torch.nn.Module, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            # Inside a layer, on the layer's device.
            given, put = (states[rows.to(states.device)].float().to(model.device) for states in (args[0], out))
            see(name, given, put, text_of)

        return run

    with ExitStack() as undo:
        for name, module in modules.items():
            undo.callback(module.register_forward_hook(hook(name)).remove)
        Stop: Any = undo.enter_context(stop_after(model, last_layer))
        for batch in stage.track(batches, len(batches), f"{label}, batches"):
            tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
            rows = mask.bool()
            rows[:, 0] = False
            text_of = torch.tensor(batch, device=model.device)[:, None].expand_as(mask)[rows]
            with suppress(Stop):
                model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False)
