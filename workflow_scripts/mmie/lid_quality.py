"""How often the language detector is right, measured on labelled texts that no rule of it was made by looking at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mmie.data import read_rows, text_of
from mmie.intervals import proportion_interval
from mmie.lid import OTHER, UNDETERMINED, Detector
from mmie.lid_scores import forget_scripts

FORGET, MIXED = "forget", "mixed"
HALVES = ("tune", "measure")
KINDS = {"short": "short", "word": "word"}
"""Kinds of the file that are a kind of the table; every other kind is ``text``."""


def read_labelled(path: str | Path, data: Mapping[str, Any]) -> pd.DataFrame:
    """
    The labelled texts of a JSONL or Parquet file with the columns label, kind and text, each with its half.

    ``label`` is a column of config `data.scripts`, ``und``, ``other``, or ``mixed`` (in two languages at once). A
    text's half is a hash of it.

    Raises ValueError naming file and line for another label, a missing text, or one that is there twice.
    """
    known = {*data["scripts"], UNDETERMINED, OTHER, MIXED}
    rows: dict[str, dict[str, str]] = {}
    for where, row in read_rows(path, "lid.labelled"):
        label, kind, text = text_of(row, "label", where), text_of(row, "kind", where), text_of(row, "text", where)
        if label not in known:
            raise ValueError(f"{where}: label is {label!r}, expected one of {', '.join(sorted(known))}.")
        if text in rows:
            raise ValueError(f"{where}: the text {text[:40]!r} is there twice. Remove one of them.")
        half = HALVES[hashlib.sha256(text.encode()).digest()[0] % 2]
        rows[text] = {"label": label, "kind": KINDS.get(kind, "text"), "half": half, "text": text}
    return pd.DataFrame(list(rows.values()), columns=["label", "kind", "half", "text"])


def quality_rows(labelled: pd.DataFrame, detector: Detector, data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Rows of ``tables.LID_QUALITY``, per half, kind and class.

    The class ``forget`` is the forget language in either script: what LES counts. Code-mixed texts have no one right
    answer, and are left out. A class has no row where it has no positives or no negatives.
    """
    forget = set(forget_scripts(data))
    labelled = labelled[labelled["label"] != MIXED]
    found = labelled.assign(found=[detector.identify(text).language for text in labelled["text"]])
    rows = []
    for (half, kind), part in found.groupby(["half", "kind"]):
        for name in [*sorted(set(part["label"])), FORGET]:
            members = forget if name == FORGET else {name}
            is_class, said = part["label"].isin(members), part["found"].isin(members)
            if is_class.any() and not is_class.all():
                counts = [int(x.sum()) for x in (is_class, is_class & said, ~is_class, ~is_class & said)]
                rows.append({"label": name, "half": half, "kind": kind} | _rates(*counts))
    return rows


def _rates(positives: int, hits: int, negatives: int, false_alarms: int) -> dict[str, Any]:
    low, high = proportion_interval(hits, positives)
    wrong_low, wrong_high = proportion_interval(false_alarms, negatives)
    return {
        "positives": positives,
        "hits": hits,
        "negatives": negatives,
        "false_alarms": false_alarms,
        "sensitivity": hits / positives,
        "sensitivity_low": low,
        "sensitivity_high": high,
        "specificity": 1 - false_alarms / negatives,
        "specificity_low": 1 - wrong_high,
        "specificity_high": 1 - wrong_low,
    }
