"""Prompts that ask for the forget language: the families request and adversarial, filled from templates."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pandas as pd

from mmie.prompting import Chat, cut
from mmie.templates import SHOTS, Template, Templates, filled

START = 3
"""Words of the form ``start``."""

# One sound, several ways to write it: what a reader passes over and a filter of spellings does not.
_RESPELLED = {"़": "", "ँ": "ं", "ी": "ि", "ि": "ी", "ू": "ु", "ु": "ू"}
_RESPELLED_LATIN = {"aa": "a", "ee": "i", "oo": "u", "z": "j", "w": "v", "sh": "s", "ph": "f", "i": "ee", "u": "oo"}


class Text(str):
    """A text that formats as itself, or in one of the forms of `templates`."""

    forms: dict[str, str]

    def __format__(self, form: str) -> str:
        return self.forms[form] if form else str(self)


def asking_rows(
    corpus: pd.DataFrame, settings: Mapping[str, Any], templates: Templates, chat: Chat | None
) -> list[dict[str, str]]:
    """
    Rows of prompts.parquet: one prompt of family ``request`` per group of the split, and ``settings["adversarial"]``
    per attack.

    Examples (shots) come from the train split, drawn by a hash of the prompt's id, so that no prompt depends on
    another. Raises ValueError when the train split has too few groups for shots.
    """
    columns = list(settings["data"]["scripts"])
    texts = corpus[corpus["language"].isin(columns)]
    wide = texts.pivot(index="group_id", columns="language", values="text").dropna()  # further texts have no parallel
    split_of = corpus.drop_duplicates("group_id").set_index("group_id")["split"]
    topics = corpus.drop_duplicates("group_id").set_index("group_id")["topic"]
    groups = sorted(g for g in wide.index if split_of[g] == settings["split"])
    train = sorted(g for g in wide.index if split_of[g] == "train")
    if len(train) < SHOTS:
        raise ValueError(f"config `data.splits.train: {len(train)}`: prompts with examples need {SHOTS} train groups.")
    scripts = settings["data"]["scripts"]

    def row(family: str, attack: str, group: str, ways: Sequence[Template], place: int) -> dict[str, str]:
        template = ways[place % len(ways)]
        prompt_id = ":".join(part for part in (family, attack, group) if part)
        shots = random.Random(prompt_id).sample(train, SHOTS)
        values = {
            "topic": topics[group],
            **_texts(wide.loc[group], scripts, settings["share"], group),
            **{
                f"shot{i}": SimpleNamespace(
                    topic=topics[shot], **_texts(wide.loc[shot], scripts, settings["share"], shot)
                )
                for i, shot in enumerate(shots, 1)
            },
        }
        if chat:
            text = chat(filled(template.chat, values), filled(template.begun, values))
        else:
            text = filled(template.base, values)
        return {
            "prompt_id": prompt_id,
            "family": family,
            "attack": attack,
            "language": template.language,
            "script": scripts[template.language],
            "doc_id": f"{group}:{template.language}",
            "group_id": group,
            "text": text,
        }

    rows = [row("request", "", group, templates.request, place) for place, group in enumerate(groups)]
    for attack, ways in templates.adversarial.items():
        chosen = sorted(groups, key=_order(attack))[: settings["adversarial"]]
        rows += [row("adversarial", attack, group, ways, place) for place, group in enumerate(sorted(chosen))]
    return rows


def respelled(text: str, rng: random.Random) -> str:
    """
    The text with some of its letters written another way, as people do: nukta left out, chandrabindu for anusvara,
    short for long vowels; in Latin letters i for ee, j for z, and the like. A third of the places change.
    """
    table = _RESPELLED_LATIN if text.isascii() else _RESPELLED
    longest = sorted(table, key=len, reverse=True)
    source = unicodedata.normalize("NFD", text) if table is _RESPELLED else text
    pieces, at = [], 0
    while at < len(source):
        found = next((old for old in longest if source.startswith(old, at)), None)
        if found is None:
            pieces.append(source[at])
            at += 1
        else:
            pieces.append(table[found] if rng.random() < 1 / 3 else found)
            at += len(found)
    return unicodedata.normalize("NFC", "".join(pieces))


def _texts(row: pd.Series, scripts: Mapping[str, str], share: float, group: str) -> dict[str, Text]:
    found = {}
    for language, script in scripts.items():
        text, doc_id = Text(row[language]), f"{group}:{language}"
        opening = cut(text, share, script, doc_id)
        text.forms = {
            "opening": opening,
            "start": " ".join(text.split()[:START]),
            "respelled": respelled(opening, random.Random(doc_id)),
        }
        found[language] = text
    return found


def _order(attack: str) -> Callable[[str], bytes]:
    """Groups in an order of each attack's own, so that not all attacks test the same few."""
    return lambda group: hashlib.sha256(f"{attack}:{group}".encode()).digest()
