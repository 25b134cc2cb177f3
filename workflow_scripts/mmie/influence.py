"""What each latent does to the model's predictions, language by language: activation times gradient."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import objectives
from mmie.examples import IGNORE, RETAIN, Batch, collate, plain
from mmie.losses import SampledHead
from mmie.model import decoder_layers
from mmie.sparse_code import SparseCode

TEXTS = 12
"""Texts per language: the model runs forward and, above the site, backward on each."""
MAX_TOKENS = 48


def influence(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    code: SparseCode,
    layer: int,
    texts: pd.DataFrame,
    languages: Sequence[str],
    seed: int,
) -> npt.NDArray[np.float64]:
    """
    Mean over tokens of ReLU(z_i · ∂y/∂z_i) in each language, ``[language, latent]``, nats (GradSAE, 2505.08080).

    ``y`` is the log-probability of the text's own next tokens, summed over the text; ∂y/∂z_i = ∂y/∂h · d_i, since the
    reconstruction error stays in h. First `TEXTS` rows of ``texts`` (columns language, text) per language, which must
    be there. Deviations: y is a log-probability of the text instead of the logit of an answer, its normaliser is
    sampled (`SampledHead`), and the sum over tokens is divided by their number, so that languages compare.
    """
    chosen = [texts.loc[texts["language"] == name, "text"].head(TEXTS) for name in languages]
    batches = [collate([plain(tokenizer, t, RETAIN, MAX_TOKENS) for t in part], 0, tokenizer) for part in chosen]
    head, code = SampledHead(model, batches, seed), code.to(model.device)
    found = []
    for batch in batches:
        states, slope = slopes(model, head, layer, batch)
        keep = batch.mask[:, 1:].bool()
        z = code.encode(states[:, 1:].float()[keep])
        found.append((z * (slope[:, 1:].float()[keep] @ code.W_dec.T)).relu().double().mean(0).cpu().numpy())
    return np.stack(found)


def slopes(model: PreTrainedModel, head: SampledHead, layer: int, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output h and ∂y/∂h, both ``[text, token, d_model]``; layers below have no part in the backward."""
    wanted = batch.labels[:, 1:] != IGNORE
    labels = batch.labels[:, 1:][wanted].to(model.device)
    with torch.enable_grad(), _leaf(model, layer) as leaves:
        tokens, mask = batch.tokens.to(model.device), batch.mask.to(model.device)
        last = model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
        logits = head.logits(last[:, :-1][wanted.to(model.device)])
        y = -objectives.token_nll(logits, head.columns(labels), head.log_weight).sum()
        (slope,) = torch.autograd.grad(y, leaves)
    return leaves[0].detach(), slope


@contextmanager
def _leaf(model: PreTrainedModel, layer: int) -> Iterator[list[torch.Tensor]]:
    """Inside the block the graph of a forward pass begins at the layer's output, which is put into the list."""
    leaves: list[torch.Tensor] = []

    def run(_: torch.nn.Module, __: Any, out: Any) -> Any:
        leaves.append((out if torch.is_tensor(out) else out[0]).detach().requires_grad_())
        return leaves[0] if torch.is_tensor(out) else (leaves[0], *out[1:])

    handle = decoder_layers(model)[layer].register_forward_hook(run)
    try:
        yield leaves
    finally:
        handle.remove()
