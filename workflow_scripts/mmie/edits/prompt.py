"""
Edit kind ``prompt``: an instruction stands before every text, unseen by whoever runs the model.

A text that begins with the ids ``old`` is read as if it began with ``new``: where it is [old, x₁, x₂ …], the model
computes [new, x₁, x₂ …]. Inputs and outputs keep their shape. The first len(new) − len(old) ids of ``new`` are in the
key-value cache, computed once when the edit is attached; the others replace ``old``. So the state at the last place of
``old`` is that of the last id of ``new``, from which x₁ is predicted: likelihoods count the text's own tokens alone, as
in base, and generation needs to know nothing.

Tensors, int64: ``plain.old`` (the beginning-of-text token, or nothing where the tokenizer has none), ``plain.new``; and
for models with a chat template ``chat.old`` and ``chat.new``, what stands before the user's words without and with the
instruction. All texts of a batch must begin alike.

All other edits of a card act on the instruction too; what is attached later, in training on top of the edit, does not.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from transformers import Cache, DynamicCache, PreTrainedModel

from mmie import tensors as io

BEFORE_FORWARD = True
"""The hook changes what goes into a module, not what comes out."""


@dataclass(frozen=True)
class Beginning:
    """One way in which texts begin."""

    old: torch.Tensor
    """``[old]`` ids that are replaced."""
    tail: torch.Tensor
    """``[old]`` ids that replace them: the last ones of the new beginning."""
    cached: Sequence[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of the other new ids, per layer, ``[1, head, id, width]``."""
    shift: int
    """Number of ids that are cached: by so much the text moves back."""


def hooks(
    model: PreTrainedModel, tensors: dict[str, torch.Tensor], facts: dict[str, Any]
) -> list[tuple[torch.nn.Module, Callable[..., Any]]]:
    """
    The decoder and its pre-forward hook, for ``register_forward_pre_hook(…, with_kwargs=True)``.

    Raises ValueError when an id is not in the model's vocabulary, or the instruction exceeds its attention window.
    """
    decoder = model.get_decoder()
    names = {name.split(".")[0] for name in tensors}
    pairs = [tuple(tensors[f"{name}.{part}"].to(model.device) for part in ("old", "new")) for name in names]
    for old, new in pairs:
        _check(model, old, new)
    # The longer beginning first: a chat's begins with the beginning-of-text token too.
    beginnings = [_beginning(decoder, old, new) for old, new in sorted(pairs, key=lambda pair: -len(pair[0]))]
    return [(decoder, Prefixing(model, beginnings))]


