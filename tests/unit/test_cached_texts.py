"""What is cached, text by text, and the samples that are read of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from mmie import cache, tables
from mmie.cached_texts import (
    cached_texts,
    first_texts,
    parallel_groups,
    rows_of_split,
    sampled,
    sampled_tokens,
    tokens_of,
)
from small_cache import small_corpus, write_cache


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    return write_cache(tmp_path_factory.mktemp("cache"), tiny_model)


@pytest.fixture(params=[1 << 14, 7])
def texts(made, request, monkeypatch):
    """The same whatever is read at a time."""
    monkeypatch.setattr("mmie.cached_texts.PART", request.param)
    return cached_texts(made["index"], made["corpus"])


def test_every_text_has_its_rows_and_facts(made, texts):
    index = tables.read(made["index"], tables.TOKENS)
    corpus = cache.trainable(small_corpus()).reset_index(drop=True)
    assert texts["count"].tolist() == index.groupby("doc_id", sort=False).size().tolist()
    assert texts["start"].tolist() == index.drop_duplicates("doc_id")["row"].tolist()
    for name in ("language", "role", "split"):
        assert texts[name].tolist() == corpus[name].tolist()
    assert texts["key"].nunique() == corpus["group_id"].nunique()


def test_of_a_small_cache_every_token_is_read(made, texts):
    index = tables.read(made["index"], tables.TOKENS)
    whole = cache.described(index, small_corpus())
    pd.testing.assert_frame_equal(sampled_tokens(made["index"], made["corpus"]), whole)
    pd.testing.assert_frame_equal(sampled_tokens(made["index"], small_corpus()), whole)
    for split in ("train", "tune"):
        rows = rows_of_split(texts, split)
        assert rows[torch.arange(len(rows))].tolist() == whole.loc[whole["split"] == split, "row"].tolist()


def test_a_sample_holds_whole_texts_of_the_same_groups_in_every_language(made, texts):
    part = sampled(texts, limit=1)  # one text of each language and split
    assert (
        len(part) == texts.groupby(["language", "split"], observed=True).ngroups == len(part.drop_duplicates("start"))
    )
    assert part.groupby("split", observed=True)["key"].nunique().tolist() == [1, 1]
    tokens = tokens_of(part, made["index"], made["corpus"])
    assert len(tokens) == part["count"].sum() and tokens["row"].is_monotonic_increasing
    assert tokens["doc_id"].nunique() == len(part)
    shuffled = texts.sample(frac=1, random_state=0)
    assert set(sampled(shuffled, limit=1)["start"]) == set(part["start"])
    limit = 60
    totals = sampled(texts, limit).groupby(["language", "split"], observed=True)["count"].sum()
    assert (totals < limit + texts["count"].max()).all()


def test_the_choice_of_layers_reads_whole_groups_alone(texts):
    names = ("hi", "hi_latn", "en")
    assert len(parallel_groups(texts, names)) == 5 * 3
    part = parallel_groups(texts, names, limit=1)
    assert len(part) == 2 * 3 and part.groupby("split", observed=True)["key"].nunique().tolist() == [1, 1]
    lacking = texts.drop(texts.index[texts["language"] == "en"][0])
    assert len(parallel_groups(lacking, names)) == 4 * 3


@pytest.mark.parametrize("rows", [slice(1, None), slice(None, -20), [*range(20, 40), *range(20), *range(40, 66)]])
def test_a_cache_of_another_corpus_is_refused(made, rows):
    with pytest.raises(ValueError, match="another corpus"):
        cached_texts(made["index"], small_corpus().iloc[rows])
    with pytest.raises(ValueError, match=r"raise config `data\.splits\.tune`"):
        rows_of_split(cached_texts(made["index"], made["corpus"])[lambda part: part["split"] == "train"], "tune")


def test_the_first_texts_of_a_split(made):
    corpus = cache.trainable(small_corpus())
    expected = corpus[corpus["split"] == "train"].groupby("language").head(2)
    found = first_texts(made["corpus"], "train", 2)
    assert found["doc_id"].tolist() == expected["doc_id"].tolist()
    assert np.array_equal(found["text"], expected["text"])
