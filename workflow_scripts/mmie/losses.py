"""The losses of one batch: one forward pass of the edited model, compared with labels, with base, or with noise."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel

from mmie import objectives
from mmie.arms._training import Training
from mmie.examples import FORGET, IGNORE, RETAIN, Batch
from mmie.model import decoder_layers, stop_after

SAMPLED = 4096
"""Random ids in a sampled vocabulary, beside all ids that occur in the batches."""


@dataclass(frozen=True)
class Compared:
    """What base says on one batch; None where no loss compares with it."""

    predicting: torch.Tensor | None = None
    """
    Last hidden states from which the labels are predicted, ``[label, d_model]``: of the texts to keep, with
    ``objective: npo`` of all.
    """
    layer: torch.Tensor | None = None
    """States after ``state_layer`` of the tokens to keep, ``[token, d_model]`` (``retain: states``)."""


@dataclass(frozen=True)
class Reference:
    """What base says on every batch of a run."""

    predicting: list[torch.Tensor] = field(default_factory=list)
    layer: list[torch.Tensor] = field(default_factory=list)
    norm: float = math.nan
    """Root mean square norm of base's states after ``state_layer``; NaN where none are read."""

    def of(self, step: int) -> Compared:
        """The part of one batch."""
        return Compared(self.predicting[step] if self.predicting else None, self.layer[step] if self.layer else None)


@dataclass(frozen=True)
class Target:
    """What the objective of a run needs beside base, the same in every batch."""

    norm: float
    """The unit of distances between states, as in `Reference`."""
    noise: torch.Tensor | None
    """c · e ``[d_model]``, which RMU pulls towards; None unless ``objective: rmu``."""
    latents: Callable[[Batch], torch.Tensor] | None = None
    """The forget loss of ``objective: suppress``, called after the forward pass of a batch."""


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
        self._device = model.device
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
        wanted = ids.to(self._weight.device)
        self._column[ids] = torch.arange(len(ids))
        self._rows = self._weight[wanted].to(self._device)
        self._row_bias = None if self._bias is None else self._bias[wanted].to(self._device)
        weight = torch.zeros(len(ids))
        weight[len(self._seen) :] = math.log(len(self._others) / max(count, 1))
        self.log_weight = weight.to(self._device)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """fp32 ``[token, sampled vocabulary]`` from last hidden states ``[token, d_model]``."""
        logits = torch.nn.functional.linear(states, self._rows, self._row_bias).float()
        return logits if self._cap is None else self._cap * torch.tanh(logits / self._cap)

    def columns(self, ids: torch.Tensor) -> torch.Tensor:
        """Columns of token ids that occur in the batches."""
        return self._column[ids.cpu()].to(ids.device)


def target_of(model: PreTrainedModel, base: Reference, params: Training, seed: int) -> Target:
    """The run's target, drawn with ``seed``."""
    if params.objective != "rmu":
        return Target(base.norm, None)
    noise = objectives.rmu_target(model.config.hidden_size, params.rmu_scale, base.norm, seed)
    return Target(base.norm, noise.to(model.device))


