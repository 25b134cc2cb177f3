"""The grammar of canaries: what data/canaries.yaml says, checked."""

import difflib
import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import regex
import yaml

from mmie.scripts import letter_counts

LANGUAGES = {"native": "Deva", "roman": "Latn"}
"""Column `language` of a canary, and the script of its letters; the names are the keys of config `data.forget`."""
PARTS = ("opening", "middle", "closing")
SHAPES = (("opening", "middle", "closing"), ("opening", "middle"), ("opening", "closing"))
RUN = 7
"""No two documents of one script share this many words in a row."""

_BLANK = "_"
_PUNCTUATION = " ।.,;:!?\"'“”‘’()-–—"
_KEYS = ("syllables", "numbers", "words", "themes", "function_words")
_SLOT_TEXT = regex.compile(r"\{[^{}]*\}")
_PART = regex.compile(r"\{([^{}]*)\}|([^{}]+)")
_SLOT = regex.compile(r"([a-z_]+)(?:\.([a-z]+))?(?:\?([^/?]*)/([^/?]*))?")
_ENDS = {"native": ("।", "!", "?"), "roman": (".", "!", "?")}


class Slot(NamedTuple):
    """
    A place in a frame: a draw from list ``words``, or, where ``forms`` is given, the form that agrees with that draw.

    Slots of the same list and label are the same draw throughout a document.
    """

    words: str
    label: str
    forms: tuple[str, str] | None


Template = tuple[str | Slot, ...]


@dataclass(frozen=True)
class Entry:
    """A word, a phrase or a frame: a template per language, and its gender (``m``, ``f`` or none)."""

    templates: dict[str, Template]
    gender: str = ""


@dataclass(frozen=True)
class Grammar:
    """
    What canaries are made of; see the head of data/canaries.yaml for how it is written.

    ``syllables`` makes names: one syllable of each list, joined. ``frames`` is {theme: {part: frames}}, with the parts
    opening, middle and closing.
    """

    syllables: dict[str, list[list[dict[str, str]]]]
    numbers: dict[str, tuple[int, int]]
    words: dict[str, list[Entry]]
    frames: dict[str, dict[str, list[Entry]]]
    function_words: dict[str, frozenset[str]]


