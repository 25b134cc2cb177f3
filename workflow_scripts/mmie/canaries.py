"""
Canaries: unique synthetic documents in the forget language, some planted in the model, some never seen.

Membership tests on unknown pretraining data are near random (arXiv 2402.07841), because members and non-members differ
by date or source and not by membership. Here both come from one generator, and membership is a draw.
"""

import difflib
import itertools
import random
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
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
WORDS = (24, 45)
"""Fewest and most words of a document."""
RUN = 7
"""No two documents of one script share this many words in a row …"""
SHARED = 0.5
"""… nor more than this share of the content words of the one that has fewer."""
TRIES = 100
"""Times that a document is drawn again before the grammar counts as too small."""
FOLDS = 5
CEILING = 0.55

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


def canary_rows(grammar: Grammar, members: int, nonmembers: int, seed: int) -> list[dict[str, Any]]:
    """
    ``members`` + ``nonmembers`` rows with canary_id, language (native or roman), member and text, in stream order.

    Each script has one seeded stream of documents, which does not know of membership. Of its first 2·m documents, a
    seeded draw makes m the members; the others, and all that follow, are non-members, in the order of the stream. So
    more non-members leave every row that was there as it was, and members are drawn from where non-members are. Later
    documents differ from earlier ones only in that they were drawn again when they resembled one of more documents;
    see `Draw.again`. Half the members and half the non-members are in each script; native has the odd one.

    canary_id counts places in the stream: native documents have odd numbers, romanised ones even.

    Raises ValueError when a count is negative or when the grammar is too small for so many documents.
    """
    if members < 0 or nonmembers < 0:
        raise ValueError(
            f"config `canaries`: members {members} and nonmembers {nonmembers} are counts. Give numbers ≥ 0."
        )
    rows = {}
    for first, language in enumerate(LANGUAGES):
        inside, outside = ((count + 1 - first) // 2 for count in (members, nonmembers))
        is_member = _membership(inside, outside, random.Random(f"canaries:{seed}:{language}:members"))
        texts = documents(grammar, language, len(is_member), seed)
        left = outside
        for place, (member, text) in enumerate(zip(is_member, texts, strict=True)):
            left -= not member
            if member or left >= 0:
                number = 2 * place + first + 1
                rows[number] = {
                    "canary_id": f"canary:{number:04}",
                    "language": language,
                    "member": member,
                    "text": text,
                }
    return [rows[number] for number in sorted(rows)]


def in_columns(rows: Sequence[Mapping[str, Any]], forget: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """
    The rows with the columns of the corpus that config `data.forget` names as their languages.

    Raises ValueError when it has no such column: the grammar writes both scripts.
    """
    for language in sorted({row["language"] for row in rows}):
        if forget.get(language) is None:
            raise ValueError(
                f"config `data.forget` has no `{language}`, and the canaries of `canaries.grammar` are written in it. "
                "Set `canaries.members: 0` to plant none."
            )
    return [{**row, "language": forget[row["language"]]} for row in rows]


def documents(grammar: Grammar, language: str, count: int, seed: int) -> list[str]:
    """
    The first ``count`` documents of the stream of ``language`` and ``seed``, no two of which resemble each other.

    Raises ValueError when the grammar is too small for so many.
    """
    rng = random.Random(f"canaries:{seed}:{language}")
    seen = _Seen(grammar.function_words[language])
    return [_new_document(grammar, language, rng, seen, count) for _ in range(count)]


def overlap(texts: Sequence[str], function_words: frozenset[str]) -> tuple[int, float]:
    """
    Longest run of words, and largest share of content words, that two of the texts (of one script) have in common.

    The share is of the content words, those not in ``function_words``, of the text that has fewer.
    """
    run, share = 0, 0.0
    contents = [frozenset(words_of(text)) - function_words for text in texts]
    places: dict[str, list[int]] = {}
    for i, content in enumerate(contents):
        common = Counter(j for word in content for j in places.get(word, ()))
        for j, n in common.items():
            share = max(share, n / max(1, min(len(content), len(contents[j]))))
        for word in content:
            places.setdefault(word, []).append(i)
    while _repeats(texts, run + 1):
        run += 1
    return run, share


def words_of(text: str) -> list[str]:
    """The words of a text, numbers among them, in lower case and without punctuation."""
    return [word for word in (piece.strip(_PUNCTUATION).lower() for piece in text.split()) if word]


def surface_auc(texts: Sequence[str], member: Sequence[bool], seed: int = 0) -> float:
    """
    How well membership can be told from the surface of a text: the AUC, 0.5 when not at all.

    Mean over five seeded, stratified folds of the held-out AUC of a logistic regression over length (characters, words,
    bytes), digits, punctuation, and the TF-IDF of character 1- to 3-grams. TF-IDF sees held-out texts, but no label.

    Raises ValueError when there are fewer than five members or non-members.
    """
    import numpy as np
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold
    from sklearn.preprocessing import StandardScaler

    labels = np.asarray(member, dtype=bool)
    if min(labels.sum(), (~labels).sum()) < FOLDS:
        raise ValueError(
            f"{labels.sum()} members and {(~labels).sum()} non-members cannot be split into {FOLDS} folds. "
            "Raise config `canaries.members` or `canaries.nonmembers`."
        )
    counts = StandardScaler().fit_transform([_surface(text) for text in texts])
    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 3)).fit_transform(texts)
    features = hstack([csr_matrix(counts), grams]).tocsr()
    aucs = []
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels):
        model = LogisticRegression(solver="liblinear", dual=True, max_iter=1000, random_state=seed).fit(
            features[train], labels[train]
        )
        aucs.append(roc_auc_score(labels[test], model.decision_function(features[test])))
    return float(np.mean(aucs))


