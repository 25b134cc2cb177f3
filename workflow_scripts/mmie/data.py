"""The parallel corpus: a user's groups, checked, split, and laid out as one row per text."""

import hashlib
import json
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmie.controls import control_languages, control_texts
from mmie.scripts import MIXED, letters_of, share_in

log = logging.getLogger("mmie")

Group = dict[str, str]
"""One meaning: ``group_id``, ``topic`` and ``register`` (empty when not given), and one text per language."""

KEYS = ("group_id", "topic", "register")
SPLITS = ("train", "tune", "test")
IN_SCRIPT = 0.8
"""Least share of a text's letters in its declared script: a foreign name passes, a swapped column does not."""


def read_groups(path: str | Path, data: dict[str, Any]) -> list[Group]:
    """
    The groups of a JSONL or Parquet file, checked, in the order of the file; texts in Unicode NFC.

    ``data`` is config `data`; every language of ``data["scripts"]`` is a column of the file.

    Raises ValueError naming file, line and group when the file cannot be read, when a group lacks a language, is there
    twice, repeats another group's text (it would leak across splits), or has a text in another script than declared.
    """
    roles(data)
    languages = list(data["scripts"])
    groups = [_group(row, where, languages) for where, row in read_rows(path, "data.corpus")]
    if not groups:
        raise ValueError(
            f"{path} is empty: give it one line per group, with the columns group_id, {', '.join(languages)}."
        )
    _check_unique(groups, languages, path)
    _check_scripts(groups, data["scripts"], path)
    return groups


def read_rows(path: str | Path, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """
    Rows of a JSONL or Parquet file, each with the words for where it stands in it.

    Raises ValueError naming the config's ``key`` when there is no such file, and file and line when it cannot be read.
    """
    path = Path(path)
    readers = {".jsonl": _jsonl, ".parquet": _parquet}
    if path.suffix not in readers:
        raise ValueError(f"config `{key}: {path}`: texts come in a .jsonl or .parquet file, not `{path.suffix}`.")
    if not path.is_file():
        raise ValueError(f"config `{key}: {path}`: there is no such file. Give the path of yours.")
    yield from readers[path.suffix](path)


def corpus_rows(groups: Sequence[Group], data: dict[str, Any]) -> list[dict[str, str]]:
    """
    Rows of corpus.parquet: every text of every group that a split uses, and its controls.

    The order of ``groups`` does not matter. Raises ValueError when there are fewer groups than the splits ask for.
    """
    role_of, splits = roles(data), split_groups(groups, data["splits"], data["seed"])
    controls = control_languages(data)
    used = sorted((g for g in groups if g["group_id"] in splits), key=lambda g: g["group_id"])
    derived = control_texts(used, data)
    rows = []
    for group in used:
        texts = {language: group[language] for language in data["scripts"]}
        scripts = dict(data["scripts"])
        for name, (_, script) in controls.items():
            texts[name], scripts[name] = derived[name, group["group_id"]], script
        rows += [
            {
                "doc_id": f"{group['group_id']}:{language}",
                "group_id": group["group_id"],
                "language": language,
                "script": scripts[language],
                "split": splits[group["group_id"]],
                "role": role_of.get(language, "control"),
                "topic": group["topic"],
                "register": group["register"],
                "text": text,
            }
            for language, text in texts.items()
        ]
    return rows


def split_groups(groups: Iterable[Group], counts: dict[str, int], seed: int) -> dict[str, str]:
    """
    Split of every group that is used, by group_id: exactly ``counts`` groups in train, tune and test.

    Each split holds each topic in proportion, to within one group: the groups of a topic, in the order of a seeded
    hash, are spread evenly over one sequence, and the splits are cut from it one after the other.

    Raises ValueError when there are fewer groups than ``counts`` ask for.
    """
    topics: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for group in groups:
        digest = hashlib.sha256(f"{seed}:{group['group_id']}".encode()).hexdigest()
        topics[group["topic"]].append((digest, group["group_id"]))
    places = []
    for members in topics.values():
        for i, (digest, group_id) in enumerate(sorted(members)):
            places.append(((i + 0.5) / len(members), digest, group_id))
    wanted = [(name, counts[name]) for name in SPLITS]
    asked = sum(count for _, count in wanted)
    if len(places) < asked:
        parts = " + ".join(f"{count} {name}" for name, count in wanted)
        raise ValueError(
            f"config `data.splits` asks for {asked} groups ({parts}) and the corpus has {len(places)}. "
            "Add groups or lower the counts."
        )
    if len(places) > asked:
        log.info("%d of %d groups are in no split (config `data.splits`)", len(places) - asked, len(places))
    names = [name for name, count in wanted for _ in range(count)]
    return {group_id: name for (_, _, group_id), name in zip(sorted(places), names, strict=False)}


def roles(data: dict[str, Any]) -> dict[str, str]:
    """
    Role of every language of the corpus: forget, mixed, retain, neighbour or unseen.

    Raises ValueError when config `data` names a language that has no script, gives one two roles or none, or uses a
    script that does not exist.
    """
    named = [
        ("forget.native", "forget", data["forget"]["native"]),
        ("forget.roman", "forget", data["forget"].get("roman")),
        ("mixed", "mixed", data.get("mixed")),
        ("retain", "retain", data["retain"]),
        *(("neighbours", "neighbour", language) for language in data["neighbours"]),
        *(("unseen", "unseen", language) for language in data["unseen"]),
    ]
    scripts = data["scripts"]
    found: dict[str, str] = {}
    for key, role, language in named:
        if language is None:
            continue
        if language not in scripts:
            raise ValueError(
                f"config `data.{key}: {language}` is not in `data.scripts` ({', '.join(scripts)}). "
                "Add it there with its ISO 15924 script, and to the corpus."
            )
        if language in found:
            raise ValueError(
                f"config `data.{key}: {language}` already has the role {found[language]}. Give it one role."
            )
        found[language] = role
    for language, script in scripts.items():
        if script != MIXED:
            letters_of(script)
        elif found.get(language) != "mixed":
            raise ValueError(f"config `data.scripts.{language}: {MIXED}`: only `data.mixed` may mix scripts.")
        if language not in found:
            raise ValueError(
                f"config `data.scripts.{language}` has no role. Name it under forget, mixed, retain, neighbours or "
                "unseen, or take it out."
            )
        if language in {*KEYS, f"{data['retain']}2"} or ":" in language or language in control_languages(data):
            raise ValueError(f"config `data.scripts.{language}`: this name is taken. Call the column otherwise.")
    return found


def _jsonl(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path}, line {number}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: byte {error.object[error.start]:#04x} at column {error.start + 1} is not UTF-8. "
                "Save the file as UTF-8."
            ) from None
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{where}: not valid JSON ({error.msg} at column {error.colno}). Write one JSON object per line."
            ) from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected a JSON object with one key per column, found {text.strip()[:40]}.")
        yield where, row


