"""The second register: retain-language texts unlike the corpus, to tell retention from adaptation to its style."""

import hashlib
from pathlib import Path
from typing import Any

from mmie.data import in_script, read_rows, text_of

TUNE_SHARE = 5
"""One text in so many is for tuning, the others are for testing; none is trained on."""


def register_language(data: dict[str, Any]) -> str:
    """Name of the second register's column, for example ``en2``."""
    return f"{data['retain']}2"


def register_rows(path: str | Path, data: dict[str, Any]) -> list[dict[str, str]]:
    """
    Rows of corpus.parquet from a JSONL or Parquet file with the columns ``group_id`` and `register_language`; other
    columns are for readers.

    Raises ValueError naming file and line when a text is missing, there twice, or in another script than the retain
    language's.
    """
    language, script = register_language(data), data["scripts"][data["retain"]]
    rows: dict[str, dict[str, str]] = {}
    first: dict[str, str] = {}
    for where, row in read_rows(path, "data.second_register"):
        group_id, text = text_of(row, "group_id", where), text_of(row, language, where)
        if group_id in rows:
            raise ValueError(f"{where}: group {group_id} is there twice. Give every text its own group_id.")
        same = " ".join(text.casefold().split())
        if same in first:
            raise ValueError(f"{where}: the text of group {group_id} is that of {first[same]}. Remove one of them.")
        first[same] = group_id
        in_script(text, script, f"{where} (group {group_id}): `{language}`")
        rows[group_id] = {
            "doc_id": f"{group_id}:{language}",
            "group_id": group_id,
            "language": language,
            "script": script,
            "split": "test",
            "role": "register",
            "topic": str(row.get("topic") or ""),
            "register": str(row.get("register") or ""),
            "text": text,
        }
    order = sorted(rows, key=lambda g: hashlib.sha256(f"{data['seed']}:{g}".encode()).digest())
    for group_id in order[: len(order) // TUNE_SHARE]:
        rows[group_id]["split"] = "tune"
    return [rows[group_id] for group_id in sorted(rows)]
