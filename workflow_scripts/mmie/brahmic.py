"""Neighbours written in Devanagari: their words, and the script of Hindi."""

import unicodedata

# Unicode lays the Indic scripts out after ISCII: a letter has the same place in every block.
BLOCKS = {"Beng": 0x0980, "Guru": 0x0A00, "Gujr": 0x0A80, "Orya": 0x0B00, "Telu": 0x0C00, "Knda": 0x0C80}
"""ISO 15924 script → first code point of its block."""
_DEVANAGARI, _SHARED = 0x0900, 0x70  # from this place on, blocks hold what only their script has
_VIRAMA, _ADDAK = "्", "\u0a71"
_OWN = {
    "\u09ce": "त्", "\u09f0": "र", "\u09f1": "व",  # Bengali khanda ta, Assamese ra and va
    "\u0a70": "ं", "\u0a72": "इ", "\u0a73": "उ", "\u0a75": "्य",  # Gurmukhi tippi, iri, ura, yakash
}  # fmt: skip
_PLAIN = dict(zip("खघछझठढथधफभ", "कगचजटडतदपब", strict=True))
"""Aspirated consonant → the first half of it when doubled."""
_SPELLINGS = {"स़": "श", "य़": "य"}
"""What Punjabi and Bengali write with a dot below, and Hindi as a letter of its own."""


def respell(text: str, script: str) -> str:
    """
    ``text`` of one of the ``BLOCKS`` in Devanagari, letter by letter; an addak doubles the consonant after it.

    Characters of other scripts, digits of ASCII and punctuation stay. Raises KeyError when the script has no block.
    """
    start = BLOCKS[script]
    out: list[str] = []
    double = False
    for char in unicodedata.normalize("NFC", text):
        place = ord(char) - start
        if char == _ADDAK:
            double = True
            continue
        letter = _OWN.get(char) or (chr(_DEVANAGARI + place) if 0 <= place < _SHARED else char)
        if double and unicodedata.category(letter[0]) == "Lo":
            out.append(_PLAIN.get(letter, letter) + _VIRAMA)
        double = False
        out.append(letter)
    spelled = unicodedata.normalize("NFC", "".join(out))
    for theirs, hindi in _SPELLINGS.items():
        spelled = spelled.replace(theirs, hindi)
    return spelled
