"""The tables of the audit, as the report shows them: caption, header and rows as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mmie import audit, summary
from mmie.labels import (
    attack_name,
    families,
    family_name,
    forget_name,
    interval,
    language_name,
    number,
    script_name,
    sentence,
)  # fmt: skip

Data = Mapping[str, Any]
Table = dict[str, Any]
TITLES = {"meaning": "Meaning, of four", "cloze": "Last word, of four", "knowledge": "Facts, of four"}


def all_tables(
    understood: pd.DataFrame,
    inside: pd.DataFrame,
    attacked: pd.DataFrame,
    passes: pd.DataFrame,
    ratings: pd.DataFrame,
    arms: Sequence[str],
    data: Data,
) -> list[Table]:
    """Those that have something to show, in the order of the report."""
    found = [
        comprehension(understood, arms, data),
        depths(inside, arms, data),
        membership(attacked),
        confusion(passes, arms, data),
        judge(ratings, arms, data),
    ]
    return [table for table in found if table["rows"]]


def comprehension(understood: pd.DataFrame, arms: Sequence[str], data: Data) -> Table:
    """Right answers per task and arm; where base itself is too weak, the row says so."""
    cells = summary.lookup(understood, "arm", "task", "language")
    rows = []
    for task, language in dict.fromkeys(zip(understood["task"], understood["language"], strict=True)):
        base = cells["base", task, language]
        rows.append(
            [
                _task_name(task, language, data),
                *(_cell(cells.get((arm, task, language))) for arm in arms),
                number(base["chance"]),
                "too weak to tell" if base["weak"] else "yes",
            ]
        )
    caption = (
        "Comprehension: share of right answers, with 95 % Wilson intervals. A task tells nothing of any arm where base "
        f"itself does not do clearly better than guessing, or matches fewer than {audit.ENOUGH:g} of the meanings."
    )
    return {"caption": caption, "header": ["Task", *arms, "Guessing", "Can base tell?"], "rows": rows}


def depths(inside: pd.DataFrame, arms: Sequence[str], data: Data) -> Table:
    """From which layer on an arm's states no longer bring the language back in base, and the masses at the end."""
    if not len(inside):
        return {"caption": "", "header": [], "rows": []}
    found, masses = audit.depths(inside), audit.masses(inside)
    last = masses[(masses["measure"] == "patched") & (masses["layer"] == masses["layer"].max())]
    ends = dict(zip(last["arm"], last["mass"], strict=True))
    forget = forget_name(data)
    rows = [[arm, number(ends[arm]), "never" if found[arm] is None else str(found[arm])] for arm in arms if arm in ends]
    script = script_name(data["scripts"][data["forget"]["native"]])
    caption = (
        f"Inside the model: probability of {script} after an opening in {forget}, and the layer from which on base, "
        f"given the arm's states, keeps less than half of its own."
    )
    return {"caption": caption, "header": ["Arm", f"{script} next", "Gone from layer"], "rows": rows}


def membership(attacked: pd.DataFrame) -> Table:
    """Every membership attack: AUC, true positives at 1 % false ones, privleak."""
    rows = [
        [
            row["arm"], str(row["seed"]), sentence(attack_name(row["attack"])), str(row["n"]),
            f"{number(row['auc'])} ({interval(row['low'], row['high'])})",
            f"{number(row['tpr'])} ({interval(row['tpr_low'], row['tpr_high'])})", number(row["privleak"]),
        ]
        for row in attacked.to_dict("records")
    ]  # fmt: skip
    caption = (
        "Membership attacks on the planted documents: AUC with DeLong intervals, share found at 1 % false alarms, and "
        "privleak, the AUC's distance from that of the pretrained model, which saw none of them, relative to it. "
        "“Reference” is an attacker who has the pretrained model to compare with."
    )
    header = ["Arm", "Seed", "Attack", "Members", "AUC", "Found at 1 %", "Privleak"]
    return {"caption": caption, "header": header, "rows": rows}


def confusion(passes: pd.DataFrame, arms: Sequence[str], data: Data) -> Table:
    """Line and word pass rates per prompt family."""
    cells = summary.lookup(passes, "arm", "family")
    shown = [family for family in families(data) if family in set(passes["family"])]
    rows = [
        [
            sentence(family_name(family, data)),
            *(
                f"{number(row['line'])} / {number(row['word'])}" if (row := cells.get((arm, family))) else "–"
                for arm in arms
            ),
        ]
        for family in shown
    ]
    caption = (
        "Language confusion: share of continuations in the language of the prompt, and share of their words that are; "
        f"on prompts in {forget_name(data)} a good arm has neither."
    )
    return {"caption": caption, "header": ["Prompts", *arms], "rows": rows}


def judge(ratings: pd.DataFrame, arms: Sequence[str], data: Data) -> Table:
    """Mean rating per prompt family and arm."""
    cells = summary.lookup(ratings, "arm", "family")
    shown = [family for family in families(data) if family in set(ratings["family"])]
    rows = [
        [
            sentence(family_name(family, data)),
            *(f"{number(row['rating'])} of {row['n']}" if (row := cells.get((arm, family))) else "–" for arm in arms),
        ]
        for family in shown
    ]
    caption = (
        "A language model's rating of continuations, 1 (no connected text) to 5 (a sensible continuation), mean of so "
        "many. No verdict rests on it."
    )
    return {"caption": caption, "header": ["Prompts", *arms], "rows": rows}


def _task_name(task: str, language: str, data: Data) -> str:
    if task == "identify":
        return f"Is it {forget_name(data)}?"
    if task not in TITLES:
        return task
    return f"{TITLES[task]}: {language_name(language)}"


def _cell(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else f"{number(row['value'])} ({interval(row['low'], row['high'])})"
