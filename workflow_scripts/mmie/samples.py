"""Which continuations a reader is shown: the same prompts for every arm, drawn evenly over the prompt families."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmie.labels import families
from mmie.summary import lookup


def choose(prompts: pd.DataFrame, count: int, seed: int, data: Mapping[str, Any]) -> list[str]:
    """
    Prompt ids, ``count`` of them or all there are: one of every family in turn, the forgotten ones first.

    A family's prompts come in the order of a seeded hash, so that adding families or prompts changes few of the others.
    """
    queues = {
        family: sorted(prompts.loc[prompts["family"] == family, "prompt_id"], key=lambda name: _hash(seed, name))
        for family in families(data)
    }
    rounds = range(max(map(len, queues.values()), default=0))
    drawn = [(family, queue[i]) for i in rounds for family, queue in queues.items() if i < len(queue)]
    taken = {prompt for _, prompt in drawn[:count]}
    return [prompt for queue in queues.values() for prompt in queue if prompt in taken]


def side_by_side(
    prompt_ids: Sequence[str], arms: Sequence[str], generations: pd.DataFrame, lid: pd.DataFrame
) -> dict[str, list[dict[str, Any]]]:
    """
    For every prompt its continuation by every arm that has one: arm, text, language, les.

    Of several seeds the first is shown; of several samples the first; of the variants the one that was not attacked.
    """
    keys = ["arm", "seed", "variant", "prompt_id", "sample"]
    rows = generations.merge(lid[[*keys, "language", "les"]], on=keys, validate="one_to_one")
    rows = rows[(rows["variant"] == "plain") & (rows["sample"] == 0) & rows["prompt_id"].isin(list(prompt_ids))]
    first = rows.sort_values("seed").drop_duplicates(["prompt_id", "arm"])
    found = lookup(first, "prompt_id", "arm")
    return {
        prompt: [
            {"arm": arm, "text": printable(row["text"]), "language": row["language"], "les": int(row["les"])}
            for arm in arms
            if (row := found.get((prompt, arm)))
        ]
        for prompt in prompt_ids
    }


def printable(text: str) -> str:
    """The text on one line, with what cannot be seen made visible: ⏎ for a line break, � for a control character."""
    lines = "\n".join(text.strip().splitlines())
    shown = (
        " ⏎ " if c == "\n" else " " if c == "\t" else "�" if unicodedata.category(c) in ("Cc", "Cs") else c
        for c in lines
    )
    return "".join(shown)


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
