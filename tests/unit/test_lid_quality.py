import json

import pytest

from mmie.lid import Detector
from mmie.lid_quality import quality_rows, read_labelled

DATA = {"scripts": {"en": "Latn", "hi": "Deva", "hi_latn": "Latn"}, "forget": {"native": "hi", "roman": "hi_latn"}}
TEXTS = {
    "en": ["the children went home before the rain", "we have never been to the old market", "it is not what she said"],
    "hi": ["वह कल घर जाएगा और फिर आएगा", "मुझे यह किताब बहुत अच्छी लगी है", "तुम कहाँ से आ रहे हो"],
    "hi_latn": ["mujhe nahi pata woh kahan hai", "tum kal kya kar rahe the", "yeh bahut achha hai bhai"],
    "und": ["।।। 12", "", "ककककककककककककक"],
    "mixed": ["Kal office mein meeting hai and I am late"],
}


def written(tmp_path, rows):
    path = tmp_path / "lid.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(tmp_path):
    rows = [{"label": label, "kind": "sentence", "text": t} for label, texts in TEXTS.items() for t in texts if t]
    return read_labelled(written(tmp_path, rows), DATA)


@pytest.fixture(scope="module")
def detector():
    return Detector("package", list(DATA["scripts"]))


def test_the_halves_share_no_text_and_do_not_depend_on_order(tmp_path):
    table = labelled(tmp_path)
    assert set(table["half"]) == {"tune", "measure"} and table["text"].is_unique
    again = read_labelled(written(tmp_path, table[["label", "kind", "text"]][::-1].to_dict("records")), DATA)
    assert dict(zip(again.text, again.half, strict=True)) == dict(zip(table.text, table.half, strict=True))


def test_counts_are_those_of_the_detector(tmp_path, detector):
    table = labelled(tmp_path).assign(half="measure")
    table.loc[table["text"] == TEXTS["hi"][0], "label"] = "en"  # an error of the detector's, as far as it can tell
    rows = {row["label"]: row for row in quality_rows(table, detector, DATA)}
    assert "mixed" not in rows
    assert (rows["en"]["positives"], rows["en"]["hits"], rows["en"]["false_alarms"]) == (4, 3, 0)
    assert (rows["hi"]["positives"], rows["hi"]["hits"], rows["hi"]["false_alarms"]) == (2, 2, 1)
    forget = rows["forget"]
    assert (forget["positives"], forget["hits"], forget["negatives"], forget["false_alarms"]) == (5, 5, 6, 1)
    assert forget["specificity"] == pytest.approx(5 / 6)
    assert forget["specificity_low"] < 5 / 6 < forget["specificity_high"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"label": "klingon", "kind": "sentence", "text": "x y"}, "label is 'klingon'"),
        ({"label": "en", "kind": "sentence", "text": ""}, "`text` is empty"),
        ({"label": "en", "kind": "sentence", "text": TEXTS["en"][0]}, "is there twice"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_labelled(written(tmp_path, [{"label": "en", "kind": "word", "text": TEXTS["en"][0]}, row]), DATA)
