"""Which script the letters of a text are in."""

from collections import Counter
from functools import cache

import regex

MIXED = "Zyyy"
"""ISO 15924 code for texts that mix scripts; also what a text without letters is in."""

# Unicode gives these no script of their own: they are written in several.
_PARTS = {
    "Jpan": ("Hira", "Kana", "Hani"),
    "Kore": ("Hang", "Hani"),
    "Hans": ("Hani",),
    "Hant": ("Hani",),
}
_COMMON = ("Latn", "Deva", "Arab", "Guru", "Beng", "Cyrl", "Hani", "Grek", "Hebr", "Thai", "Gujr", "Orya", "Taml",
           "Telu", "Knda", "Mlym", "Sinh", "Tibt", "Mymr", "Khmr", "Laoo", "Hang", "Hira", "Kana", "Geor", "Armn",
           "Ethi")  # fmt: skip
_LETTER = regex.compile(r"\p{L}")


@cache
def letters_of(script: str) -> regex.Pattern[str]:
    """
    Pattern of one letter of an ISO 15924 script.

    Danda, digits and punctuation are letters of no script: the danda is shared by all scripts of India.

    Raises ValueError when Unicode knows no such script.
    """
    classes = "".join(rf"\p{{Script={part}}}" for part in _PARTS.get(script, (script,)))
    try:
        if not regex.fullmatch("[A-Z][a-z]{3}", script):
            raise regex.error(script)
        return regex.compile(rf"[\p{{L}}&&[{classes}]]", regex.V1)
    except regex.error:
        raise ValueError(
            f"`{script}` is not the code of a script. Use its ISO 15924 code, for example Latn, Deva or Arab "
            f"({MIXED} for texts that mix scripts)."
        ) from None


def share_in(script: str, text: str) -> float:
    """Share of the text's letters that are in ``script``, 0 to 1; 0 for a text without letters."""
    letters = _LETTER.findall(text)
    return len(letters_of(script).findall(text)) / len(letters) if letters else 0.0


def letter_counts(text: str) -> Counter[str]:
    """Letters per ISO 15924 script, most frequent first; letters of rarer scripts count as ``Zzzz``."""
    return Counter(map(script_of, _LETTER.findall(text)))


def dominant(text: str) -> str:
    """Script of most of the text's letters; ``Zyyy`` when it has none. Ties go to the script that comes first."""
    counts = letter_counts(text)
    return counts.most_common(1)[0][0] if counts else MIXED


@cache
def script_of(letter: str) -> str:
    """Script of one letter, ``Zzzz`` when it is none of the common ones."""
    return next((script for script in _COMMON if letters_of(script).match(letter)), "Zzzz")
