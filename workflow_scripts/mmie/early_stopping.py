"""Early stopping: when training stops, and which weights it keeps, by the loss on texts of the tune split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from mmie.arms._training import Training
from mmie.examples import Batch
from mmie.losses import Reference, SampledHead, Target, losses_of


@dataclass(frozen=True)
class HeldOut:
    """Batches of tune texts, and what base says on them."""

    batches: list[Batch]
    base: Reference


class EarlyStopping:
    """
    Evaluates every ``evaluate_every`` steps and after the last one; is ``done`` after ``patience`` evaluations in a row
    that are no better than the best before them.

    The loss is forget_weight · forget + retain_weight · retain, mean over the batches; a gate's loss is left out. Its
    random vocabulary stays the same, so that evaluations compare.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: Sequence[torch.nn.Parameter],
        held: HeldOut,
        target: Target,
        params: Training,
        seed: int,
    ) -> None:
        self._model, self._parameters, self._held = model, parameters, held
        self._target, self._params = target, params
        self._head = SampledHead(model, held.batches, seed)
        self._best, self._kept = math.inf, [p.detach().clone() for p in parameters]
        self._in_vain = 0

    @property
    def done(self) -> bool:
        """Whether training should stop."""
        return self._in_vain >= self._params.patience

    def after(self, step: int, steps: int) -> float | None:
        """The loss on the tune texts after ``step`` (from 0) of ``steps``; None where it is not evaluated."""
        if (step + 1) % self._params.evaluate_every and step + 1 < steps:
            return None
        loss = self._loss()
        if loss < self._best:
            self._best, self._in_vain = loss, 0
            self._kept = [p.detach().clone() for p in self._parameters]
        else:
            self._in_vain += 1
        return loss

    @torch.no_grad()
    def restore(self) -> None:
        """Give the parameters their values of the best evaluation."""
        for parameter, kept in zip(self._parameters, self._kept, strict=True):
            parameter.copy_(kept)

    @torch.no_grad()
    def _loss(self) -> float:
        params, total = self._params, 0.0
        for i, batch in enumerate(self._held.batches):
            found = losses_of(self._model, self._head, batch, self._held.base.of(i), self._target, params)
            total += params.forget_weight * float(found["forget_loss"])
            total += params.retain_weight * float(found["retain_loss"])
        return total / len(self._held.batches)
