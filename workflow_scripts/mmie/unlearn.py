"""The training loop that every trained arm shares, and what an arm is given to train on."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import objectives, stage, tables
from mmie.arms._training import Training
from mmie.edits import Edit
from mmie.examples import IGNORE, Batch, make_batches, training_rows
from mmie.model import decoder_layers, stop_after

SAMPLED = 4096
"""Random ids in a sampled vocabulary, beside all ids that occur in the batches."""


@dataclass(frozen=True)
class Sources:
    """What the workflow gives an arm."""

    corpus: pd.DataFrame
    """All rows of corpus.parquet; `training_rows` says which may be trained on."""
    data: dict[str, Any]
    """Config `data`: which column plays which part."""
    canaries: list[str] = field(default_factory=list)
    """The planted documents: they are to be forgotten too."""
    activations: dict[int, Path] = field(default_factory=dict)
    """Layer → file of cached activations, for arms that need them."""
    index: Path | None = None
    """Which text and token each row of the activations is."""
    saes: list[Path] = field(default_factory=list)
    """Weights of the sparse autoencoders, site 1 first."""
    features: list[Path] = field(default_factory=list)
    """features.parquet of each site."""


@dataclass(frozen=True)
class Trained:
    """What an arm's ``train`` returns."""

    edits: list[Edit]
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row per optimizer step, columns of `tables.TRAINING` after the run's keys."""


def sources(
    corpus: str,
    canaries: str,
    activations: Sequence[str],
    index: Sequence[str],
    sae: Sequence[str],
    features: Sequence[str],
    settings: Mapping[str, Any],
) -> Sources:
    """What an arm is given, from the paths of the rule's inputs."""
    planted = tables.read(canaries, tables.CANARIES)
    return Sources(
        corpus=tables.read(corpus, tables.CORPUS),
        data=settings["data"],
        canaries=list(planted.text[planted.member]),
        activations=dict(zip(settings["candidates"], map(Path, activations), strict=True)) if activations else {},
        index=Path(index[0]) if index else None,
        saes=[Path(p) for p in sae if p.endswith(".safetensors")],
        features=[Path(p) for p in features],
    )


def history_rows(history: Iterable[dict[str, Any]], arm: str, seed: int) -> list[dict[str, Any]]:
    """Rows of `tables.TRAINING`."""
    return [{"arm": arm, "seed": seed, "variant": "plain", **row} for row in history]


def batches_of(given: Sources, tokenizer: PreTrainedTokenizerBase, params: Training, seed: int) -> list[Batch]:
    """The batches of a run of ``params``."""
    return make_batches(
        training_rows(given.corpus, given.data, params.control),
        given.data,
        tokenizer,
        params.objective,
        params.steps,
        params.forget_texts,
        params.retain_texts,
        params.max_tokens,
        params.label_tokens,
        seed,
        given.canaries,
        params.canary_share,
    )


def optimise(
    model: PreTrainedModel,
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[Batch],
    base_states: Sequence[torch.Tensor] | None,
    params: Training,
    seed: int,
    gate_loss: Callable[[Batch], torch.Tensor] | None = None,
    gate_weight: float = 1.0,
    label: str = "unlearn",
) -> list[dict[str, Any]]:
    """
    Minimise forget_weight · forget + retain_weight · retain (+ gate_weight · gate) over ``parameters``, one step a
    batch.

    The model is frozen but for ``parameters``, which are attached to it. ``base_states`` are `reference_states`,
    needed by ``retain: kl`` and ``objective: npo``. ``gate_loss`` is called after each forward pass. AdamW without
    weight decay: decay erases the orthogonal matrix of ReFT, whose parametrisation keeps it in a form that is not its
    value.

    Returns one row per step. Raises ValueError when the loss is no longer finite.
    """
    optimizer = torch.optim.AdamW(parameters, lr=params.lr, weight_decay=0.0)
    head = SampledHead(model, batches, seed)
    history = []
    for step, batch in enumerate(stage.track(batches, len(batches), f"{label}, steps")):
        for group in optimizer.param_groups:
            group["lr"] = params.lr * _rate(step, len(batches), params.warmup)
        head.draw()
        losses = _losses(model, head, batch, base_states[step] if base_states is not None else None, params)
        losses["gate_loss"] = gate_loss(batch) if gate_loss else None
        loss = params.forget_weight * losses["forget_loss"] + params.retain_weight * losses["retain_loss"]
        if gate_loss:
            loss = loss + gate_weight * losses["gate_loss"]
        if not math.isfinite(float(loss.detach())):
            raise ValueError(
                f"the loss is {float(loss.detach())} at step {step}: lower `lr` (now {params.lr}) of this arm."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, params.clip)
        optimizer.step()
        values = {name: None if value is None else float(value.detach()) for name, value in losses.items()}
        history.append({"step": step, "loss": float(loss.detach()), **values, "grad_norm": float(norm)})
    return history


