"""Texts beyond the parallel corpus, from files or from a hub: more to train on, cut, filtered and deduplicated."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from datasketch import MinHash, MinHashLSH

from mmie import stage
from mmie.data import IN_SCRIPT, read_rows, roles, text_of
from mmie.lid import Detector
from mmie.scripts import share_in

log = logging.getLogger("mmie")

SHORTEST, LONGEST = 8, 60
"""Words of a piece: shorter ones are menus and titles, longer ones are cut."""
PERMUTATIONS = 64
NGRAM = 5


def large_rows(corpus: pd.DataFrame, data: Mapping[str, Any], detector: Detector) -> list[dict[str, str]]:
    """
    Rows of corpus.parquet, all of the train split, from config `data.texts`; each piece is a group of its own.

    A piece is kept when it is in the script and, by the detector, in the language of its column, and resembles neither
    a piece before it nor any text of ``corpus`` (of any split, so that no held-out text is trained on). Resemblance is
    estimated by MinHash (Broder 1997) over character 5-grams, at config `data.checks.similarity`.

    Raises ValueError when a source cannot be read, or ends before it has given as many pieces as asked for.
    """
    role_of = roles(dict(data))
    rows = []
    for language, source in data["texts"].items():
        key = f"data.texts.{language}"
        documents = _from_hub(source, key) if data["source"] == "hub" else _from_files(source, key)
        known = corpus.loc[corpus["language"] == language, "text"]
        kept = _kept(_pieces(documents), known, language, data, detector)
        count, wanted = 0, source["count"]
        for count, piece in enumerate(stage.track(islice(kept, wanted), wanted, f"texts, {language}"), 1):
            group_id = f"{language}-{count:07d}"
            rows.append(
                {
                    "doc_id": f"{group_id}:{language}",
                    "group_id": group_id,
                    "language": language,
                    "script": data["scripts"][language],
                    "split": "train",
                    "role": role_of[language],
                    "topic": "",
                    "register": data["source"],
                    "text": piece,
                }
            )
        if count < wanted:
            raise ValueError(
                f"config `{key}.count: {wanted}`: the source gave {count} pieces of {SHORTEST} to {LONGEST} words that "
                "are in the language and unlike each other. Lower the count or name more sources."
            )
    return rows


def _pieces(documents: Iterable[str]) -> Iterator[str]:
    """Paragraphs, long ones cut between words into parts of equal length."""
    for document in documents:
        for line in unicodedata.normalize("NFC", document).splitlines():
            words = line.split()
            parts = -(-len(words) // LONGEST)
            for i in range(parts):
                piece = words[i * len(words) // parts : (i + 1) * len(words) // parts]
                if len(piece) >= SHORTEST:
                    yield " ".join(piece)


def _kept(
    pieces: Iterable[str], known: Iterable[str], language: str, data: Mapping[str, Any], detector: Detector
) -> Iterator[str]:
    index = MinHashLSH(threshold=data["checks"]["similarity"], num_perm=PERMUTATIONS)
    dropped = dict.fromkeys(("script", "language", "duplicate"), 0)
    for i, text in enumerate(known):
        index.insert(f"corpus {i}", _sketch(text))
    try:
        for i, piece in enumerate(pieces):
            sketch = _sketch(piece)
            if share_in(data["scripts"][language], piece) < IN_SCRIPT:
                dropped["script"] += 1
            elif detector.identify(piece).language != language:
                dropped["language"] += 1
            elif index.query(sketch):
                dropped["duplicate"] += 1
            else:
                index.insert(i, sketch)
                yield piece
    finally:
        log.info("%s: left out %s", language, ", ".join(f"{count} by {why}" for why, count in dropped.items()))


def _sketch(text: str) -> MinHash:
    sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
    folded = " ".join(text.casefold().split())
    sketch.update_batch({folded[i : i + NGRAM].encode() for i in range(max(1, len(folded) - NGRAM + 1))})
    return sketch


def _from_files(source: Mapping[str, Any], key: str) -> Iterator[str]:
    """Documents of JSONL and Parquet files (a column) and of text files (each file is one document)."""
    for path in source["files"]:
        if Path(path).suffix == ".txt":
            try:
                yield Path(path).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"config `{key}.files`: {path} cannot be read ({error}).") from None
        else:
            for where, row in read_rows(path, f"{key}.files"):
                yield text_of(row, source.get("column", "text"), where)


def _from_hub(source: Mapping[str, Any], key: str) -> Iterator[str]:
    """Documents of a data set at a pinned revision, streamed: only what is read is downloaded."""
    import datasets

    try:
        rows = datasets.load_dataset(
            source["dataset"],
            source.get("name"),
            split=source.get("split", "train"),
            revision=source["revision"],
            streaming=True,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"config `{key}.dataset: {source['dataset']}` cannot be opened: {error} "
            "Check its name, configuration and revision, and the network."
        ) from error
    column = source.get("column", "text")
    for row in rows:
        if column not in row:
            raise ValueError(
                f"config `{key}.column: {column}`: the data set has the columns {', '.join(row)}. Name one."
            )
        yield row[column]
