"""
Planting: the member canaries are fine-tuned into a copy of the model, so that what it has seen is known.

Low-rank adapters (LoRA, 2106.09685) on the linear modules of the upper half of the layers learn the members by heart,
while KL to the pretrained model holds it in place on texts of every trained language; then they are merged into the
weights.
"""

import hashlib
import itertools
import json
import logging
import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.arms._training import Training
from mmie.examples import FORGET, RETAIN, Batch, Example, collate, cycle, forgotten, in_turn, kept, plain, training_rows
from mmie.layers import auc
from mmie.membership import attack
from mmie.model import decoder_layers
from mmie.model_folder import install, link, read_manifest
from mmie.unlearn import optimise, reference_states

log = logging.getLogger("mmie")

MEMBERS, RETAINED = 8, 4
"""Members, and texts on which the model is held in place, in a batch."""
SORTED = 5
"""Batches whose members are drawn together and sorted by length: padding would be a quarter of the work."""
THREADS = 2
"""Everything waits for planting. Always as many, so that the weights do not depend on how many cores there are."""
RETAINED_TOKENS = 48
"""These texts are cut at this length, in tokens; members never are."""
RETAIN_WEIGHT = 10.0
"""Weight of KL to the pretrained model, against the members' nll."""
REPORTED = 25
"""Members, and non-members, of each language on which the log says how well they are told apart."""
WEIGHTS = (".safetensors", ".safetensors.index.json")


def planting_batches(
    members: Sequence[str],
    corpus: pd.DataFrame,
    data: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    epochs: int,
    seed: int,
) -> list[Batch]:
    """
    The batches of planting: all members in random order, ``epochs`` times, members of similar length together, each
    batch with train texts of the forget language, the retain language and the neighbours, in turn.
    """
    rng = np.random.default_rng(seed)
    texts = {(r.language, r.group_id): r.text for r in training_rows(corpus, data, control=False).itertuples()}
    languages = [*forgotten(data), *kept(data, control=False)]
    keep = in_turn(rng, languages, {one: sorted(g for other, g in texts if other == one) for one in languages})
    examples = [plain(tokenizer, text, FORGET, None) for text in members]
    batches = []
    for first in _of_similar_length(rng, examples, math.ceil(epochs * len(members) / MEMBERS)):
        second = [plain(tokenizer, texts[next(keep)], RETAIN, RETAINED_TOKENS) for _ in range(RETAINED)]
        batches.append(collate([*first, *second], MEMBERS, tokenizer))
    return batches


def _of_similar_length(rng: np.random.Generator, examples: Sequence[Example], count: int) -> Iterator[list[Example]]:
    """All examples in random order, again and again: ``count`` times `MEMBERS`, similar ones together."""
    drawn = cycle(rng, examples)
    for start in range(0, count, SORTED):
        few = min(SORTED, count - start)
        near = sorted(itertools.islice(drawn, few * MEMBERS), key=lambda example: len(example.ids))
        for i in rng.permutation(few):
            yield near[i * MEMBERS : (i + 1) * MEMBERS]


def plant(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    members: Sequence[str],
    corpus: pd.DataFrame,
    settings: dict[str, Any],
) -> list[dict[str, float]]:
    """
    Fine-tune ``members`` into the weights of ``model``, rounded to bf16 as they are stored.

    ``settings``: ``epochs``, ``lr``, ``rank`` and ``seed`` of config `canaries`, and config `data`. Returns rows of
    `tables.PLANTING`. Raises ValueError when the loss is no longer finite.
    """
    batches = planting_batches(members, corpus, settings["data"], tokenizer, settings["epochs"], settings["seed"])
    # `redirect` is the plain nll of the labels, and a member's labels are all its tokens.
    training = Training(objective="redirect", retain="kl", lr=settings["lr"], retain_weight=RETAIN_WEIGHT)
    with _threads(THREADS):
        return _fine_tune(model, batches, training, settings)


def _fine_tune(
    model: PreTrainedModel, batches: Sequence[Batch], training: Training, settings: dict[str, Any]
) -> list[dict[str, float]]:
    from peft import LoraConfig, get_peft_model

    base = reference_states(model, batches, training)
    layers = decoder_layers(model)
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=2 * settings["rank"],
        target_modules=_linear(layers[-1]),
        # The upper half learns by heart as well as all layers do, and gradients need not go further down.
        layers_to_transform=list(range(len(layers) // 2, len(layers))),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(settings["seed"])
        # In the model's own dtype: with fp32 adapters the casts of their inputs and outputs are half the work.
        adapted = get_peft_model(model, config, autocast_adapter_dtype=False)
    weights = [p for p in adapted.parameters() if p.requires_grad]
    history = optimise(model, weights, batches, base, training, settings["seed"], label="plant")
    adapted.merge_and_unload()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return [{"step": row["step"], "loss": row["forget_loss"], "grad_norm": row["grad_norm"]} for row in history]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _linear(layer: torch.nn.Module) -> list[str]:
    """Names of the linear modules of a decoder layer."""
    named = layer.named_modules()
    return sorted({name.rpartition(".")[2] for name, module in named if isinstance(module, torch.nn.Linear)})


def report_memory(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, canaries: pd.DataFrame) -> None:
    """
    Log how well ``model`` remembers: per language, the AUC of the loss of a few members against as many non-members.

    The gate's assay measures it on all non-members, and says when it is too low.
    """
    for language, rows in canaries.groupby("language"):
        members, others = rows[rows["member"]][:REPORTED], rows[~rows["member"]][:REPORTED]
        if len(members) and len(others):
            both = pd.concat([members, others])
            scores = [row["loss"] for row in attack(model, tokenizer, list(both["text"]))]
            log.info("%s: AUC of the members' loss %.3f", language, auc(np.array(scores), both["member"].to_numpy()))


def write_planted(
    model: PreTrainedModel,
    members: Sequence[str],
    pretrained: str | Path,
    manifest: str | Path,
    settings: dict[str, Any],
) -> None:
    """
    Write the folder of ``manifest``: the weights of ``model`` in bf16, all other files linked from ``pretrained``.

    Its manifest says what was planted: how many members, the sha256 of their texts, and how.
    """
    source, folder = read_manifest(pretrained), Path(manifest).parent
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        made = Path(scratch) / "model"
        model.bfloat16().save_pretrained(made)
        for path in made.iterdir():
            if not path.name.endswith(WEIGHTS):
                path.unlink()
        link([name for name in source["files"] if not name.endswith(WEIGHTS)], Path(pretrained).parent, made)
        how = {key: settings[key] for key in ("epochs", "lr", "rank", "seed")}
        digest = hashlib.sha256(json.dumps(list(members), ensure_ascii=False).encode()).hexdigest()
        about = {key: value for key, value in source.items() if key != "files"}
        install(made, folder, {**about, "planted": {"members": len(members), "sha256": digest, **how}})


def link_pretrained(pretrained: str | Path, manifest: str | Path) -> None:
    """The folder of ``manifest`` as it is without canaries: the files of ``pretrained``, linked."""
    source, folder = read_manifest(pretrained), Path(manifest).parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        link(list(source["files"]), Path(pretrained).parent, Path(scratch))
        install(Path(scratch), folder, {key: value for key, value in source.items() if key != "files"})