@torch.no_grad()
def reference_states(model: PreTrainedModel, batches: Sequence[Batch], params: Training) -> list[torch.Tensor] | None:
    """
    Base's last hidden states at the label positions of each batch, ``[label, d_model]``: of the texts to keep, for NPO
    of all; None where no loss compares with base.

    To be called before anything is attached. The head is applied when they are used: a state is 400 times smaller than
    its logits.
    """
    if params.retain != "kl" and params.objective != "npo":
        return None
    first = 0 if params.objective == "npo" else batches[0].n_forget
    return [
        _label_states(model, batch, first)
        for batch in stage.track(batches, len(batches), "base's predictions, batches")
    ]


class SampledHead:
    """
    Logits over a sampled vocabulary: every id of the batches, and random others that stand for the rest.

    The full vocabulary is 60 % of the work of a training step. The random ids are drawn anew each step, and count as
    many times as they stand for (sampled softmax, 1412.2007), so that the normaliser is that of the full vocabulary in
    expectation. A vocabulary that is small anyway is taken whole.
    """

    def __init__(self, model: PreTrainedModel, batches: Sequence[Batch], seed: int) -> None:
        embeddings = model.get_output_embeddings()
        self._weight: torch.Tensor = embeddings.weight
        self._bias: torch.Tensor | None = getattr(embeddings, "bias", None)
        self._cap: float | None = getattr(model.config, "final_logit_softcapping", None)
        size = self._weight.shape[0]
        seen = torch.unique(torch.cat([batch.tokens.flatten() for batch in batches]))
        unseen = torch.ones(size, dtype=torch.bool)
        unseen[seen] = False
        self._seen, self._others = seen, unseen.nonzero()[:, 0]
        self._generator = torch.Generator().manual_seed(seed)
        self._column = torch.full((size,), -1)
        self.draw()

    def draw(self) -> None:
        """Draw other random ids."""
        count = min(SAMPLED, len(self._others))
        chosen = self._others[torch.randperm(len(self._others), generator=self._generator)[:count]]
        ids = torch.cat([self._seen, chosen])
        device = self._weight.device
        self._column[ids] = torch.arange(len(ids))
        self._rows = self._weight[ids.to(device)]
        self._row_bias = None if self._bias is None else self._bias[ids.to(device)]
        weight = torch.zeros(len(ids))
        weight[len(self._seen) :] = math.log(len(self._others) / max(count, 1))
        self.log_weight = weight.to(device)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """fp32 ``[token, sampled vocabulary]`` from last hidden states ``[token, d_model]``."""
        logits = torch.nn.functional.linear(states, self._rows, self._row_bias).float()
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def columns(self, ids: torch.Tensor) -> torch.Tensor:
        """Columns of token ids that occur in the batches."""
        return self._column[ids.cpu()].to(ids.device)


