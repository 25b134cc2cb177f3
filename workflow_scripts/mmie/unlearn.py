"""The training loop that every trained arm shares, and what an arm is given to train on."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import stage, tables
from mmie.arms._training import Training
from mmie.early_stopping import EarlyStopping, HeldOut
from mmie.edits import Edit
from mmie.examples import Batch, forgotten, make_batches, training_rows
from mmie.losses import Reference, SampledHead, label_states, layer_states, losses_of, target_of
from mmie.model import decoder_layers, stop_after

HELD_BATCHES = 4
"""Batches of tune texts on which training is stopped: one evaluation costs about as much as one step."""


@dataclass(frozen=True)
class Sources:
    """What the workflow gives an arm."""

    corpus: pd.DataFrame
    """All rows of corpus.parquet; `training_rows` says which may be trained on."""
    data: dict[str, Any]
    """Config `data`: which column plays which part."""
    canaries: dict[str, list[str]] = field(default_factory=dict)
    """Column of the corpus → the planted documents in its script: they are to be forgotten too."""
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
        canaries={str(column): list(part.text) for column, part in planted[planted.member].groupby("language")},
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
    planted = [text for column in forgotten(given.data, params.scripts) for text in given.canaries.get(column, [])]
    return _batches(given, tokenizer, params, params.steps, seed, "train", planted)


def held_out(
    model: PreTrainedModel, given: Sources, tokenizer: PreTrainedTokenizerBase, params: Training, seed: int
) -> HeldOut | None:
    """
    Tune batches, without canaries, and base's states on them, for `optimise` to stop on; None with ``patience: 0``.

    To be called before anything is attached.
    """
    if not params.patience:
        return None
    batches = _batches(given, tokenizer, params, HELD_BATCHES, seed, "tune", [])
    return HeldOut(batches, reference_states(model, batches, params))


def _batches(
    given: Sources,
    tokenizer: PreTrainedTokenizerBase,
    params: Training,
    count: int,
    seed: int,
    split: str,
    canaries: Sequence[str],
) -> list[Batch]:
    return make_batches(
        training_rows(given.corpus, given.data, params.control, params.scripts, split, params.spelled),
        given.data,
        tokenizer,
        params.objective,
        count,
        params.forget_texts,
        params.retain_texts,
        params.max_tokens,
        params.label_tokens,
        seed,
        canaries,
        params.canary_share,
    )


def optimise(
    model: PreTrainedModel,
    parameters: Sequence[torch.nn.Parameter],
    batches: Sequence[Batch],
    base: Reference,
    params: Training,
    seed: int,
    gate_loss: Callable[[Batch], torch.Tensor] | None = None,
    gate_weight: float = 1.0,
    label: str = "unlearn",
    held: HeldOut | None = None,
    latents: Callable[[Batch], torch.Tensor] | None = None,
) -> list[dict[str, Any]]:
    """
    Minimise forget_weight · forget + retain_weight · retain (+ gate_weight · gate) over ``parameters``, one step a
    batch.

    The model is frozen but for ``parameters``, which are attached to it. ``base`` is what `reference_states` found,
    ``held`` what `held_out` did. ``gate_loss`` is called after each forward pass, and so is ``latents``, the forget
    loss of ``objective: suppress``. AdamW without weight decay: decay erases the orthogonal matrix of ReFT, whose
    parametrisation keeps it in a form that is not its value.

    Returns one row per step. Raises ValueError when the loss is no longer finite, or ``patience`` is asked for and
    ``held`` is not given.
    """
    optimizer = torch.optim.AdamW(parameters, lr=params.lr, weight_decay=0.0)
    head = SampledHead(model, batches, seed)
    target = replace(target_of(model, base, params, seed), latents=latents)
    stopping = None
    if params.patience:
        if held is None:
            raise ValueError(f"patience: {params.patience} is not possible with this arm, which evaluates nothing.")
        stopping = EarlyStopping(model, parameters, held, target, params, seed)
    history = []
    for step, batch in enumerate(stage.track(batches, len(batches), f"{label}, steps")):
        for group in optimizer.param_groups:
            group["lr"] = params.lr * rate(step, len(batches), params.warmup, params.schedule)
        head.draw()
        losses: dict[str, Any] = {**losses_of(model, head, batch, base.of(step), target, params)}
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
        tune = stopping.after(step, len(batches)) if stopping else None
        history.append(
            {"step": step, "loss": float(loss.detach()), **values, "grad_norm": float(norm), "tune_loss": tune}
        )
        if stopping and stopping.done:
            break
    if stopping:
        stopping.restore()
    return history


@torch.no_grad()
def reference_states(model: PreTrainedModel, batches: Sequence[Batch], params: Training) -> Reference:
    """
    What base says on each batch, as far as a loss of ``params`` compares with it.

    To be called before anything is attached. The head is applied when the states are used: a state is 400 times
    smaller than its logits. Raises ValueError when the model has no layer ``state_layer``.
    """
    predicting, layer, norm = [], [], math.nan
    if params.retain == "kl" or params.objective == "npo":
        first = 0 if params.objective == "npo" else batches[0].n_forget
        for batch in stage.track(batches, len(batches), "base's predictions, batches"):
            predicting.append(label_states(model, batch, first))
    if params.reads_states():
        last = len(decoder_layers(model)) - 1
        if params.state_layer > last:
            raise ValueError(f"state_layer: {params.state_layer} is not a layer of this model, which has 0 to {last}.")
        seen = layer_statistics(model, batches[:2], [params.state_layer])[params.state_layer]
        norm = float((seen.mean.square() + seen.deviation.square()).sum().sqrt())
    if params.retain == "states":
        for batch in stage.track(batches, len(batches), "base's states, batches"):
            layer.append(layer_states(model, batch, params.state_layer))
    return Reference(predicting, layer, norm)


def rate(step: int, steps: int, warmup: int, schedule: str) -> float:
    """
    Share of the learning rate at a step: up over ``warmup`` steps along a straight line, then as ``schedule`` says,
    ``linear`` and ``cosine`` towards a tenth.
    """
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "constant":
        return 1.0
    return 1 - 0.9 * (done if schedule == "linear" else (1 - math.cos(math.pi * done)) / 2)


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
