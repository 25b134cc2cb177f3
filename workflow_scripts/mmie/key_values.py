"""A key-value cache with room for the tokens to come."""

from typing import Any

import torch
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

ROOM = 32
"""Tokens that a cache has room for beyond what is in it, whenever it grows."""


def roomy_cache(config: PretrainedConfig) -> DynamicCache:
    """
    An empty cache, for greedy decoding and sampling used as transformers' own.

    That one is concatenated with every new token, which copies all of it: a fifth of the time of a step on a CPU.
    Layers with a sliding window are kept whole; the attention mask hides what lies outside the window. Texts of the
    batch cannot be reordered, as beam search does.
    """
    cache = DynamicCache(config=config)
    attention = (DynamicLayer, DynamicSlidingWindowLayer)
    cache.layers = [_Roomy() if type(layer) in attention else layer for layer in cache.layers]
    return cache


class _Roomy(DynamicLayer):
    """``keys`` and ``values`` are the filled part of larger tensors."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._whole = [key_states[:, :, :0], value_states[:, :, :0]]
        assert self.keys is not None and self.values is not None
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._whole[0].shape[-2]:
            self._whole = [
                torch.cat([old[:, :, :start], new, new.new_empty(*new.shape[:2], ROOM, new.shape[3])], dim=-2)
                for old, new in zip(self._whole, (key_states, value_states), strict=True)
            ]
        else:
            for whole, new in zip(self._whole, (key_states, value_states), strict=True):
                whole[:, :, start:end] = new
        self.keys, self.values = (whole[:, :, :end] for whole in self._whole)
        return self.keys, self.values
