"""
Inside the model: at which layer the script of the forgotten language is on its mind, and where an edit takes it away.

The *logit lens* reads a layer's state as if it were the last one: final norm, head, softmax. Its mass on tokens in the
script of the forgotten language says how far the model is on its way to writing it. *Activation patching* (2202.05262)
gives base the edited model's states at one layer and lets base go on from there: below the layer at which the edit has
taken the language away, base still finds it in them, and its mass comes back; from that layer on it does not.

Both look at the next token after an opening in the native script. A script is not a language: Marathi shares Hindi's.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import head, stage
from mmie.batches import by_length, encoded, padded
from mmie.model import decoder_layers
from mmie.scripts import letters_of

LENS, PATCHED = "lens", "patched"


@dataclass(frozen=True)
class Passed:
    """What a model computes on a batch of prompts."""

    tokens: torch.Tensor
    mask: torch.Tensor
    states: list[torch.Tensor]
    """Output of each decoder layer, edits included, ``[prompt, token, d_model]``."""


def choose_prompts(prompts: pd.DataFrame, count: int, family: str = "forget_native") -> pd.DataFrame:
    """``count`` prompts of a family, drawn by a hash of their ids."""
    rows = prompts[prompts["family"] == family]
    drawn = sorted(rows["prompt_id"], key=lambda prompt: hashlib.sha256(prompt.encode()).digest())[:count]
    return rows[rows["prompt_id"].isin(drawn)].reset_index(drop=True)


def tokens_in(tokenizer: PreTrainedTokenizerBase, script: str, size: int) -> torch.Tensor:
    """
    Which tokens of a vocabulary of ``size`` have a letter of the script (ISO 15924), ``[vocabulary]`` bool.

    Raises ValueError when none has: then the model cannot write it, or writes it byte by byte.
    """
    texts = tokenizer.batch_decode([[token] for token in range(min(size, len(tokenizer)))])
    letter = letters_of(script)
    found = torch.zeros(size, dtype=torch.bool)
    found[: len(texts)] = torch.tensor([letter.search(text) is not None for text in texts])
    if not found.any():
        raise ValueError(f"no token of this model has a letter of {script}: set config `inside.prompts: 0`.")
    return found


def edited_passes(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_tokens: int = 512
) -> tuple[list[list[int]], list[Passed]]:
    """Batches of places in ``texts``, and what the model, with the edits that are attached, computes on each."""
    ids = encoded(model, tokenizer, texts)
    batches = by_length([len(row) for row in ids], batch_tokens)
    passes = []
    for batch in batches:
        tokens, mask = padded([ids[i] for i in batch], int(tokenizer.pad_token_id), model.device)
        with _collected(model) as states:
            _run(model, tokens, mask)
        passes.append(Passed(tokens, mask, states))
    return batches, passes


@torch.inference_mode()
def lens_mass(model: PreTrainedModel, passed: Passed, inside: torch.Tensor) -> torch.Tensor:
    """Mass on the tokens ``inside`` that each layer's last state gives the next token: ``[layer, prompt]``."""
    norm = final_norm(model)
    return _masses(model, [norm(_last(states, passed.mask)) for states in passed.states], inside)


@torch.inference_mode()
def patched_mass(model: PreTrainedModel, passed: Passed, inside: torch.Tensor) -> torch.Tensor:
    """
    Mass on the tokens ``inside`` when ``model`` (base, nothing attached) goes on from the states of each layer:
    ``[layer, prompt]``.

    At the last layer it is the edited model's own mass, and below the first edit it is base's.
    """
    found = []
    for layer in stage.track(range(len(passed.states)), len(passed.states), "patched layers"):
        with _hooked(model, layer, lambda _, __, out, given=passed.states[layer]: _like(out, given)):
            last = _run(model, passed.tokens, passed.mask)
        found.append(_last(last, passed.mask))
    return _masses(model, found, inside)


def inside_rows(
    prompts: pd.DataFrame,
    batches: Sequence[Sequence[int]],
    found: Mapping[str, Sequence[torch.Tensor]],
    run: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of `tables.INSIDE`: per measure and batch, ``[layer, prompt]``."""
    about = prompts[["prompt_id", "group_id"]].to_dict("records")
    return [
        {**run, "measure": measure, "layer": layer, **about[i], "mass": float(row[place])}
        for measure, parts in found.items()
        for batch, masses in zip(batches, parts, strict=True)
        for layer, row in enumerate(masses)
        for place, i in enumerate(batch)
    ]


def final_norm(model: PreTrainedModel) -> torch.nn.Module:
    """The norm before the head; raises ValueError for a model that has none under the usual name."""
    norm = getattr(model.get_decoder(), "norm", None)
    if not isinstance(norm, torch.nn.Module):
        raise ValueError(
            f"{type(model).__name__} has no `norm` before its head, which the logit lens needs: set config "
            "`inside.prompts: 0`."
        )
    return norm


@torch.inference_mode()
def _run(model: PreTrainedModel, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return model.get_decoder()(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state


def _masses(model: PreTrainedModel, states: Sequence[torch.Tensor], inside: torch.Tensor) -> torch.Tensor:
    """``[layer, prompt]`` from states ``[prompt, d_model]`` per layer; the head's weights are read once for all."""
    return head.mass(model, torch.cat(list(states)), inside).reshape(len(states), -1)


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """State of each prompt's last token, ``[prompt, d_model]``."""
    return states[torch.arange(len(states), device=states.device), mask.sum(-1) - 1]


def _like(out: Any, given: torch.Tensor) -> Any:
    return given if torch.is_tensor(out) else (given, *out[1:])


@contextmanager
def _collected(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """Inside the block, the output of each layer is appended, once the edits of the layer have acted."""
    found: list[torch.Tensor] = []

    def collect(_: torch.nn.Module, __: Any, out: Any) -> None:
        found.append(out if torch.is_tensor(out) else out[0])

    handles: list[RemovableHandle] = [layer.register_forward_hook(collect) for layer in decoder_layers(model)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _hooked(model: PreTrainedModel, layer: int, run: Callable[..., Any]) -> Iterator[None]:
    handle = decoder_layers(model)[layer].register_forward_hook(run)
    try:
        yield
    finally:
        handle.remove()