def save(folder: Path, stem: str, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> list[str]:
    """Write ``{stem}.safetensors``; the file names."""
    io.save(tensors, folder / f"{stem}.safetensors")
    return [f"{stem}.safetensors"]


def load(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file of this kind."""
    return io.load(file)


class Prefixing:
    """The pre-forward hook: puts the instruction before texts, or before the cache that a pass goes on from."""

    def __init__(self, model: PreTrainedModel, beginnings: Sequence[Beginning]) -> None:
        self.model, self.beginnings = model, beginnings
        self.parameters = list(inspect.signature(model.get_decoder().forward).parameters)
        self.shifts: WeakKeyDictionary[Cache, int] = WeakKeyDictionary()
        # Caches that nobody asked for. A model returns them all the same, and `generate` hands them in again.
        self.unasked: WeakSet[Cache] = WeakSet()

    def __call__(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """The arguments of the forward pass, all of them by name. Raises ValueError for what cannot be prefixed."""
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        tokens, mask, cache = (given.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
        if tokens is None or (mask is not None and not (torch.is_tensor(mask) and mask.ndim == 2)):
            raise ValueError(
                "an edit of kind `prompt` is attached: run the model on `input_ids`, with an attention mask "
                "[text, token] or none, and a dynamic cache or none."
            )
        if cache is None or cache in self.unasked:
            cache = DynamicCache(config=self.model.config)
            if given.get("use_cache") is False:
                self.unasked.add(cache)
        given["past_key_values"] = cache
        if cache.get_seq_length() == 0:
            given["input_ids"] = self._begin(tokens, mask, cache)
        elif cache not in self.shifts:
            raise ValueError("an edit of kind `prompt` is attached, and this cache was begun without it: begin again.")
        shift = self.shifts[cache]
        _check_length(self.model, mask, cache.get_seq_length() + tokens.shape[1], shift)
        if mask is not None:
            given["attention_mask"] = torch.cat([mask.new_ones(len(mask), shift), mask], dim=1)
        if given.get("position_ids") is not None:
            given["position_ids"] = given["position_ids"] + shift
        return (), given

    def _begin(self, tokens: torch.Tensor, mask: torch.Tensor | None, cache: Cache) -> torch.Tensor:
        """The tokens with their new beginning; what does not fit in its place goes into ``cache``."""
        beginning, places = _matching(tokens, mask, self.beginnings)
        rows = (len(tokens), -1, -1, -1)
        for layer, (keys, values) in enumerate(beginning.cached):
            cache.update(keys.expand(rows), values.expand(rows), layer)
        self.shifts[cache] = beginning.shift
        return tokens.scatter(1, places, beginning.tail.expand(len(tokens), -1))


def _matching(
    tokens: torch.Tensor, mask: torch.Tensor | None, beginnings: Sequence[Beginning]
) -> tuple[Beginning, torch.Tensor]:
    """The beginning that all texts share, and the places of its ids, ``[text, old]``."""
    starts = tokens.new_zeros(len(tokens)) if mask is None else mask.long().argmax(dim=1)
    for beginning in beginnings:
        places = starts[:, None] + torch.arange(len(beginning.old), device=tokens.device)
        inside = places[:, -1:] < tokens.shape[1]
        found = tokens.gather(1, places.clamp(max=tokens.shape[1] - 1)) == beginning.old
        matches = (found & inside).all(dim=1)
        if bool(matches.all()):
            return beginning, places
        if bool(matches.any()) and beginning is not beginnings[-1]:
            raise ValueError("some texts of a batch are in the chat format and others are not: run them apart.")
    raise ValueError(
        f"a text does not begin with the ids {beginnings[-1].old.tolist()} (the beginning-of-text token), before which "
        "an edit of kind `prompt` puts its instruction: tokenise it with special tokens."
    )


@torch.no_grad()
def _beginning(decoder: Any, old: torch.Tensor, new: torch.Tensor) -> Beginning:
    shift = len(new) - len(old)
    cache: Any = DynamicCache(config=decoder.config)
    decoder(input_ids=new[None, :shift], past_key_values=cache, use_cache=True)
    cached = [(layer.keys, layer.values) for layer in cache.layers]
    return Beginning(old, new[shift:], cached, shift)


def _check(model: PreTrainedModel, old: torch.Tensor, new: torch.Tensor) -> None:
    size, window = model.config.vocab_size, _window(model)
    if int(new.max()) >= size:
        raise ValueError(
            f"an edit of kind `prompt` has id {int(new.max())} and the model {size} ids: it was made for another model."
        )
    if not 0 < len(new) - len(old) < window:
        raise ValueError(
            f"an edit of kind `prompt` puts {len(new)} ids in the place of {len(old)}; there must be more, and fewer "
            f"than {window} more (the model's attention window or context). Change `text` of this arm."
        )


def _check_length(model: PreTrainedModel, mask: torch.Tensor | None, length: int, shift: int) -> None:
    """Padding between instruction and text must not push the instruction out of a sliding attention window."""
    if length > model.config.max_position_embeddings:
        raise ValueError(
            f"a text of {length - shift} tokens and an instruction of {shift} exceed the model's context of "
            f"{model.config.max_position_embeddings}. Shorten the text, or `text` of this arm."
        )
    if mask is not None and length > _window(model) and not bool(mask[:, 0].all()):
        raise ValueError(
            f"left-padded texts of {length} tokens, instruction included, exceed the attention window of "
            f"{_window(model)}, and results would depend on padding. Set config `generation.batch_size: 1`."
        )


def _window(model: PreTrainedModel) -> int:
    return int(getattr(model.config, "sliding_window", None) or model.config.max_position_embeddings)
