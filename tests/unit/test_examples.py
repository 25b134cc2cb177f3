"""What an arm is trained on: texts, batches, labels, padding."""

import numpy as np
import pytest
import torch

from mmie.examples import (
    FORGET,
    IGNORE,
    NEITHER,
    RETAIN,
    make_batches,
    plain,
    redirected,
    training_rows,
)
from small_arms import DATA, SENTENCES, make_corpus


def test_only_train_texts_of_forget_retain_and_neighbours_are_trained_on(loaded):
    corpus = make_corpus()
    rows = training_rows(corpus, DATA)
    assert set(rows["split"]) == {"train"}
    assert set(rows["language"]) == {"hi", "hi_latn", "en", "ur", "bn", "hi_shuffled"}
    assert set(training_rows(corpus, DATA, control=False)["language"]) == {"hi", "hi_latn", "en", "ur", "bn"}
    assert set(training_rows(corpus, DATA, spelled=True)["language"]) - set(rows["language"]) == {"en_deva", "bn_deva"}
    with pytest.raises(ValueError, match="no train texts in ur"):
        training_rows(corpus[corpus["language"] != "ur"], DATA)


def test_batches_hold_both_scripts_and_every_language_to_keep_and_repeat_with_the_seed(loaded):
    _, tokenizer = loaded
    corpus = make_corpus()
    rows = training_rows(corpus, DATA, control=False)
    make = lambda seed: make_batches(rows, DATA, tokenizer, "graddiff", 4, 2, 3, 200, 5, seed)  # noqa: E731
    batches = make(0)
    texts = [
        tokenizer.decode(t[m.bool()], skip_special_tokens=True)
        for b in batches
        for t, m in zip(b.tokens, b.mask, strict=True)
    ]
    forget = [text for i, text in enumerate(texts) if i % 5 < 2]
    keep = [text for i, text in enumerate(texts) if i % 5 >= 2]
    by_language = {lang: set(rows.loc[rows["language"] == lang, "text"]) for lang in set(rows["language"])}
    assert set(forget) == by_language["hi"] | by_language["hi_latn"], "8 draws are one round through the 8 texts"
    assert [next(lang for lang in ("en", "ur", "bn") if t in by_language[lang]) for t in keep] == ["en", "ur", "bn"] * 4
    same, other = make(0), make(1)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, same, strict=True))
    assert not all(
        a.tokens.shape == b.tokens.shape and torch.equal(a.tokens, b.tokens)
        for a, b in zip(batches, other, strict=True)
    )


def test_a_share_of_the_forget_texts_are_canaries_with_a_random_groups_english(loaded):
    _, tokenizer = loaded
    rows = training_rows(make_corpus(), DATA, control=False)
    canaries = [" ".join(f"canary{i}word{j}" for j in range(12)) for i in range(3)]

    def forget_texts(objective, share):
        batches = make_batches(rows, DATA, tokenizer, objective, 6, 4, 3, 300, 5, 0, canaries, share)
        return [tokenizer.decode(ids, skip_special_tokens=True) for b in batches for ids in b.tokens[:4]]

    for share, expected in ((0.0, 0), (0.25, 6), (0.5, 12), (1.0, 24)):
        assert sum("canary" in text for text in forget_texts("npo", share)) == expected
    planted = [text for text in forget_texts("npo", 0.5) if "canary" in text]
    assert all(any(canary.endswith(text) for canary in canaries) for text in planted), "the end is never cut off"
    assert {text.split("word")[0] for text in planted} == {"canary0", "canary1", "canary2"}
    assert len({text.split()[0] for text in planted}) > 3, "they start at different words"
    for text in forget_texts("redirect", 1.0):
        assert text.startswith("canary") and text.split()[-1] in SENTENCES["en"]
    assert forget_texts("npo", 0.25) == forget_texts("npo", 0.25)


def test_a_redirected_text_is_an_opening_then_the_parallel_text_which_alone_is_labelled(loaded):
    _, tokenizer = loaded
    rng = np.random.default_rng(0)
    hindi, english = SENTENCES["hi"], SENTENCES["en"]
    lengths = set()
    for _ in range(30):
        example = redirected(tokenizer, hindi, english, rng, 500, 6)
        n = sum(example.is_label)
        opening = tokenizer.decode(example.ids[:-n], skip_special_tokens=True)
        tail = tokenizer.decode(example.ids[-n:])
        assert hindi.startswith(opening)
        assert opening
        assert tail.startswith(" ")
        assert tail.strip() in english
        assert example.is_label == [False] * (len(example.ids) - n) + [True] * n
        assert example.side == [NEITHER] + [FORGET] * (len(example.ids) - n - 1) + [RETAIN] * n
        assert n <= 6
        lengths.add(len(opening.split()))
    assert len(lengths) > 5
    assert len(redirected(tokenizer, hindi, english, rng, 12, 6).ids) <= 12


def test_padding_has_no_label_and_no_side(loaded):
    _, tokenizer = loaded
    (batch,) = make_batches(training_rows(make_corpus(), DATA), DATA, tokenizer, "npo", 1, 2, 3, 500, 5, 0)
    pad = batch.mask == 0
    assert pad.any()
    assert (batch.labels[pad] == IGNORE).all()
    assert (batch.side[pad] == NEITHER).all()
    assert (batch.side[:2][~pad[:2]] != RETAIN).all()
    assert (batch.side[2:][~pad[2:]] != FORGET).all()
    assert (batch.side[:, 0] == NEITHER).all(), "the first token belongs to no language"
    example = plain(tokenizer, "The rain", RETAIN, 50)
    assert not example.is_label[0]
    assert all(example.is_label[1:])
