"""
Derived controls: texts in the forget language's scripts that are not in the language.

What responds to the language but not to its script stays quiet on them.
"""

import random
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import regex

from mmie import brahmic
from mmie.pronunciation import in_devanagari

SHUFFLED_ROMAN = "latin_shuffled"
ROUNDS = 200

_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+")
_SYLLABLE = regex.compile(r"\p{L}[\p{M}\u200c\u200d]*|[\p{M}\u200c\u200d]+")
_VOWEL_NAME = regex.compile(r"LETTER (SHORT |CANDRA |OPEN )*([AEIOU]+$|VOCALIC )")
_VIRAMA, _NUKTA = 9, 7  # canonical combining classes


def control_languages(data: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """
    The controls of a language pair: name → (language they are made from, ISO 15924 script).

    For Hindi and its neighbours: ``hi_shuffled``, ``latin_shuffled`` (where there is a romanised column), and in
    Devanagari, where that is the native script, English (``en_deva``) and the neighbours whose own script is laid out
    like it (``pa_deva``, ``bn_deva``).
    """
    native, roman, scripts = data["forget"]["native"], data["forget"].get("roman"), data["scripts"]
    found = {f"{native}_shuffled": (native, scripts[native])}
    if scripts[native] == "Deva":
        others = [language for language in data["neighbours"] if scripts[language] in brahmic.BLOCKS]
        found |= {f"{name}_deva": (name, "Deva") for name in [*(["en"] if data["retain"] == "en" else []), *others]}
    if roman is not None:
        found[SHUFFLED_ROMAN] = (roman, scripts[roman])
    return found


def control_texts(groups: Sequence[Mapping[str, str]], data: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Text of every control of every group, by (control, group_id); the same for the same corpus and seed."""
    found = {}
    for name, (source, script) in control_languages(data).items():
        if script != data["scripts"][source]:
            for group in groups:
                found[name, group["group_id"]] = _spelled(group[source], source, data)
            continue
        alike = [language for language, other in data["scripts"].items() if other == script]
        words = frozenset(word.lower() for g in groups for language in alike for word in _WORD.findall(g[language]))
        for group in groups:
            rng = random.Random(f"{data['seed']}:{name}:{group['group_id']}")
            found[name, group["group_id"]] = shuffle_letters(group[source], words, rng)
    return found


def _spelled(text: str, language: str, data: Mapping[str, Any]) -> str:
    if language == "en":
        return in_devanagari(text)
    return brahmic.respell(text, data["scripts"][language])


def shuffle_letters(text: str, words: frozenset[str], rng: random.Random) -> str:
    """
    ``text`` with the letters shuffled inside each word, so that none is one of ``words`` (lower case) any more.

    Scripts with vowel signs stay legal, or the control would test spelling and not language: consonants trade places
    with consonants, independent vowels with independent vowels, vowel signs with vowel signs, and conjuncts keep their
    shape. A word that this cannot turn into a non-word (है has one letter and one sign) trades letters with other words
    of the text. Word lengths, punctuation, digits and the places of capitals stay.
    """
    spans = [match.span() for match in _WORD.finditer(text)]
    slots = [_slots(text[start:end].lower()) for start, end in spans]
    for word in slots:
        _shuffle_word(word, rng)
    _trade(slots, words, rng)
    pieces, at = [], 0
    for (start, end), word in zip(spans, slots, strict=True):
        pieces += [text[at:start], _with_capitals(_spell(word), text[start:end])]
        at = end
    return unicodedata.normalize("NFC", "".join([*pieces, text[at:]]))


@dataclass
class _Slot:
    """One written syllable: a letter and the signs on it, each of a kind that can trade places with its like."""

    letter: str
    sign: str
    letter_kind: str
    sign_kind: str


def _slots(word: str) -> list[_Slot]:
    return [_slot(syllable) for syllable in _SYLLABLE.findall(word)]


def _slot(syllable: str) -> _Slot:
    letter, marks = syllable[:1], syllable[1:]
    if not letter.isalpha():
        return _Slot("", syllable, "none", "fixed")
    while marks and unicodedata.combining(marks[0]) == _NUKTA:
        letter, marks = letter + marks[0], marks[1:]
    brahmic = unicodedata.category(letter[0]) == "Lo"
    vowel = brahmic and _VOWEL_NAME.search(unicodedata.name(letter[0], "")) is not None
    # The sign of a conjunct or of an independent vowel would be illegal on another letter.
    fixed = vowel or not brahmic or any(unicodedata.combining(mark) == _VIRAMA for mark in marks)
    return _Slot(letter, marks, "vowel" if vowel else "letter", "fixed" if fixed else "sign")


def _shuffle_word(word: list[_Slot], rng: random.Random) -> None:
    for kind in ("letter", "vowel"):
        places = [slot for slot in word if slot.letter_kind == kind]
        letters = [slot.letter for slot in places]
        rng.shuffle(letters)
        for slot, letter in zip(places, letters, strict=True):
            slot.letter = letter
    places = [slot for slot in word if slot.sign_kind == "sign"]
    signs = [slot.sign for slot in places]
    rng.shuffle(signs)
    for slot, sign in zip(places, signs, strict=True):
        slot.sign = sign


def _trade(slots: list[list[_Slot]], words: frozenset[str], rng: random.Random) -> None:
    every = [slot for word in slots for slot in word]
    for _ in range(ROUNDS):
        left = [word for word in slots if _spell(word) in words]
        if not left:
            return
        for word in left:
            slot = rng.choice(word)
            other = rng.choice([o for o in every if o.letter_kind == slot.letter_kind])
            slot.letter, other.letter = other.letter, slot.letter
            if slot.sign_kind == "sign":
                other = rng.choice([o for o in every if o.sign_kind == "sign"])
                slot.sign, other.sign = other.sign, slot.sign


def _spell(word: list[_Slot]) -> str:
    return "".join(slot.letter + slot.sign for slot in word)


def _with_capitals(word: str, like: str) -> str:
    if len(word) != len(like):
        return word
    return "".join(new.upper() if old.isupper() else new for new, old in zip(word, like, strict=True))
