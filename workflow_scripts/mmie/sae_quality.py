"""How good an autoencoder is on held-out texts: what it reconstructs, and what the model still does with that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.batches import by_length, encode, padded
from mmie.model import decoder_layers
from mmie.sparse_code import SparseCode

TEXTS = 5
"""Texts per language on which the model is run: its head over a large vocabulary is nearly all of the work."""
CHUNK = 2048
ROWS = 256
BATCH_TOKENS = 2048


@torch.inference_mode()
def reconstruction(code: SparseCode, states: torch.Tensor, tokens: pd.DataFrame) -> pd.DataFrame:
    """
    Explained variance, active latents per token and share of latents that never fire, per language and for ``all``.

    ``states`` ``[token, d_model]`` is the cache and ``tokens`` the part of its index to measure on, as from
    `mmie.cache.described`. Explained variance is 1 − Σ‖x − x̂‖² / Σ‖x − mean‖², the mean being the language's own: a
    constant per language explains nothing.
    """
    found = []
    for language, rows in [*tokens.groupby("language")["row"], ("all", tokens["row"])]:
        where = torch.tensor(rows.to_numpy())
        mean = torch.stack([states[part].double().sum(0) for part in where.split(CHUNK)]).sum(0) / len(where)
        left = spread = active = 0.0
        fired = torch.zeros(code.b_enc.numel(), dtype=torch.bool)
        for part in where.split(CHUNK):
            x = states[part].float()
            z = code.encode(x)
            left += float((x - code.decode(z)).square().sum())
            spread += float((x - mean).square().sum())
            active += float((z > 0).sum())
            fired |= (z > 0).any(0)
        found.append(
            {
                "language": language,
                "explained_variance": 1 - left / spread,
                "l0": active / len(where),
                "dead_share": 1 - float(fired.float().mean()),
                "n_tokens": len(where),
            }
        )
    return pd.DataFrame(found)


@torch.inference_mode()
def behaviour(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, code: SparseCode, layer: int, texts: pd.DataFrame
) -> pd.DataFrame:
    """
    Cross-entropy of the model, its rise and KL when the layer's output is replaced by the reconstruction.

    On the first `TEXTS` of ``texts`` per language (columns language, text), nats per token, per language and for
    ``all``. The first position, on which autoencoders are not trained, is neither replaced nor scored.
    """
    texts = texts.groupby("language").head(TEXTS).reset_index(drop=True)
    ids = [encode(tokenizer, text) for text in texts["text"]]
    parts = []
    for batch in by_length([len(row) for row in ids], BATCH_TOKENS):
        tokens, mask = padded([ids[i] for i in batch], tokenizer.pad_token_id, model.device)
        plain = _hidden(model, tokens, mask)
        with _replaced(model, layer, code):
            replaced = _hidden(model, tokens, mask)
        keep = mask[:, 1:].bool()
        keep[:, 0] = False
        language = [texts["language"][batch[i]] for i in keep.nonzero()[:, 0].tolist()]
        scored = _compared(model, plain[:, :-1][keep], replaced[:, :-1][keep], tokens[:, 1:][keep])
        parts.append(scored.assign(language=language))
    scored = pd.concat(parts, ignore_index=True)
    table = pd.concat([scored, scored.assign(language="all")]).groupby("language")
    return table.mean().assign(n_scored=table.size()).reset_index()


def _hidden(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state


def _compared(model: PreTrainedModel, plain: torch.Tensor, replaced: torch.Tensor, label: torch.Tensor) -> pd.DataFrame:
    """One row per token: ce, ce_delta and kl, from last hidden states ``[token, d_model]``."""
    head = model.get_output_embeddings()
    found: dict[str, list[float]] = {"ce": [], "ce_delta": [], "kl": []}
    for start in range(0, len(label), ROWS):
        rows = slice(start, start + ROWS)
        p, q = (head(states[rows]).float().log_softmax(-1) for states in (plain, replaced))
        ce, other = (-logs.gather(-1, label[rows, None])[:, 0] for logs in (p, q))
        found["ce"] += ce.tolist()
        found["ce_delta"] += (other - ce).tolist()
        found["kl"] += torch.linalg.vecdot(p.exp(), p - q).tolist()
    return pd.DataFrame(found)


@contextmanager
def _replaced(model: PreTrainedModel, layer: int, code: SparseCode) -> Iterator[None]:
    """Inside the block the layer puts out the reconstruction, from the second position on."""
    code = code.to(model.device)

    def hook(_: torch.nn.Module, __: Any, out: Any) -> Any:
        states = out if torch.is_tensor(out) else out[0]
        changed = code.decode(code.encode(states[:, 1:])).to(states.dtype)
        states = torch.cat([states[:, :1], changed], dim=1)
        return states if torch.is_tensor(out) else (states, *out[1:])

    handle = decoder_layers(model)[layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
