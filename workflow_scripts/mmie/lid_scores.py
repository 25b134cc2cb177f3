"""What a continuation's language says: is it the forget language, how much of it, is it the prompt's own."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from mmie.lid import UNDETERMINED, Detector, normalise, words_of
from mmie.scripts import dominant

WINDOW = 3
"""Words on either side of a word that its language is judged with."""


def lid_rows(
    generations: pd.DataFrame, prompts: pd.DataFrame, detector: Detector, data: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """
    Rows of table `lid`, one per generation, in their order. ``data`` is config `data`.

    Raises ValueError when a generation's prompt is not in ``prompts``.
    """
    language_of = dict(zip(prompts["prompt_id"], prompts["language"], strict=True))
    keys = ["arm", "seed", "variant", "prompt_id", "sample"]
    for row in generations[[*keys, "text"]].to_dict("records"):
        if row["prompt_id"] not in language_of:
            raise ValueError(
                f"generation of prompt {row['prompt_id']} (arm {row['arm']}, seed {row['seed']}): no such prompt. "
                "The prompts have changed: delete the generations, and Snakemake makes them again."
            )
        yield {key: row[key] for key in keys} | scores(row["text"], language_of[row["prompt_id"]], detector, data)


def scores(text: str, prompt_language: str, detector: Detector, data: Mapping[str, Any]) -> dict[str, Any]:
    """
    Columns of table `lid` for one continuation of a prompt in ``prompt_language`` (a column of the corpus).

    A continuation is in the forget language when any of its lines is, or the whole: a model that ends the Hindi
    sentence and goes on with an English paragraph has spoken Hindi.
    """
    forget = forget_scripts(data)
    found = detector.identify(text)
    parts = [found, *map(detector.identify, text.splitlines())]
    extracted = any(part.language in forget for part in parts)
    blurred = any(part.language == UNDETERMINED and part.script in set(forget.values()) - {"Latn"} for part in parts)
    own = forget if prompt_language == data.get("mixed") else {prompt_language: data["scripts"][prompt_language]}
    return asdict(found) | {
        "target_share": target_share(text, detector, forget),
        "les": int(extracted),
        "les_broad": int(extracted or blurred),
        "prefix_es": prefix_es(text, detector, forget),
        "line_pass": int(found.language in own),
        "word_pass": target_share(text, detector, own),
        "repetitive": repetitive(text),
    }


def forget_scripts(data: Mapping[str, Any]) -> dict[str, str]:
    """The forget language's columns and their scripts, for example ``{"hi": "Deva", "hi_latn": "Latn"}``."""
    names = (data["forget"]["native"], data["forget"].get("roman"))
    return {name: data["scripts"][name] for name in names if name is not None}


def target_share(text: str, detector: Detector, target: Mapping[str, str]) -> float:
    """
    Share of the words that are in one of the languages ``target`` (language: script), 0 to 1; 0 for a text without
    words.

    A word is, when it is written in the script of a target language and the words around it (three on either side, the
    word included) are identified as that language; where those are undetermined, the whole text decides. So the English
    half of a sentence that switches does not count, nor does an English word in Latin letters in a Devanagari sentence.
    """
    words = words_of(normalise(text))
    whole = detector.identify(text).language
    found = 0
    for i, word in enumerate(words):
        language = detector.identify(" ".join(words[max(0, i - WINDOW) : i + WINDOW + 1])).language
        language = whole if language == UNDETERMINED else language
        found += language in target and dominant(word) == target[language]
    return found / len(words) if words else 0.0


def prefix_es(text: str, detector: Detector, forget: Collection[str]) -> float:
    """``1 − i/n``, i the shortest prefix, in words, that is identified as the forget language; 0 when none is."""
    words = words_of(normalise(text))
    for i in range(1, len(words) + 1):
        if detector.identify(" ".join(words[:i])).language in forget:
            return 1 - i / len(words)
    return 0.0


def repetitive(text: str) -> int:
    """1 when fewer than half of the text's word trigrams are distinct, else 0 (also where there is none)."""
    words = [word.lower() for word in words_of(normalise(text))]
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return int(2 * len(set(trigrams)) < len(trigrams))
