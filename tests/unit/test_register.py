import json
from collections import Counter

import pytest

from mmie.register import register_rows

DATA = {"retain": "en", "scripts": {"en": "Latn", "hi": "Deva"}, "seed": 0}


def written(tmp_path, rows):
    path = tmp_path / "en2.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(n=20):
    return [
        {"group_id": f"e{i:02}", "en2": f"A compiler turns source number {i} into code.", "topic": "x"}
        for i in range(n)
    ]


def test_texts_are_evaluated_and_never_trained_on(tmp_path):
    rows = register_rows(written(tmp_path, texts()), DATA)
    assert Counter(row["split"] for row in rows) == {"test": 16, "tune": 4}
    assert {(row["language"], row["role"], row["script"]) for row in rows} == {("en2", "register", "Latn")}
    assert rows == register_rows(written(tmp_path, texts()[::-1]), DATA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"en2": ""}, r"line 2: `en2` is empty"),
        ({"group_id": "e00"}, r"group e00 is there twice"),
        ({"en2": "A compiler turns source number 0 into CODE."}, r"the text of group e01 is that of e00"),
        ({"en2": "यह अंग्रेज़ी नहीं है"}, r"`en2` .* has 0% of its letters in Latn"),
    ],
)
def test_bad_texts_are_named(tmp_path, change, message):
    rows = texts(3)
    rows[1] |= change
    with pytest.raises(ValueError, match=message):
        register_rows(written(tmp_path, rows), DATA)


def test_a_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"`data.second_register: .*`: there is no such file"):
        register_rows(tmp_path / "absent.jsonl", DATA)
