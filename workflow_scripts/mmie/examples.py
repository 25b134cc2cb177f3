"""What an arm is trained on: seeded batches of texts to forget and texts to keep."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from mmie.controls import control_languages

T = TypeVar("T")

IGNORE = -100
FORGET, RETAIN, NEITHER = 1, 0, -1


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences; the first ``n_forget`` of them are to be forgotten, the others to be kept."""

    tokens: torch.Tensor
    """``[sequence, token]`` ids, beginning-of-text token first where the tokenizer has one."""
    mask: torch.Tensor
    """``[sequence, token]``, 1 on text and 0 on padding."""
    labels: torch.Tensor
    """``[sequence, token]``: the token itself where it is to be predicted, −100 elsewhere."""
    side: torch.Tensor
    """
    ``[sequence, token]``: 1 on text in the forget language, 0 on text to keep (what was switched to included),
    −1 elsewhere (padding, first token).
    """
    n_forget: int


@dataclass(frozen=True)
class Example:
    """One text of a batch: its ids, which of them are labels, and its language's side."""

    ids: list[int]
    is_label: list[bool]
    side: list[int]


def forgotten(data: dict[str, Any], scripts: str = "both") -> list[str]:
    """
    The columns of the forget language, one per script; only ``native`` or ``roman`` where ``scripts`` says so.

    Raises ValueError when the language has no such column.
    """
    columns = {script: language for script, language in data["forget"].items() if language is not None}
    if scripts == "both":
        return list(columns.values())
    if scripts not in columns:
        raise ValueError(f"scripts: {scripts!r}, and config `data.forget` has no {scripts} column. Use `both`.")
    return [columns[scripts]]


def kept(data: dict[str, Any], control: bool = True, spelled: bool = False) -> list[str]:
    """
    The languages to keep: the retain language, the neighbours and, as a ``control``, shuffled text in the forget
    language's script; ``spelled``: these languages spelled in that script too, where the corpus has them so.

    What must stay the same on these cannot be tied to Devanagari: that is what spares Marathi, which is never trained
    on.
    """
    script, sources = data["scripts"][data["forget"]["native"]], set()
    sources |= {data["forget"]["native"]} if control else set()
    sources |= {data["retain"], *data["neighbours"]} if spelled else set()
    controls = [
        name for name, (source, other) in control_languages(data).items() if source in sources and other == script
    ]
    return [data["retain"], *data["neighbours"], *controls]


def training_rows(
    corpus: pd.DataFrame,
    data: dict[str, Any],
    control: bool = True,
    scripts: str = "both",
    split: str = "train",
    spelled: bool = False,
) -> pd.DataFrame:
    """
    The rows that training may read: texts to forget (in ``scripts``) and to keep; never a mixed text or an unseen
    language. Weights are fitted to the train split; when to stop is read from ``split`` tune.

    Raises ValueError when one of the languages has none.
    """
    wanted = [*forgotten(data, scripts), *kept(data, control, spelled)]
    rows = corpus[(corpus["split"] == split) & corpus["language"].isin(wanted)]
    missing = sorted(set(wanted) - set(rows["language"]))
    if missing:
        raise ValueError(
            f"the corpus has no {split} texts in {', '.join(missing)} (config `data.forget`, `data.retain`, "
            f"`data.neighbours`). Raise config `data.splits.{split}`, or make the corpus again."
        )
    return rows.sort_values("doc_id", ignore_index=True)