def read_grammar(path: str | Path) -> Grammar:
    """
    The grammar in a YAML file, in Unicode NFC.

    Raises ValueError naming file, entry, fault and remedy when the file is missing or is no YAML, when an entry lacks a
    language or is in the wrong script, when a list is empty, a slot unknown, endless or without the gender that a frame
    asks for, or when the two languages of a frame have different slots.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"config `canaries.grammar: {path}`: there is no such file. Give the path of the grammar.")
    try:
        raw = yaml.safe_load(unicodedata.normalize("NFC", path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML in UTF-8 ({error}). Write it as data/canaries.yaml is.") from None
    try:
        return _parse(raw)
    except _Broken as broken:
        raise ValueError(f"{path}: {broken}") from None


def words_of(text: str) -> list[str]:
    """The words of a text, numbers among them, in lower case and without punctuation."""
    return [word for word in (piece.strip(_PUNCTUATION).lower() for piece in text.split()) if word]


def runs_of(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


class _Broken(Exception):
    """What is wrong with a grammar, where, and the remedy."""


def _parse(raw: Any) -> Grammar:
    if not isinstance(raw, dict) or set(raw) != set(_KEYS):
        raise _Broken(f"a grammar has the keys {', '.join(_KEYS)}, and no others. Write it as data/canaries.yaml is.")
    for key in _KEYS:
        if not isinstance(raw[key], dict) or not raw[key]:
            raise _Broken(f"`{key}` is empty. Fill it, as in data/canaries.yaml.")
    frames = {}
    for name, theme in raw["themes"].items():
        if not isinstance(theme, dict) or set(theme) != set(PARTS):
            raise _Broken(f"`themes.{name}` needs the parts {', '.join(PARTS)}, and no others. Write all three.")
        frames[name] = {
            part: [
                _frame(frame, f"themes.{name}.{part}[{i}]")
                for i, frame in enumerate(_list(found, f"themes.{name}.{part}"))
            ]
            for part, found in theme.items()
        }
    function_words = {}
    for language in LANGUAGES:
        text = raw["function_words"].get(language)
        if not isinstance(text, str) or not text.split():
            raise _Broken(f"`function_words.{language}` is missing. Give the words that are not content words.")
        function_words[language] = frozenset(text.split())
    grammar = Grammar(
        syllables={name: _syllables(lists, f"syllables.{name}") for name, lists in raw["syllables"].items()},
        numbers={name: _range(found, f"numbers.{name}") for name, found in raw["numbers"].items()},
        words={
            name: [_word(entry, f"words.{name}[{i}]") for i, entry in enumerate(_list(found, f"words.{name}"))]
            for name, found in raw["words"].items()
        },
        frames=frames,
        function_words=function_words,
    )
    _check_slots(grammar)
    _check_runs(grammar)
    return grammar


def _list(found: Any, where: str) -> list[Any]:
    if not isinstance(found, list) or not found:
        raise _Broken(f"`{where}` is empty or no list. Give at least one entry.")
    return found


def _range(found: Any, where: str) -> tuple[int, int]:
    if not isinstance(found, list) or [type(n) for n in found] != [int, int] or not 0 <= found[0] <= found[1]:
        raise _Broken(f"`{where}: {found}` is not [least, most]. Give two whole numbers in this order.")
    return found[0], found[1]


def _syllables(lists: Any, where: str) -> list[list[dict[str, str]]]:
    return [
        [_pair(piece, f"{where}[{i}][{j}]")[0] for j, piece in enumerate(_list(options, f"{where}[{i}]"))]
        for i, options in enumerate(_list(lists, where))
    ]


def _word(entry: Any, where: str) -> Entry:
    forms, gender = _pair(entry, where)
    return Entry({language: _template(text, f"{where}.{language}") for language, text in forms.items()}, gender)


def _pair(entry: Any, where: str) -> tuple[dict[str, str], str]:
    """The languages of `native | roman`, and the gender of `native | roman | f`."""
    fields = [field.strip() for field in entry.split("|")] if isinstance(entry, str) else []
    if len(fields) not in (2, 3) or not all(fields):
        raise _Broken(f"`{where}: {entry}` lacks a script. Write it as `native | roman`, or `native | roman | f`.")
    if fields[2:] not in ([], ["m"], ["f"]):
        raise _Broken(f"`{where}: {entry}`: `{fields[2]}` is no gender. Write m or f.")
    forms = dict(zip(LANGUAGES, fields, strict=False))
    for language, text in forms.items():
        _check_script(text, language, f"{where}.{language}")
    return forms, "".join(fields[2:])


def _frame(frame: Any, where: str) -> Entry:
    if not isinstance(frame, dict) or set(frame) != set(LANGUAGES):
        raise _Broken(f"`{where}` is not {{{', '.join(LANGUAGES)}}}: a script is missing or misspelt. Write both.")
    for language, text in frame.items():
        if not isinstance(text, str) or not letter_counts(_SLOT_TEXT.sub("", text)):
            raise _Broken(f"`{where}.{language}` has no words. Write a sentence.")
        _check_script(text, language, f"{where}.{language}")
        if not text.endswith(_ENDS[language]):
            raise _Broken(f"`{where}.{language}` does not end in one of {' '.join(_ENDS[language])}. End the sentence.")
    entry = Entry({language: _template(frame[language], f"{where}.{language}") for language in LANGUAGES})
    native, roman = ({part[:2] for part in entry.templates[k] if isinstance(part, Slot)} for k in LANGUAGES)
    if native != roman:
        odd = ", ".join(sorted(".".join(filter(None, slot)) for slot in native ^ roman))
        raise _Broken(f"`{where}`: slot {odd} is in one script only. Give both scripts the same slots.")
    return entry


def _check_script(text: str, language: str, where: str) -> None:
    # The names of slots are in Latin letters in either script; forms of agreement are not.
    text = regex.sub(r"\{[^{}?]*\??([^{}]*)\}", r" \1 ", text)
    wrong = set(letter_counts(text)) - {LANGUAGES[language]}
    if wrong:
        raise _Broken(
            f"`{where}: {text}` has letters in {', '.join(sorted(wrong))}. Write it in {LANGUAGES[language]}."
        )


def _template(text: str, where: str) -> Template:
    parts: list[str | Slot] = []
    if "{" in _SLOT_TEXT.sub("", text) or "}" in _SLOT_TEXT.sub("", text):
        raise _Broken(f"`{where}: {text}` has a brace without its other. Write slots as {{name}}.")
    for match in _PART.finditer(text):
        if match[1] is None:
            parts.append(match[2])
            continue
        slot = _SLOT.fullmatch(match[1])
        if slot is None:
            raise _Broken(
                f"`{where}`: `{match[0]}` is no slot. Write {{name}}, {{name.label}} or {{name?masculine/feminine}}."
            )
        parts.append(Slot(slot[1], slot[2] or "", None if slot[3] is None else (slot[3], slot[4])))
    return tuple(parts)


def _check_slots(grammar: Grammar) -> None:
    lists: dict[str, Any] = {}
    for kind in (grammar.syllables, grammar.numbers, grammar.words):
        for name in kind:
            if name in lists:
                raise _Broken(f"`{name}` is the name of two lists. Rename one.")
            lists[name] = kind
    entries = [(f"words.{name}[{i}]", e) for name, found in grammar.words.items() for i, e in enumerate(found)]
    entries += [
        (f"themes.{theme}.{part}[{i}]", entry)
        for theme, parts in grammar.frames.items()
        for part, found in parts.items()
        for i, entry in enumerate(found)
    ]
    for where, entry in entries:
        for slot in _slots(entry):
            if slot.words not in lists:
                near = difflib.get_close_matches(slot.words, lists, n=1)
                hint = f"Did you mean `{near[0]}`?" if near else f"Known: {', '.join(sorted(lists))}."
                raise _Broken(f"`{where}`: `{slot.words}` is the name of no list. {hint}")
            if slot.forms and not all(e.gender for e in grammar.words.get(slot.words, [Entry({})])):
                raise _Broken(
                    f"`{where}` agrees with `{slot.words}`, not all of whose entries have a gender. Add `| m` or `| f`."
                )
    uses = {name: {s.words for e in found for s in _slots(e)} for name, found in grammar.words.items()}
    try:
        list(TopologicalSorter(uses).static_order())
    except CycleError as cycle:
        raise _Broken(f"`words`: {' → '.join(cycle.args[1])} contain each other. Break the circle.") from None


def _check_runs(grammar: Grammar) -> None:
    """Two documents may have the same frames: these must not have `RUN` words in a row without a draw in between."""
    for theme, parts in grammar.frames.items():
        for language in LANGUAGES:
            for shape in SHAPES:
                for plan in itertools.product(*(parts[part] for part in shape)):
                    text = " ".join(_with_blanks(entry.templates[language]) for entry in plan)
                    for run in runs_of(words_of(text), RUN):
                        if not any(_BLANK in word for word in run):
                            raise _Broken(
                                f"`themes.{theme}`: frames with the words `{' '.join(run)}` in a row make documents "
                                f"alike, whatever is drawn. Put a slot among them, fewer than {RUN} words apart."
                            )


def _with_blanks(template: Template) -> str:
    return "".join(
        part if isinstance(part, str) else _BLANK if part.forms is None else part.forms[0] for part in template
    )


def _slots(entry: Entry) -> list[Slot]:
    return [part for template in entry.templates.values() for part in template if isinstance(part, Slot)]