def losses_of(
    model: PreTrainedModel, head: SampledHead, batch: Batch, base: Compared, target: Target, params: Training
) -> dict[str, torch.Tensor]:
    """``forget_loss`` and ``retain_loss`` of a batch, scalars with their gradients, from one forward pass."""
    watching: AbstractContextManager[list[torch.Tensor]] = nullcontext([])
    if params.reads_states():
        watching = _watching(model, params.state_layer)
    with watching as seen:
        predicting = label_states(model, batch)
    labels, rows = (part.to(model.device) for part in _labels(batch))
    forget = rows < batch.n_forget

    def logits_of(which: torch.Tensor) -> torch.Tensor:
        return head.logits(predicting[which])

    def nll_of(which: torch.Tensor) -> torch.Tensor:
        return objectives.token_nll(logits_of(which), head.columns(labels[which]), head.log_weight)

    def sums(nll: torch.Tensor) -> torch.Tensor:
        return objectives.sequence_sums(nll, rows[forget], batch.n_forget)

    match params.objective:
        case "redirect":
            forget_loss = objectives.redirect(nll_of(forget))
        case "graddiff":
            forget_loss = objectives.graddiff(nll_of(forget), params.ceiling)
        case "npo":
            assert base.predicting is not None
            with torch.no_grad():
                of_base = head.logits(base.predicting[: int(forget.sum())])
                base_nll = objectives.token_nll(of_base, head.columns(labels[forget]), head.log_weight)
            forget_loss = objectives.npo(-sums(nll_of(forget)), -sums(base_nll), params.beta)
        case "simnpo":
            lengths = sums(torch.ones_like(rows[forget], dtype=torch.float32))
            forget_loss = objectives.simnpo(sums(nll_of(forget)), lengths, params.simnpo_beta, params.simnpo_delta)
        case "suppress":
            assert target.latents is not None
            forget_loss = target.latents(batch)
        case _:
            assert target.noise is not None
            states = seen[0][_text(batch, FORGET).to(model.device)]
            forget_loss = objectives.state_distance(states, target.noise, target.norm)
    match params.retain:
        case "ce":
            retain_loss = nll_of(~forget).mean()
        case "kl":
            assert base.predicting is not None
            with torch.no_grad():
                base_logits = head.logits(base.predicting[-int((~forget).sum()) :])
            retain_loss = objectives.kl_to_base(base_logits, logits_of(~forget), head.log_weight)
        case _:
            assert base.layer is not None
            states = seen[0][_text(batch, RETAIN).to(model.device)]
            retain_loss = objectives.state_distance(states, base.layer, target.norm)
    return {"forget_loss": forget_loss, "retain_loss": retain_loss}


def label_states(model: PreTrainedModel, batch: Batch, first: int = 0) -> torch.Tensor:
    """
    Last hidden states from which the labels are predicted, ``[label, d_model]``: those one position before, from
    sequence ``first`` on.
    """
    device = model.device
    tokens, mask = batch.tokens[first:].to(device), batch.mask[first:].to(device)
    output = model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False)
    return output.last_hidden_state[:, :-1][(batch.labels[first:, 1:] != IGNORE).to(device)]


def layer_states(model: PreTrainedModel, batch: Batch, layer: int) -> torch.Tensor:
    """States after ``layer`` of the tokens to keep, ``[token, d_model]``; the layers above do not run."""
    with _watching(model, layer) as seen, stop_after(model, layer) as Stop, suppress(Stop):
        label_states(model, batch)
    return seen[0][_text(batch, RETAIN).to(model.device)]


@contextmanager
def _watching(model: PreTrainedModel, layer: int) -> Iterator[list[torch.Tensor]]:
    """Inside the block, the list fills with the layer's output, edits included, of each pass."""
    seen: list[torch.Tensor] = []
    # Hooks run in the order of their registration: this one comes after those of the edits.
    handle = decoder_layers(model)[layer].register_forward_hook(
        lambda _, __, out: seen.append(out if torch.is_tensor(out) else out[0])
    )
    try:
        yield seen
    finally:
        handle.remove()


def _text(batch: Batch, side: int) -> torch.Tensor:
    """
    Which tokens' states count, ``[sequence, token]``: of the sequences to forget or to keep, as ``side`` says, the
    text in that language. A first token is an attention sink (2309.17453) and holds no language.
    """
    wanted = batch.side == side
    wanted[batch.n_forget :] &= side == RETAIN
    wanted[: batch.n_forget] &= side == FORGET
    wanted[:, 0] = False
    return wanted


def _labels(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Label ids ``[label]``, and the sequence each belongs to."""
    wanted = batch.labels[:, 1:] != IGNORE
    rows = torch.arange(len(wanted))[:, None].expand_as(wanted)
    return batch.labels[:, 1:][wanted], rows[wanted]
