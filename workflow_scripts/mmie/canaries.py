"""
Canaries: unique synthetic documents in the forget language, some planted in the model, some never seen.

Membership tests on unknown pretraining data are near random (arXiv 2402.07841), because members and non-members differ
by date or source and not by membership. Here both come from one generator, and membership is a draw.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmie.canary_grammar import LANGUAGES, RUN, SHAPES, Grammar, Template, runs_of, words_of

WORDS = (24, 45)
"""Fewest and most words of a document."""
SHARED = 0.5
"""… nor more than this share of the content words of the one that has fewer."""
TRIES = 100
"""Times that a document is drawn again before the grammar counts as too small."""


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
        runs = set(runs_of(words, RUN))
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


def _new_document(grammar: Grammar, language: str, rng: random.Random, seen: _Seen, count: int) -> str:
    plan: list[Template] = []
    alike = misfits = 0
    while alike < TRIES and misfits < TRIES:
        # Frames are kept where words resemble: or frames that soon repeat would be rarer among late documents.
        plan = plan or _plan(grammar, language, rng)
        text = _say(grammar, language, plan, rng)
        words = words_of(text)
        if not WORDS[0] <= len(words) <= WORDS[1]:
            plan, misfits = [], misfits + 1
        elif seen.add(words):
            return text
        else:
            alike += 1
    fault, remedy = (
        ("resemble earlier documents", "Give frames more slots or slots more words, or lower config `canaries.members`")
        if alike == TRIES
        else (f"do not have {WORDS[0]} to {WORDS[1]} words", "Give frames other lengths")
    )
    raise ValueError(
        f"canaries: the grammar is too small for {count} documents in one script ({language}): {TRIES} draws in a row "
        f"{fault}, the last `{text}`. {remedy}."
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
