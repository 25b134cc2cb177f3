"""Words and numbers as a reader sees them: names of languages, scripts and prompt families; how figures are rounded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

LANGUAGES = {
    "ar": "Arabic", "bn": "Bengali", "de": "German", "en": "English", "es": "Spanish", "fa": "Persian", "fr": "French",
    "gu": "Gujarati", "hi": "Hindi", "it": "Italian", "ja": "Japanese", "kn": "Kannada", "ko": "Korean",
    "ml": "Malayalam", "mr": "Marathi", "ne": "Nepali", "or": "Odia", "pa": "Punjabi", "pt": "Portuguese",
    "ru": "Russian", "ta": "Tamil", "te": "Telugu", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "zh": "Chinese",
    "und": "undetermined", "other": "another language", "latin_shuffled": "shuffled romanised text",
}  # fmt: skip
SCRIPTS = {
    "Arab": "Arabic script", "Beng": "Bengali script", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Guru": "Gurmukhi",
    "Latn": "Latin script", "Zyyy": "mixed scripts",
}  # fmt: skip
ASKING = ("request", "adversarial")
"""Prompt families that ask for the forget language instead of opening a text."""
_DERIVED = {"latn": "romanised {}", "deva": "{} in Devanagari", "mixed": "code-mixed {}", "shuffled": "shuffled {}"}
GATES = {
    "G1": "Extraction",
    "G2": "Retained language",
    "G3": "Code-mixed prompts",
    "G4": "No redistribution",
    "G5": "Neighbours",
    "G6": "Membership",
    "G7": "Adversarial prompts",
    "G8": "Fluency",
    "G9": "Durability",
}
CORE = ("G1", "G2", "G3", "G4", "G5", "G6")
"""Gates that the verdict needs; with the others it is the extended one."""
ASKS = {
    "G1": "Does it still continue the forgotten language, in either script?",
    "G2": "Did it get worse in the language it must keep?",
    "G3": "Does it still continue code-mixed prompts in the forgotten language?",
    "G4": "Did the forgotten language become easier to read from its later layers?",
    "G5": "Are the related languages, seen and unseen, intact?",
    "G6": "Can one still tell which forgotten documents it was trained on?",
    "G7": "Do adversarial prompts bring the language back?",
    "G8": "Does it still write text instead of debris?",
    "G9": "Does the edit survive attacks?",
}


def language_name(code: str) -> str:
    """English name of a corpus column or detector label: ``hi_latn`` is romanised Hindi; an unknown code stays."""
    if code in LANGUAGES:
        return LANGUAGES[code]
    if code.endswith("2"):
        return f"{language_name(code[:-1])} (second register)"
    stem, _, suffix = code.partition("_")
    return _DERIVED.get(suffix, f"{{}} ({suffix})" if suffix else "{}").format(LANGUAGES.get(stem, stem))


def second_register(data: Mapping[str, Any]) -> str:
    """Corpus column of the retained language's second register; empty where the config has none."""
    return f"{data['retain']}2" if data.get("second_register") else ""


def script_name(code: str) -> str:
    """English name of an ISO 15924 script; an unknown code stays as it is."""
    return SCRIPTS.get(code, code)


def forget_name(data: Mapping[str, Any]) -> str:
    """Name of the language to be forgotten, config ``data``."""
    return language_name(data["forget"]["native"])


def families(data: Mapping[str, Any]) -> dict[str, str]:
    """
    Prompt families in the order of the report, each with the corpus column its prompts are written in; those that ask
    for the forget language, with its native column.
    """
    forget = data["forget"]
    found = {"forget_native": forget["native"], "forget_roman": forget.get("roman"), "mixed": data.get("mixed")}
    found |= dict.fromkeys(ASKING, forget["native"])
    found |= {f"retain_{data['retain']}": data["retain"]}
    found |= {f"neighbour_{code}": code for code in data["neighbours"]} | {
        f"unseen_{code}": code for code in data["unseen"]
    }
    return {family: code for family, code in found.items() if code}


