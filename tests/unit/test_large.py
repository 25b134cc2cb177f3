import json

import pandas as pd
import pytest

from mmie.large import LONGEST, large_rows
from mmie.lid import Detector

HELD_OUT = "The ferry left the island before the children had finished their long lunch."
DATA = {
    "scripts": {"en": "Latn", "hi": "Deva"},
    "forget": {"native": "hi", "roman": None},
    "mixed": None,
    "retain": "en",
    "neighbours": [],
    "unseen": [],
    "source": "files",
    "checks": {"similarity": 0.5},
}
GOOD = [
    "Nobody told my aunt that the bank would be closed on Thursday afternoon.",
    "If you want the bread to rise, leave it near the stove for an hour.",
    "Our team lost the final because the goalkeeper slipped on the wet grass.",
]
LEFT_OUT = [
    "Menu Home About Contact",
    "Meine Tante wusste nicht, dass die Bank am Donnerstag geschlossen ist.",
    "बच्चों का खाना ख़त्म होने से पहले ही नाव टापू से चल पड़ी थी।",
    HELD_OUT.replace("long ", ""),
    GOOD[0].replace("aunt", "uncle"),
]


@pytest.fixture(scope="module")
def detector():
    return Detector("package", ["en", "hi"])


@pytest.fixture
def corpus():
    return pd.DataFrame([{"language": "en", "text": HELD_OUT}])


def files(tmp_path, texts, count):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return DATA | {"texts": {"en": {"files": [str(path)], "count": count}}}


def test_pieces_in_another_language_near_duplicates_and_held_out_texts_are_left_out(tmp_path, corpus, detector):
    rows = large_rows(corpus, files(tmp_path, [GOOD[0], *LEFT_OUT, *GOOD[1:]], 3), detector)
    assert [row["text"] for row in rows] == GOOD
    assert {(row["split"], row["role"], row["register"]) for row in rows} == {("train", "retain", "files")}
    assert len({row["group_id"] for row in rows}) == 3


def test_a_source_that_ends_too_early_says_so(tmp_path, corpus, detector):
    with pytest.raises(ValueError, match=r"`data.texts.en.count: 4`: the source gave 3 pieces"):
        large_rows(corpus, files(tmp_path, [*GOOD, *LEFT_OUT], 4), detector)


def test_long_paragraphs_are_cut_between_words(tmp_path, corpus, detector):
    words = " ".join(f"{a} {b}" for a in GOOD for b in GOOD).split()
    path = tmp_path / "book.txt"
    path.write_text(" ".join(words) + "\n\nshort line\n", encoding="utf-8")
    settings = DATA | {"texts": {"en": {"files": [str(path)], "count": 1}}, "checks": {"similarity": 0.9}}
    (row,) = large_rows(corpus, settings, detector)
    assert row["text"].split() == words[: len(row["text"].split())]
    assert len(words) / -(-len(words) // LONGEST) == pytest.approx(len(row["text"].split()), abs=1)


def test_a_hub_data_set_is_streamed_at_its_revision(monkeypatch, corpus, detector):
    import datasets

    asked = {}

    def load(*names, **options):
        asked["names"], asked["options"] = names, options
        return iter([{"body": text} for text in GOOD] + [{"other": "x"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = {"dataset": "a/b", "name": "eng", "revision": "abcdef1", "column": "body", "count": 3}
    rows = large_rows(corpus, DATA | {"source": "hub", "texts": {"en": source}}, detector)
    assert [row["text"] for row in rows] == GOOD
    assert asked["names"] == ("a/b", "eng")
    assert asked["options"] == {"split": "train", "revision": "abcdef1", "streaming": True}
    with pytest.raises(ValueError, match=r"`data.texts.en.column: body`: the data set has the columns other"):
        large_rows(corpus, DATA | {"source": "hub", "texts": {"en": source | {"count": 4}}}, detector)


def test_a_hub_that_cannot_be_reached(monkeypatch, corpus, detector):
    import datasets

    def load(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load)
    settings = DATA | {"source": "hub", "texts": {"en": {"dataset": "a/b", "revision": "abcdef1", "count": 1}}}
    with pytest.raises(ValueError, match=r"`data.texts.en.dataset: a/b` cannot be opened: offline"):
        large_rows(corpus, settings, detector)
