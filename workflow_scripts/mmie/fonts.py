"""The font that makes Devanagari readable: Noto Sans Devanagari (SIL Open Font License 1.1), from its package."""

from __future__ import annotations

import base64
import io
import logging
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

FAMILY = "Noto Sans Devanagari"
PACKAGE = "fontpkg-noto-sans-devanagari"
# Devanagari with its extensions and Vedic signs, the joiners, the dotted circle of a lone vowel sign, the rupee.
RANGES = ((0x0900, 0x097F), (0xA8E0, 0xA8FF), (0x1CD0, 0x1CFA), (0x200C, 0x200D), (0x20B9, 0x20B9), (0x25CC, 0x25CC))


def path() -> Path:
    """
    The font's file.

    Raises ValueError when the package is not installed.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        raise ValueError(f"the package {PACKAGE} is not installed: run `make install`.") from None
    for file in files:
        if file.suffix == ".ttf":
            return Path(str(file.locate()))
    raise ValueError(f"the package {PACKAGE} has no .ttf file: install it anew.")


def unicode_range() -> str:
    """The characters the embedded font is for, in the words of CSS; all others are the reader's own fonts'."""
    return ", ".join(f"U+{first:04X}-{last:04X}" if first != last else f"U+{first:04X}" for first, last in RANGES)


@cache
def data_uri() -> str:
    """The font's Devanagari in regular weight and width, with all its shaping rules, as a data URI for CSS (WOFF)."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont
    from fontTools.varLib import instancer

    logging.getLogger("fontTools").setLevel(logging.WARNING)
    # Without recalculation the font keeps its own date, and the report its bytes.
    font = TTFont(path(), recalcTimestamp=False)
    font = instancer.instantiateVariableFont(font, {"wght": 400, "wdth": 100}, inplace=True)
    options = Options()
    options.layout_features = ["*"]
    options.hinting = False
    options.flavor = "woff"
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in RANGES for code in range(first, last + 1)])
    subsetter.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    return f"data:font/woff;base64,{base64.b64encode(buffer.getvalue()).decode()}"