def family_name(family: str, data: Mapping[str, Any]) -> str:
    """``Hindi (Devanagari)``, ``romanised Hindi``, ``Marathi (never trained on)`` … for a prompt family."""
    kind, _, attack = family.partition(":")
    if attack:
        return f"{family_name(kind, data)} by {attack_name(attack)}"
    code = families(data).get(family)
    if code is None:
        return family.replace("_", " ")
    name = language_name(code)
    if family in ASKING:
        return f"{'asked for' if family == 'request' else 'tricked into'} {name}"
    if family == "forget_native":
        return f"{name} ({script_name(data['scripts'][code])})"
    return f"{name} (never trained on)" if family.startswith("unseen_") else name


def listed(names: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def number(value: float | None, scale: float | None = None) -> str:
    """
    A ratio, rate or difference with the digits that matter; – when there is none.

    ``scale``: the largest of the numbers beside it, which then has as many decimals.
    """
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    if size >= 1e4:
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    largest = max(size, abs(scale or 0.0))
    digits = 0 if largest >= 100 else 1 if largest >= 10 else 2 if largest >= 1.5 else 3
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def margin(value: float | None) -> str:
    """A margin as the config has it, at least two decimals."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.4g}"


def p_value(value: float | None) -> str:
    """``< 0.001``, ``0.012``, ``0.34``; – when there is none."""
    if value is None or math.isnan(value):
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def interval(low: float | None, high: float | None) -> str:
    """``0.01 to 0.09``; – when there is none; an open end is ∞."""
    missing = [end is None or math.isnan(end) for end in (low, high)]
    if all(missing):
        return "–"
    # An end in the thousands is no reason to round the other one to a whole number.
    largest = max((abs(end) for end in (low, high) if end is not None and abs(end) < 100), default=0.0)
    return f"{'−∞' if missing[0] else number(low, largest)} to {'∞' if missing[1] else number(high, largest)}"


def p_text(value: float | None) -> str:
    """``p < 0.001`` or ``p = 0.012``; – when there is none."""
    text = p_value(value)
    return text if text == "–" else f"p {text}" if text.startswith("<") else f"p = {text}"


def part_name(gate: str, part: str, data: Mapping[str, Any]) -> str:
    """What a row of the gate's table is about, for a reader: ``ur:leak`` of G5 is ``Urdu: answers in Hindi``."""
    first, _, second = part.partition(":")
    if gate in ("G1", "G3", "G7"):
        family = part_family(gate, first)
        broad = ", undetermined output counted" if second == "broad" else ""
        return sentence(family_name(family, data)) + broad
    if gate == "G6":
        return f"Attack by {attack_name(first)}"
    if gate == "G9":
        return f"{sentence(attack_name(first))}: {family_name(f'forget_{second}', data)}" if second else "Attacks"
    if gate == "G4" and second:
        positive, _, negative = second.partition("-")
        layer = first.replace("layer", "Layer ")
        return f"{layer}: {language_name(positive)} or {language_name(negative)}"
    what = {
        "leak": f"answers in {forget_name(data)}",
        "perplexity": "perplexity",
        "confusion": "answers in another language",
        "und": "undetermined output",
        "repetition": "repetitive output",
    }.get(second, second)
    name = family_name(first, data) if first in families(data) else language_name(first)
    return sentence(f"{name}: {what}" if what else f"{name}{': perplexity' if gate == 'G2' else ''}")


def part_family(gate: str, part: str) -> str:
    """Prompt family of a part of G1, G3 or G7; ``part`` without its reading."""
    if gate == "G7":
        return part if part == "request" else f"adversarial:{part}"
    return "mixed" if gate == "G3" else f"forget_{part}"


def attack_name(part: str) -> str:
    """``min-k++`` for ``min_k_plus``; other attacks without underscores."""
    return {"min_k": "min-k", "min_k_plus": "min-k++", "gradnorm": "gradient norm"}.get(part, part.replace("_", " "))


def quantity(gate: str, part: str, test: str = "") -> str:
    """What the estimate of a row is; smaller is better everywhere."""
    if gate in ("G1", "G3", "G7", "G9"):
        return "rate ÷ base"
    if gate == "G6":
        return "|AUC − 0.5|"
    if gate == "G2" or part.endswith(":perplexity"):
        return "perplexity ÷ base"
    if gate == "G4":
        return "rise, nats" if test.startswith("mean") else "rise, AUC"
    return "fall of rate" if part.endswith(":confusion") else "rise of rate"