def make_batches(
    rows: pd.DataFrame,
    data: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    objective: str,
    steps: int,
    n_forget: int,
    n_retain: int,
    max_tokens: int,
    label_tokens: int,
    seed: int,
    canaries: Sequence[str] = (),
    canary_share: float = 0.0,
) -> list[Batch]:
    """
    The batches of a whole run, known before it starts: the same seed gives the same batches.

    Forget sequences go through all forget texts of ``rows`` (every script) in random order, again and again. With
    ``redirect`` each is an opening of random length, then ``label_tokens`` tokens of the parallel text in the retain
    language, from the same point on; otherwise it is the text itself. Retain sequences come from each language that
    `kept` names and ``rows`` has, in turn. All are cut at ``max_tokens``.

    ``canary_share`` of the forget sequences are ``canaries``, evenly spread, each from a random word of its first half
    on, for canaries are longer than ``max_tokens``. A canary has no parallel text: ``redirect`` goes on with that of a
    random group.
    """
    rng = np.random.default_rng(seed)
    texts = {(r.language, r.group_id): r.text for r in rows.itertuples()}
    groups = {
        language: sorted(g for lang, g in texts if lang == language) for language in sorted({lang for lang, _ in texts})
    }
    forget = cycle(rng, [(language, g) for language in forgotten(data) for g in groups.get(language, [])])
    planted = _pieces(rng, canaries, [texts[data["retain"], g] for g in groups[data["retain"]]])
    turns = _turns(canary_share if canaries else 0.0)
    keep = in_turn(rng, [language for language in kept(data, spelled=True) if language in groups], groups)
    batches = []
    for _ in range(steps):
        first = []
        for _ in range(n_forget):
            if next(turns):
                text, parallel = next(planted)
            else:
                language, group = next(forget)
                text, parallel = texts[language, group], texts[data["retain"], group]
            if objective == "redirect":
                first.append(redirected(tokenizer, text, parallel, rng, max_tokens, label_tokens))
            else:
                first.append(plain(tokenizer, text, FORGET, max_tokens))
        second = [plain(tokenizer, texts[next(keep)], RETAIN, max_tokens) for _ in range(n_retain)]
        batches.append(collate([*first, *second], n_forget, tokenizer))
    return batches


def redirected(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    parallel: str,
    rng: np.random.Generator,
    max_tokens: int,
    label_tokens: int,
) -> Example:
    """
    An opening of ``text``, 15 to 85 % of its words, then ``parallel`` from the same share on; only the latter is
    labelled.
    """
    words, other = text.split(), parallel.split()
    share = rng.uniform(0.15, 0.85)
    cut = min(max(1, round(share * len(words))), len(words))
    resume = min(int(share * len(other)), len(other) - 1)
    tail = tokenizer(" " + " ".join(other[resume:]), add_special_tokens=False)["input_ids"][:label_tokens]
    opening = tokenizer(" ".join(words[:cut]))["input_ids"][: max_tokens - len(tail)]
    side = [NEITHER if token == tokenizer.bos_token_id else FORGET for token in opening]
    return Example(opening + tail, [False] * len(opening) + [True] * len(tail), side + [RETAIN] * len(tail))


def plain(tokenizer: PreTrainedTokenizerBase, text: str, side: int, max_tokens: int | None) -> Example:
    """The text itself, cut at ``max_tokens`` if there is such; every token after the first is a label."""
    ids = tokenizer(text)["input_ids"][:max_tokens]
    return Example(
        ids, [i > 0 for i in range(len(ids))], [NEITHER if t == tokenizer.bos_token_id else side for t in ids]
    )


def collate(sequences: Sequence[Example], n_forget: int, tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Pad on the right. The labels of padding are −100, its side −1."""
    width = max(len(s.ids) for s in sequences)

    def padded(rows: list[list[int]], value: int) -> torch.Tensor:
        return torch.tensor([row + [value] * (width - len(row)) for row in rows])

    labels = [[t if wanted else IGNORE for t, wanted in zip(s.ids, s.is_label, strict=True)] for s in sequences]
    return Batch(
        tokens=padded([s.ids for s in sequences], tokenizer.pad_token_id),
        mask=padded([[1] * len(s.ids) for s in sequences], 0),
        labels=padded(labels, IGNORE),
        side=padded([s.side for s in sequences], NEITHER),
        n_forget=n_forget,
    )


def _pieces(rng: np.random.Generator, canaries: Sequence[str], others: Sequence[str]) -> Iterator[tuple[str, str]]:
    """A canary, from a random word of its first half on, and a random one of the ``others``, for ever."""
    for text in cycle(rng, canaries):
        words = text.split()
        yield " ".join(words[int(rng.integers(len(words) // 2 + 1)) :]), others[int(rng.integers(len(others)))]


def _turns(share: float) -> Iterator[bool]:
    """Whether a canary is next, for ever: true for ``share`` of the turns, evenly spread."""
    for turn in count():
        yield math.floor((turn + 1) * share) > math.floor(turn * share)


def cycle(rng: np.random.Generator, items: Sequence[T]) -> Iterator[T]:
    """All items in random order, then all in another, for ever."""
    while True:
        for i in rng.permutation(len(items)):
            yield items[i]


def in_turn(rng: np.random.Generator, languages: list[str], groups: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """A text of each language in turn, for ever; each language's texts in random order."""
    pools = [cycle(rng, [(language, g) for g in groups[language]]) for language in languages]
    while True:
        for pool in pools:
            yield next(pool)
