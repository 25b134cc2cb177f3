"""How good an autoencoder is on held-out texts: what it reconstructs, and what the model still does with that."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.batches import by_length, encode, padded
from mmie.model import decoder_layers
from mmie.sparse_code import SparseCode
from mmie.storage import States

TEXTS = 5
"""Texts per language on which the model is run: its head over a large vocabulary is nearly all of the work."""
SPARSE = (1, 5)
"""Latents that a sparse probe may read."""
PROBED = 300
"""Texts per language that it is trained on, and as many that it is tested on: every latent of each is in memory."""
CHUNK = 2048
ROWS = 256
BATCH_TOKENS = 2048


@torch.inference_mode()
def reconstruction(code: SparseCode, states: States, tokens: pd.DataFrame) -> pd.DataFrame:
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


def probing(code: SparseCode, states: States, tokens: pd.DataFrame) -> pd.DataFrame:
    """
    How well a few latents tell each language from all others, ``auc_1`` and ``auc_5`` (k-sparse probing, 2305.01610).

    Per text, mean activations; on the train split the k latents with the largest standardised difference between the
    language's texts and the others', and a logistic regression on them; its AUC on the tune split. ``all`` is the mean
    over languages. Controls count as languages of their own: a latent of a script is not one of its language.
    """
    train, tune = (_pooled(code, states, tokens[tokens["split"] == split]) for split in ("train", "tune"))
    rows = []
    for language in sorted(set(train[1])):
        labels = [found == language for _, found in (train, tune)]
        difference = train[0][labels[0]].mean(0) - train[0][~labels[0]].mean(0)
        best = np.argsort(-np.abs(difference) / (train[0].std(0) + 1e-9), kind="stable")
        row: dict[str, Any] = {"language": language}
        for k in SPARSE:
            chosen, scale = best[:k], train[0][:, best[:k]].std(0) + 1e-9
            probe = LogisticRegression(class_weight="balanced").fit(train[0][:, chosen] / scale, labels[0])
            row[f"auc_{k}"] = roc_auc_score(labels[1], probe.decision_function(tune[0][:, chosen] / scale))
        rows.append(row)
    table = pd.DataFrame(rows)
    return pd.concat([table, table.mean(numeric_only=True).to_frame().T.assign(language="all")], ignore_index=True)


@torch.inference_mode()
def _pooled(
    code: SparseCode, states: States, tokens: pd.DataFrame
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.object_]]:
    """Mean latents of each text ``[text, d_sae]``, and its language."""
    texts = tokens.drop_duplicates("doc_id").groupby("language", sort=False).head(PROBED)
    tokens = tokens[tokens["doc_id"].isin(texts["doc_id"])]
    number, _ = pd.factorize(tokens["doc_id"])
    total = torch.zeros(len(texts), code.b_enc.numel(), dtype=torch.float64)
    parts = torch.tensor(tokens["row"].to_numpy()).split(CHUNK), torch.tensor(number).split(CHUNK)
    for rows, which in zip(*parts, strict=True):
        total.index_add_(0, which, code.encode(states[rows]).double())
    return total.numpy() / np.bincount(number)[:, None], texts["language"].to_numpy()


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
