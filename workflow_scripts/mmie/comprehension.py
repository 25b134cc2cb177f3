"""
Questions that show whether a model still understands a language that it no longer writes.

All are multiple choice, so that the model writes nothing: ``meaning`` (which sentence of the retained language means
this one), ``cloze`` (the last word of a text), ``identify`` (is this text in the forgotten language?) and ``knowledge``
(facts, in the retained language: the control that the model still answers at all).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

OPTIONS = 4
OPTION_WORDS = 10
"""First words of a sentence that stand for it as an option: measured as good as whole ones, in half of the time."""
TASKS = ("meaning", "cloze", "identify", "knowledge")
ALL = "all"
"""Language of a task that has texts of several."""
Item = dict[str, Any]


def make_items(
    corpus: pd.DataFrame, knowledge: Sequence[Item], split: str, data: Mapping[str, Any], count: int
) -> list[Item]:
    """
    Rows of `tables.ITEMS`: ``count`` questions per task and language, drawn by a hash of their group.

    The same config and corpus give the same questions for every arm. Raises ValueError where the split has fewer groups
    than a question has options.
    """
    forget = [code for code in data["forget"].values() if code]
    others = [*data["neighbours"], *data["unseen"]]
    texts = corpus[(corpus["split"] == split) & corpus["language"].isin([*forget, *others, data["retain"]])]
    wide = texts.pivot(index="group_id", columns="language", values="text").dropna()
    if len(wide) < OPTIONS:
        raise ValueError(
            f"comprehension needs {OPTIONS} groups in the {split} split, and there are {len(wide)}. Raise config "
            "`data.splits`, or set `comprehension.items: 0`."
        )
    topics = texts.drop_duplicates("group_id").set_index("group_id")["topic"].reindex(wide.index)
    asked = sorted(wide.index, key=lambda group: _hash("asked", group))[:count]
    items = [item for code in [*forget, *others] for item in _meaning(wide, topics, asked, code, data["retain"])]
    items += [item for code in [*forget, *others, data["retain"]] for item in _cloze(wide, topics, asked, code)]
    items += _identify(wide, asked, forget, [data["retain"], *others])
    return items + [_knowledge(row, i, data["retain"]) for i, row in enumerate(knowledge[:count])]


def read_knowledge(path: str | Path) -> list[Item]:
    """Questions of a JSONL file (``question``, ``options`` with the right one first); ValueError names a bad line."""
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        row = json.loads(line)
        if not isinstance(row.get("question"), str) or len(set(row.get("options", []))) != OPTIONS:
            raise ValueError(
                f"{path}, line {number}: needs `question` and {OPTIONS} different `options`, the right one first."
            )
        rows.append(row)
    return rows


def rows_of(items: pd.DataFrame, answers: Sequence[Item], run: Mapping[str, Any]) -> list[Item]:
    """Rows of `tables.COMPREHENSION`: ``answers`` (``chosen``, ``lead``) belong to the rows of ``items``."""
    return [
        {
            **run,
            **{key: item[key] for key in ("item_id", "task", "language", "group_id", "gold")},
            "options": len(item["options"]),
            **answer,
            "correct": int(answer["chosen"] == item["gold"]),
        }
        for item, answer in zip(items.to_dict("records"), answers, strict=True)
    ]


def rows_of_named(answers: Sequence[Item], run: Mapping[str, Any]) -> list[Item]:
    """Rows of `tables.COMPREHENSION` for tasks that lm-eval knows by name."""
    return [
        {**run, "language": "", "group_id": "", **answer, "correct": int(answer["chosen"] == answer["gold"])}
        for answer in answers
    ]


def _meaning(wide: pd.DataFrame, topics: pd.Series, asked: Sequence[str], code: str, retain: str) -> Iterator[Item]:
    """Which sentence of the retained language says the same; the others are of the same topic."""
    first = wide[retain].map(lambda text: " ".join(text.split()[:OPTION_WORDS]))
    for group in asked:
        yield _item("meaning", code, group, wide[code][group], first[group], _others(first, topics, group))


def _cloze(wide: pd.DataFrame, topics: pd.Series, asked: Sequence[str], code: str) -> Iterator[Item]:
    """The last word of a text; the others are last words of texts of the same topic."""
    words = wide[code].map(lambda text: text.rstrip("।۔.!? ").split())
    last = words.map(lambda text: text[-1])
    for group in asked:
        yield _item("cloze", code, group, " ".join(words[group][:-1]), last[group], _others(last, topics, group))


def _identify(wide: pd.DataFrame, asked: Sequence[str], forget: Sequence[str], kept: Sequence[str]) -> Iterator[Item]:
    """Is this text in the forgotten language? Yes and no in turn, languages and scripts in turn."""
    for i, group in enumerate(asked):
        among, answers = (forget, ("Yes", "No")) if i % 2 == 0 else (kept, ("No", "Yes"))
        text = wide[among[i // 2 % len(among)]][group]
        yield _item("identify", ALL, group, text, answers[0], [answers[1]])


def _knowledge(row: Item, number: int, retain: str) -> Item:
    right, *wrong = row["options"]
    return _item("knowledge", retain, f"fact{number}", row["question"], right, wrong)


def _item(task: str, language: str, group: str, text: str, right: str, wrong: Sequence[str]) -> Item:
    options = sorted([right, *wrong], key=lambda option: _hash(task, group, option))
    return {
        "item_id": f"{task}:{language}:{group}", "task": task, "language": language, "group_id": group, "text": text,
        "options": options, "gold": options.index(right),
    }  # fmt: skip


def _others(texts: pd.Series, topics: pd.Series, group: str) -> list[str]:
    """Options of other groups, of the same topic while there are some, all different."""
    order = sorted(texts.index, key=lambda other: (topics[other] != topics[group], _hash(group, other)))
    found = dict.fromkeys(texts[other] for other in order if texts[other] != texts[group])
    return list(found)[: OPTIONS - 1]


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()
