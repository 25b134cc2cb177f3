"""Cached base activations of the texts that an arm may be trained on."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie import cache
from mmie.cached_texts import sampled_tokens
from mmie.examples import RETAIN, collate, forgotten, kept, plain, training_rows
from mmie.unlearn import Sources, layer_statistics

PROBED = 24
"""Texts on which the norm of attention sinks is measured."""


def train_states(
    layer: int, given: Sources, control: bool = True, scripts: str = "both", spelled: bool = False
) -> tuple[torch.Tensor, np.ndarray]:
    """
    Activations of the train split, ``[token, d_model]`` bf16 or fp32 as stored, in the forget language (in ``scripts``)
    or in what is `kept`, and the language of each, ``[token]``: of the texts that are sampled (`mmie.cached_texts`).

    Raises ValueError when the layer is not cached.
    """
    if layer not in given.activations or given.index is None:
        raise ValueError(
            f"layer {layer} is not cached (cached: {', '.join(map(str, sorted(given.activations)))}). "
            "Add it to config `layers.candidates`, or choose the arm's `layers` among those."
        )
    tokens = sampled_tokens(given.index, given.corpus)
    languages = [*forgotten(given.data, scripts), *kept(given.data, control, spelled)]
    wanted = tokens[(tokens["split"] == "train") & tokens["language"].isin(languages)]
    states = cache.reading([str(given.activations[layer])], given.index)[layer]
    return states[torch.tensor(wanted["row"].to_numpy())], wanted["language"].to_numpy()


def sink_norms(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, given: Sources, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Layer → ``max_norm`` ``[1]`` of edit kind ``hook``: the norm above which a token is an attention sink."""
    rows = training_rows(given.corpus, given.data, control=False)
    texts = rows["text"].iloc[:: max(1, len(rows) // PROBED)]
    probe = collate([plain(tokenizer, text, RETAIN, 32) for text in texts], 0, tokenizer)
    return {n: torch.tensor([seen.max_norm]) for n, seen in layer_statistics(model, [probe], layers).items()}
