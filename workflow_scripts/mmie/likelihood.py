"""Held-out texts under a model: negative log-likelihood, pooled hidden states, and KL between two models."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length, encoded, padded
from mmie.controls import control_languages
from mmie.model import decoder_layers

ROWS = 256
"""Rows of KL at a time, over the whole vocabulary of both models."""


@dataclass
class Scores:
    """What one pass finds out, in the order of the texts."""

    nll_sum: list[float | None]
    """Nats, summed over the text's tokens; None where it was not asked for."""
    n_tokens: list[int]
    """Tokens scored: all but the first, which is the beginning-of-text token."""
    states: dict[int, torch.Tensor] = field(default_factory=dict)
    """Layer → mean hidden state over the scored tokens, ``[text, d_model]`` fp32."""


def choose_texts(corpus: pd.DataFrame, settings: dict[str, Any]) -> pd.DataFrame:
    """
    Texts of the evaluated split, with what is done to each.

    ``scored``: its likelihood is measured (not that of the controls made from the forget language, which only the
    probes read). ``compared``: it is one of the ``kl_texts`` retain and neighbour texts, drawn by a hash of their ids,
    on which KL to base is measured. Code-mixed texts are prompts only, and no stage reads the other controls: both are
    left out. Of an attacked model only the texts in ``languages`` are read; elsewhere that is None or missing, for all.
    """
    forget = set(settings["data"]["forget"].values())
    controls = [name for name, (source, _) in control_languages(settings["data"]).items() if source in forget]
    used = corpus.role.isin(["forget", "retain", "register", "neighbour", "unseen"]) | corpus.language.isin(controls)
    if settings.get("languages") is not None:
        used &= corpus.language.isin(settings["languages"])
    texts = corpus[(corpus["split"] == settings["split"]) & used].reset_index(drop=True)
    texts["scored"] = texts.role != "control"
    kept = texts[texts.role.isin(["retain", "neighbour"])]
    drawn = sorted(kept.doc_id, key=lambda doc: hashlib.sha256(doc.encode()).digest())[: settings["kl_texts"]]
    texts["compared"] = texts.doc_id.isin(drawn)
    return texts


def likelihood_rows(
    texts: pd.DataFrame, scores: Scores, kl: Sequence[float], run: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows of `tables.LIKELIHOOD` for the scored texts; ``kl`` belongs to the compared ones, in their order."""
    divergence = dict(zip(texts.doc_id[texts.compared], kl, strict=True))
    return [
        {
            **run,
            "doc_id": text.doc_id,
            "nll_sum": scores.nll_sum[i],
            "n_tokens": scores.n_tokens[i],
            "n_bytes": len(text.text.encode()),
            "kl_to_base": divergence.get(text.doc_id),
        }
        for i, text in enumerate(texts.itertuples())
        if text.scored
    ]


@torch.inference_mode()
def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    nll: Sequence[bool],
    layers: Sequence[int] = (),
    batch_tokens: int = 512,
) -> Scores:
    """
    Likelihood of the texts marked in ``nll`` (the head is most of the work), and pooled states of all texts.

    Perplexity over texts is exp(Σ nll_sum / Σ n_tokens). Raises ValueError when a text exceeds the model's context.
    """
    ids = encoded(model, tokenizer, texts)
    found = Scores([None] * len(ids), [len(row) - 1 for row in ids])
    found.states = {n: torch.zeros(len(ids), model.config.hidden_size) for n in layers}
    batches = by_length([len(row) for row in ids], batch_tokens)
    for batch in stage.track(batches, len(batches), "texts, batches"):
        tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
        with _pooled(model, mask, layers) as pooled:
            hidden = last_hidden(model, tokens, mask)
        for n in layers:
            found.states[n][batch] = pooled[n].cpu()
        asked = [i for i in batch if nll[i]]
        if asked:
            keep = mask.bool() & torch.tensor([nll[i] for i in batch], device=mask.device)[:, None]
            for i, value in zip(asked, _nll(model, hidden, tokens, keep), strict=True):
                found.nll_sum[i] = value
    return found


@torch.inference_mode()
def last_states(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_tokens: int = 512
) -> list[torch.Tensor]:
    """Per text, the states ``[token, d_model]`` from which its tokens after the first are predicted."""
    ids = encoded(model, tokenizer, texts)
    states: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    for batch in by_length([len(row) for row in ids], batch_tokens):
        tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
        hidden = last_hidden(model, tokens, mask)
        for row, i in enumerate(batch):
            states[i] = hidden[row, : len(ids[i]) - 1].clone()
    return states


@torch.inference_mode()
def kl_divergence(model: PreTrainedModel, base: Sequence[torch.Tensor], edited: Sequence[torch.Tensor]) -> list[float]:
    """KL(base ‖ edited) = Σ_v p_base(v) · ln(p_base(v) / p_edited(v)), mean over each text's tokens, nats."""
    if not base:
        return []
    lengths = [len(states) for states in base]
    one, other = torch.cat(list(base)), torch.cat(list(edited))
    lm_head = model.get_output_embeddings()
    kl = torch.empty(len(one), dtype=torch.float64)
    for start in range(0, len(one), ROWS):
        rows = slice(start, start + ROWS)
        p, q = (lm_head(states[rows]).float().log_softmax(-1) for states in (one, other))
        kl[rows] = (p.exp() * (p - q)).sum(-1).double().cpu()
    return [float(part.mean()) for part in kl.split(lengths)]


def _nll(model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor, keep: torch.Tensor) -> list[float]:
    """Negative log-likelihood of each kept text's tokens after its first, nats, summed."""
    target, states = tokens[:, 1:][keep[:, 1:]], hidden[:, :-1][keep[:, 1:]]
    log_p = head.log_probabilities(model, states, target)
    return [-float(part.sum()) for part in log_p.split([n for n in keep[:, 1:].sum(-1).tolist() if n])]


def last_hidden(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Last hidden states ``[text, token, d_model]``, after the final norm."""
    # Padding is on the right and attention is causal: positions need no shift.
    return model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state


@contextmanager
def _pooled(model: PreTrainedModel, mask: torch.Tensor, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Inside the block, the mean hidden state of each text is collected after the edits of each layer have acted."""
    found: dict[int, torch.Tensor] = {}
    weight = mask.clone()
    weight[:, 0] = 0  # the first token's norm is ten times the others' (an attention sink)
    weight = weight[..., None]

    def collect(n: int) -> Callable[..., None]:
        def hook(_: torch.nn.Module, __: Any, out: Any) -> None:
            states = (out if torch.is_tensor(out) else out[0]).float()
            found[n] = (states * weight).sum(1) / weight.sum(1)

        return hook

    handles = [decoder_layers(model)[n].register_forward_hook(collect(n)) for n in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