def _losses(
    model: PreTrainedModel, head: SampledHead, batch: Batch, base: torch.Tensor | None, params: Training
) -> dict[str, Any]:
    labels, rows = _labels(batch)
    labels, rows = labels.to(model.device), rows.to(model.device)
    logits = head.logits(_label_states(model, batch))
    nll = objectives.token_nll(logits, head.columns(labels), head.log_weight)
    forget = rows < batch.n_forget
    keep = ~forget
    if params.retain == "ce":
        retain_loss = nll[keep].mean()
    else:
        assert base is not None
        with torch.no_grad():
            base_logits = head.logits(base[-int(keep.sum()) :])
        retain_loss = objectives.kl_to_base(base_logits, logits[keep], head.log_weight)
    if params.objective == "redirect":
        forget_loss = objectives.redirect(nll[forget])
    elif params.objective == "graddiff":
        forget_loss = objectives.graddiff(nll[forget], params.ceiling)
    else:
        assert base is not None
        with torch.no_grad():
            base_nll = objectives.token_nll(
                head.logits(base[: int(forget.sum())]), head.columns(labels[forget]), head.log_weight
            )
        sums = [-objectives.sequence_sums(v, rows[forget], batch.n_forget) for v in (nll[forget], base_nll)]
        forget_loss = objectives.npo(sums[0], sums[1], params.beta)
    return {"forget_loss": forget_loss, "retain_loss": retain_loss}


def _label_states(model: PreTrainedModel, batch: Batch, first: int = 0) -> torch.Tensor:
    """
    Last hidden states from which the labels are predicted, ``[label, d_model]``: those one position before, from
    sequence ``first`` on.
    """
    device = model.device
    tokens, mask = batch.tokens[first:].to(device), batch.mask[first:].to(device)
    output = model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False)
    return output.last_hidden_state[:, :-1][(batch.labels[first:, 1:] != IGNORE).to(device)]


def _labels(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Label ids ``[label]``, and the sequence each belongs to."""
    wanted = batch.labels[:, 1:] != IGNORE
    rows = torch.arange(len(wanted))[:, None].expand_as(wanted)
    return batch.labels[:, 1:][wanted], rows[wanted]


def _rate(step: int, steps: int, warmup: int) -> float:
    """Share of the learning rate at a step: up over ``warmup`` steps, then down to a tenth along a straight line."""
    if step < warmup:
        return (step + 1) / warmup
    return 1 - 0.9 * (step - warmup) / max(1, steps - warmup)


@dataclass(frozen=True)
class Statistics:
    """What the residual stream after a layer looks like, first tokens of texts left out."""

    mean: torch.Tensor
    """``[d_model]`` fp32."""
    deviation: torch.Tensor
    """Standard deviation of each dimension, ``[d_model]`` fp32."""
    max_norm: float
    """Norm above which a token is an attention sink."""


@torch.no_grad()
def layer_statistics(model: PreTrainedModel, batches: Sequence[Batch], layers: Sequence[int]) -> dict[int, Statistics]:
    """
    Layer → statistics of the residual stream over the text of ``batches``.

    A text's first token has ten times the norm of any other (an attention sink, 2309.17453). ``max_norm`` lies
    halfway, on a log scale, between it and the largest norm of the others; it is infinite where first tokens are not
    three times larger.
    """
    collected: dict[int, list[torch.Tensor]] = {n: [] for n in layers}
    first: dict[int, list[torch.Tensor]] = {n: [] for n in layers}

    def collect(n: int, mask: torch.Tensor) -> Callable[..., None]:
        def run(_: torch.nn.Module, __: Any, out: Any) -> None:
            states = (out if torch.is_tensor(out) else out[0]).float().cpu()
            first[n].append(states[:, 0].norm(dim=-1))
            collected[n].append(states[:, 1:][mask[:, 1:].bool()])

        return run

    modules = decoder_layers(model)
    for batch in batches:
        with ExitStack() as undo:
            for n in layers:
                undo.callback(modules[n].register_forward_hook(collect(n, batch.mask)).remove)
            Stop = undo.enter_context(stop_after(model, max(layers)))
            with suppress(Stop):
                tokens, mask = batch.tokens.to(model.device), batch.mask.to(model.device)
                model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False)
    found = {}
    for n in layers:
        states = torch.cat(collected[n])
        sink, largest = torch.cat(first[n]).min(), states.norm(dim=-1).max()
        limit = float((sink * largest).sqrt()) if sink > 3 * largest else math.inf
        found[n] = Statistics(states.mean(0), states.std(0).clamp(min=1e-6), limit)
    return found
