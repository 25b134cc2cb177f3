"""What an attack is given, and what several attacks do: find texts that are held out, and relearn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.arms._training import Training
from mmie.attacks._relearning import Relearning
from mmie.edits import Edit, attached_edits
from mmie.examples import RETAIN, Batch, collate, plain
from mmie.losses import Reference
from mmie.unlearn import layer_statistics, optimise


@dataclass(frozen=True)
class Target:
    """An edited model that is attacked, and what the attacker has."""

    edits: list[Edit]
    """The edits of the arm, in order."""
    corpus: pd.DataFrame
    """All rows of corpus.parquet; `held_out` says which may be used."""
    data: dict[str, Any]
    """Config `data`: which column plays which part."""
    candidates: tuple[int, ...]
    """Config `layers.candidates`."""
    fasttext: str
    """Config `lid.fasttext`: the detector's model."""
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    """The base model and its tokenizer; not every attack needs them."""

    def edited_layers(self) -> tuple[int, ...]:
        """Decoder layers that the edits act on; config `layers.candidates` where the edits name none."""
        return tuple(sorted({n for edit in self.edits for n in edit.layers})) or self.candidates


def forget_column(target: Target, script: str) -> str:
    """Column of the forget language in ``script``, native or roman. Raises ValueError when it has none."""
    column = target.data["forget"].get(script)
    if column is None:
        raise ValueError(
            f"an attack asks for the forget language in `script: {script}`, and config `data.forget` has none. "
            "Switch the attack off, or take the other script."
        )
    return str(column)


def train_texts(target: Target, language: str, count: int) -> list[str]:
    """The first ``count`` texts of the train split in ``language``, by id: parallel in all languages."""
    corpus = target.corpus
    rows = corpus[(corpus["split"] == "train") & (corpus["language"] == language)].sort_values("group_id")
    return [str(text) for text in rows["text"].iloc[:count]]


def sink_norms(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, float]:
    """Layer → norm above which a token is an attention sink, from ``texts``."""
    batch = collate([plain(tokenizer, text, RETAIN, 32) for text in texts], 0, tokenizer)
    return {n: seen.max_norm for n, seen in layer_statistics(model, [batch], layers).items()}


def held_out(target: Target, language: str, count: int, seed: int) -> list[str]:
    """
    ``count`` texts of the tune split in ``language``, in an order drawn with ``seed``: fewer are the first of more.

    Raises ValueError when there are not as many.
    """
    corpus = target.corpus
    rows = corpus[(corpus["split"] == "tune") & (corpus["language"] == language)].sort_values("doc_id")
    if len(rows) < count:
        raise ValueError(
            f"an attack asks for {count} texts in {language}, and the tune split has {len(rows)}. Lower its parameter "
            "`texts` in config `attacks`, or raise config `data.splits.tune`."
        )
    order = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [str(text) for text in rows["text"].iloc[order]]


def relearned(target: Target, params: Relearning, language: str, seed: int) -> list[Edit]:
    """
    A LoRA trained to predict held-out texts in ``language``, on top of the edited model, whose edits are frozen.

    Likelihood of the texts alone, nothing is kept: what a finetuning user does (2406.13356). Both halves of a
    batch are to be predicted; `optimise` knows them as forget and retain.
    """
    from peft import LoraConfig

    from mmie.adapters import fitted

    texts = held_out(target, language, params.texts, seed)
    model, tokenizer = target.load()
    batches = _batches(texts, tokenizer, params, seed)
    training = Training(
        objective="redirect", retain="ce", retain_weight=1.0, steps=params.steps, lr=params.lr, warmup=2
    )
    config = LoraConfig(r=params.rank, lora_alpha=2 * params.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with attached_edits(model, target.edits):
        found, history = fitted(
            model,
            config,
            seed,
            lambda weights: optimise(model, weights, batches, Reference(), training, seed, label="relearn"),
        )
    first, last = (history[i]["loss"] / 2 for i in (0, -1))
    facts = {
        "r": params.rank, "lora_alpha": 2 * params.rank, "language": language, "texts": params.texts,
        "first_nll": round(first, 4), "last_nll": round(last, 4),
    }  # fmt: skip
    return [Edit("lora", tuple(range(len(model.get_decoder().layers))), found, facts)]


def _batches(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, params: Relearning, seed: int) -> list[Batch]:
    """Batches that go through the texts in random order, again and again."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(texts)) for _ in range(-(-params.steps * params.batch // len(texts)))])
    examples = [plain(tokenizer, texts[i], RETAIN, params.max_tokens) for i in order]
    starts = range(0, params.steps * params.batch, params.batch)
    return [collate(examples[start : start + params.batch], params.batch // 2, tokenizer) for start in starts]
