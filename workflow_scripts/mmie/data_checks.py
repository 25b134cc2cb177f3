"""What a corpus must satisfy before anything is trained on it: right languages, no near-duplicates, like lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer

from mmie.lid import Detector, words_of
from mmie.lid_scores import forget_scripts

NGRAM = 5
LENGTHS = 3.0
"""A text may be so many times longer or shorter than its language's texts usually are, beside the retain language's."""
BLOCK = 512


def check_corpus(corpus: pd.DataFrame, detector: Detector, settings: Mapping[str, Any]) -> pd.DataFrame:
    """
    Rows of ``tables.CHECKS`` for every text but controls.

    ``settings``: config `data`. Raises ValueError naming the worst texts when too many are in another language than
    their column's, when too many resemble another text of their language or any resembles one of another split, or
    when a text is too long or short to be the translation it should be.
    """
    texts = corpus[corpus["role"] != "control"].reset_index(drop=True)
    found = [detector.identify(text) for text in texts["text"]]
    nearest, similarity = _nearest(texts)
    rows = texts[["doc_id", "group_id", "language", "split"]].assign(
        found=[answer.language for answer in found],
        agrees=[
            answer.language in _right(language, role, settings)
            for answer, language, role in zip(found, texts["language"], texts["role"], strict=True)
        ],
        nearest=nearest,
        similarity=similarity,
        words=[len(words_of(text)) for text in texts["text"]],
    )
    _check_languages(rows, texts, settings)
    _check_duplicates(rows, settings["checks"])
    _check_lengths(rows, settings)
    return rows


def _right(language: str, role: str, data: Mapping[str, Any]) -> Sequence[str]:
    """What the detector may say of a text."""
    if role == "mixed":
        return list(forget_scripts(data))
    return [data["retain"]] if role == "register" else [language]


def _check_languages(rows: pd.DataFrame, texts: pd.DataFrame, data: Mapping[str, Any]) -> None:
    for language, part in rows.groupby("language", sort=False):
        if language == data.get("mixed"):
            continue  # code-mixed text is in two languages
        key = "agreement_roman" if language == data["forget"].get("roman") else "agreement"
        share, least = part["agrees"].mean(), data["checks"][key]
        if share < least:
            wrong = part[~part["agrees"]]
            examples = "; ".join(
                f"{row.doc_id} is {row.found}: {texts.text[row.Index][:50]!r}" for row in wrong.head(5).itertuples()
            )
            raise ValueError(
                f"corpus: the detector finds `{language}` in {share:.1%} of its {len(part)} texts, and config "
                f"`data.checks.{key}` asks for {least:.0%}. Correct the texts, or lower it where the detector errs. "
                f"{len(wrong)} differ: {examples}."
            )


def _check_duplicates(rows: pd.DataFrame, checks: Mapping[str, float]) -> None:
    alike = rows[rows["similarity"] >= checks["similarity"]]
    split_of = dict(zip(rows["doc_id"], rows["split"], strict=True))
    for row in alike.itertuples():
        other = split_of[row.nearest]
        if other != row.split:
            raise ValueError(
                f"corpus: {row.doc_id} ({row.split}) and {row.nearest} ({other}) are {row.similarity:.0%} alike, which "
                "leaks from one split to another. Rewrite one of them, or raise config `data.checks.similarity`."
            )
    for language, part in rows.groupby("language", sort=False):
        share = (part["similarity"] >= checks["similarity"]).mean()
        if share > checks["near_duplicates"]:
            worst = part.loc[part["similarity"].idxmax()]
            raise ValueError(
                f"corpus: {share:.1%} of the `{language}` texts resemble another, and config "
                f"`data.checks.near_duplicates` allows {checks['near_duplicates']:.1%}; most of all {worst['doc_id']} "
                f"and {worst['nearest']} ({worst['similarity']:.0%} alike). Rewrite some of them."
            )


def _check_lengths(rows: pd.DataFrame, data: Mapping[str, Any]) -> None:
    """A row cut short, or two rows in one cell, are not translations."""
    wide = rows[rows["language"].isin(list(data["scripts"]))].pivot(
        index="group_id", columns="language", values="words"
    )
    ratios = wide.div(wide[data["retain"]], axis=0)
    for language in wide.columns:
        usual = ratios[language].median()
        odd = ratios.index[(ratios[language] > LENGTHS * usual) | (ratios[language] < usual / LENGTHS)]
        if len(odd):
            raise ValueError(
                f"corpus: `{language}` of group {odd[0]} has {wide[language][odd[0]]} words beside "
                f"{wide[data['retain']][odd[0]]} in `{data['retain']}`, and such a ratio is usually {usual:.2f}. Is it "
                "the whole translation, and nothing else?"
            )


def _nearest(texts: pd.DataFrame) -> tuple[list[str], list[float]]:
    """For every text the most similar other one of its language, and their Jaccard similarity of character 5-grams."""
    names, values = [""] * len(texts), [0.0] * len(texts)
    for _, part in texts.groupby("language", sort=False):
        if len(part) < 2:
            continue
        grams = CountVectorizer(analyzer="char_wb", ngram_range=(NGRAM, NGRAM), binary=True, dtype=np.int32)
        matrix = grams.fit_transform(part["text"])
        sizes = np.asarray(matrix.sum(axis=1)).ravel()
        for start in range(0, len(part), BLOCK):
            shared = (matrix[start : start + BLOCK] @ matrix.T).toarray()
            jaccard = shared / np.maximum(sizes[start : start + BLOCK, None] + sizes[None] - shared, 1)
            rows = np.arange(len(jaccard))
            jaccard[rows, start + rows] = -1
            best = jaccard.argmax(axis=1)
            for row, other in zip(rows, best, strict=True):
                if jaccard[row, other] > 0:
                    place = part.index[start + row]
                    names[place], values[place] = part["doc_id"].iloc[other], float(jaccard[row, other])
    return names, values
