"""Colours that colour-blind readers tell apart (Okabe and Ito): one per arm, one per detected language."""

from __future__ import annotations

from collections.abc import Sequence

BASE = "#555555"
ARMS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LANGUAGES = {
    "hi": "#B2182B", "hi_latn": "#EF8A62", "en": "#0072B2", "ur": "#009E73", "pa": "#E69F00", "bn": "#CC79A7",
    "mr": "#56B4E9", "other": "#BDBDBD", "und": "#6B6B6B",
}  # fmt: skip


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Colour of every arm, by its place in the config: adding an arm at the end changes no other colour."""
    others = [arm for arm in arms if arm != "base"]
    return {"base": BASE} | {arm: ARMS[i % len(ARMS)] for i, arm in enumerate(others)}


def arm_markers(arms: Sequence[str]) -> dict[str, str]:
    """Marker of every arm, so that colour is never the only difference."""
    others = [arm for arm in arms if arm != "base"]
    return {"base": MARKERS[0]} | {arm: MARKERS[(1 + i) % len(MARKERS)] for i, arm in enumerate(others)}


def language_colours(codes: Sequence[str], forget: Sequence[str] = ("hi", "hi_latn")) -> dict[str, str]:
    """Colour of every detected language: the forgotten one is red, whatever it is."""
    fixed = dict(zip(forget, (LANGUAGES["hi"], LANGUAGES["hi_latn"]), strict=False)) | LANGUAGES
    fixed |= dict(zip(forget, (LANGUAGES["hi"], LANGUAGES["hi_latn"]), strict=False))
    spare = iter([c for c in ARMS if c not in {fixed.get(code) for code in codes}] + list(ARMS) * len(codes))
    return {code: fixed[code] if code in fixed else next(spare) for code in codes}