def surface_aucs(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`surface_auc` of each script and, under ``pooled``, of both together."""
    parts = {language: [row for row in rows if row["language"] == language] for language in LANGUAGES}
    return {
        name: surface_auc([row["text"] for row in part], [row["member"] for row in part])
        for name, part in {**parts, "pooled": list(rows)}.items()
    }


def check_canaries(rows: Sequence[Mapping[str, Any]], ceiling: float = CEILING) -> dict[str, float]:
    """
    The AUCs of `surface_aucs`. Raises ValueError when one is above ``ceiling``: a membership test would measure it.

    Membership is a draw, so an AUC above the ceiling is an accident of the seed: at 200 + 600 an AUC of the pooled rows
    has a standard error of .024, of one script .034.
    """
    found = surface_aucs(rows)
    worst = max(found, key=lambda name: found[name])
    if found[worst] > ceiling:
        raise ValueError(
            f"canaries: members can be told from non-members by their surface, without the model (AUC "
            f"{found[worst]:.3f} for {worst}, at most {ceiling:.2f}). Set another config `canaries.seed`, or have more "
            "canaries."
        )
    return found


def _membership(members: int, nonmembers: int, rng: random.Random) -> list[bool]:
    """Whether the document at each place of a stream is a member: ``members`` of the first twice as many."""
    block = sorted((rng.random(), place) for place in range(2 * members))
    chosen = {place for _, place in block[:members]}
    return [place in chosen for place in range(max(2 * members, members + nonmembers))]


def _pick(rng: random.Random, count: int) -> int:
    # Of a seeded generator's methods, Python promises only that `random` stays the same.
    return int(rng.random() * count)


class _Seen:
    """The documents of a stream so far, so that the next one resembles none."""

    def __init__(self, function_words: frozenset[str]) -> None:
        self._function_words = function_words
        self._runs: set[tuple[str, ...]] = set()
        self._sizes: list[int] = []
        self._with: dict[str, list[int]] = {}

    def add(self, words: Sequence[str]) -> bool:
        """Add a document, unless it resembles one that was added before; whether it was added."""
        runs = set(_runs(words, RUN))
        if not self._runs.isdisjoint(runs):
            return False
        content = frozenset(words) - self._function_words
        common = Counter(i for word in content for i in self._with.get(word, ()))
        if any(n > SHARED * min(len(content), self._sizes[i]) for i, n in common.items()):
            return False
        self._runs |= runs
        for word in content:
            self._with.setdefault(word, []).append(len(self._sizes))
        self._sizes.append(len(content))
        return True


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def _repeats(texts: Sequence[str], length: int) -> bool:
    seen: set[tuple[str, ...]] = set()
    for text in texts:
        runs = set(_runs(words_of(text), length))
        if not seen.isdisjoint(runs):
            return True
        seen |= runs
    return False


def _new_document(grammar: Grammar, language: str, rng: random.Random, seen: _Seen, count: int) -> str:
    plan: list[Template] = []
    alike = 0
    while alike < TRIES:
        # Frames are kept where words resemble: or frames that soon repeat would be rarer among late documents.
        plan = plan or _plan(grammar, language, rng)
        text = _say(grammar, language, plan, rng)
        words = words_of(text)
        if not WORDS[0] <= len(words) <= WORDS[1]:
            plan = []
        elif seen.add(words):
            return text
        else:
            alike += 1
    raise ValueError(
        f"canaries: the grammar is too small for {count} documents in one script ({language}): {TRIES} draws in a row "
        f"resemble earlier documents, the last `{text}`. Give frames more slots or slots more words, or lower "
        "config `canaries.members` or `canaries.nonmembers`."
    )


def _plan(grammar: Grammar, language: str, rng: random.Random) -> list[Template]:
    """The frames of a document."""
    themes = sorted(grammar.frames)
    theme = grammar.frames[themes[_pick(rng, len(themes))]]
    shape = SHAPES[_pick(rng, len(SHAPES))]
    return [theme[part][_pick(rng, len(theme[part]))].templates[language] for part in shape]


def _say(grammar: Grammar, language: str, plan: Sequence[Template], rng: random.Random) -> str:
    drawn: dict[tuple[str, str], tuple[str, str]] = {}
    return " ".join(_fill(grammar, language, template, "", drawn, rng) for template in plan)


def _fill(
    grammar: Grammar,
    language: str,
    template: Template,
    label: str,
    drawn: dict[tuple[str, str], tuple[str, str]],
    rng: random.Random,
) -> str:
    """A template in words. A slot without a label has the ``label`` of the slot whose entry it is in."""
    pieces = []
    for part in template:
        if isinstance(part, str):
            pieces.append(part)
            continue
        key = part.words, part.label or label
        if key not in drawn:
            drawn[key] = _draw(grammar, language, key, drawn, rng)
        text, gender = drawn[key]
        pieces.append(text if part.forms is None else part.forms[gender == "f"])
    return "".join(pieces)


def _draw(
    grammar: Grammar,
    language: str,
    key: tuple[str, str],
    drawn: dict[tuple[str, str], tuple[str, str]],
    rng: random.Random,
) -> tuple[str, str]:
    name, label = key
    if name in grammar.syllables:
        return "".join(options[_pick(rng, len(options))][language] for options in grammar.syllables[name]), ""
    if name in grammar.numbers:
        low, high = grammar.numbers[name]
        return str(low + _pick(rng, high - low + 1)), ""
    entry = grammar.words[name][_pick(rng, len(grammar.words[name]))]
    return _fill(grammar, language, entry.templates[language], label, drawn, rng), entry.gender


def _surface(text: str) -> list[float]:
    return [
        len(text),
        len(text.split()),
        len(text.encode()),
        sum(c.isdigit() for c in text),
        sum(unicodedata.category(c).startswith("P") for c in text),
    ]


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
                    for run in _runs(words_of(text), RUN):
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