def _parquet(path: Path) -> Iterable[tuple[str, dict[str, Any]]]:
    try:
        rows = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as Parquet ({error}). Write it again.") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _group(row: dict[str, Any], where: str, languages: Sequence[str]) -> Group:
    unknown = [key for key in row if key not in (*KEYS, *languages)]
    if unknown:
        raise ValueError(
            f"{where}: unknown column `{unknown[0]}`. Known are {', '.join((*KEYS, *languages))}; "
            "a language is added in config `data.scripts`."
        )
    group_id = row.get("group_id")
    if isinstance(group_id, int) and not isinstance(group_id, bool):
        group_id = str(group_id)
    if not isinstance(group_id, str) or not group_id.strip():
        raise ValueError(f"{where}: group_id is {group_id!r}. Give every group an id.")
    found = {"group_id": group_id.strip()}
    for key in ("topic", "register"):
        value = row.get(key)
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where} (group {group_id}): {key} is {value!r}, expected text.")
        found[key] = (value or "").strip()
    for language in languages:
        if language not in row:
            raise ValueError(
                f"{where} (group {group_id}): column `{language}` is missing. Every group needs all languages."
            )
        found[language] = text_of(row, language, f"{where} (group {group_id})")
    return found


def text_of(row: dict[str, Any], column: str, where: str) -> str:
    """The text of a column, Unicode NFC; raises ValueError when it is missing, empty or no text."""
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where}: `{column}` is empty. Add the text or remove the group.")
    if not isinstance(value, str):
        raise ValueError(f"{where}: `{column}` is {value!r}, expected text.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"{where}: `{column}` has half a character. Write it again.") from None
    return unicodedata.normalize("NFC", value).strip()


def _check_unique(groups: Sequence[Group], languages: Sequence[str], path: str | Path) -> None:
    for group_id, count in Counter(group["group_id"] for group in groups).items():
        if count > 1:
            raise ValueError(f"{path}: group {group_id} is there {count} times. Give every group its own group_id.")
    for language in languages:
        first: dict[str, str] = {}
        for group in groups:
            text = " ".join(group[language].casefold().split())
            if text in first:
                raise ValueError(
                    f"{path}: groups {first[text]} and {group['group_id']} have the same `{language}` text "
                    f"({group[language][:40]!r}), which would leak from one split to another. Remove one of them."
                )
            first[text] = group["group_id"]


def _check_scripts(groups: Sequence[Group], scripts: dict[str, str], path: str | Path) -> None:
    for group in groups:
        for language, script in scripts.items():
            if script != MIXED:
                in_script(group[language], script, f"{path}: `{language}` of group {group['group_id']}")


def in_script(text: str, script: str, what: str) -> None:
    """Raises ValueError when too few of a text's letters are in its declared script."""
    share = share_in(script, text)
    if share < IN_SCRIPT:
        raise ValueError(
            f"{what} ({text[:40]!r}) has {share:.0%} of its letters in {script}. "
            "Correct the text, or the script in config `data.scripts`."
        )
