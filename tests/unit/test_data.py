import json
import unicodedata
from collections import Counter

import pandas as pd
import pytest

from mmie.data import corpus_rows, read_groups, roles, split_groups

DATA = {
    "splits": {"train": 5, "tune": 2, "test": 3},
    "seed": 0,
    "scripts": {"en": "Latn", "hi": "Deva", "hi_latn": "Latn", "mr": "Deva", "hi_mixed": "Zyyy"},
    "forget": {"native": "hi", "roman": "hi_latn"},
    "mixed": "hi_mixed",
    "retain": "en",
    "neighbours": [],
    "unseen": ["mr"],
}
NUMBERS = ["एक", "दो", "तीन", "चार", "पाँच", "छह", "सात", "आठ", "नौ", "दस", "ग्यारह", "बारह"]
LATIN = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def group(i: int, **changes):
    return {
        "group_id": f"g-{i:02}",
        "topic": "ab"[i % 2],
        "register": "news",
        "en": f"The boy number {LATIN[i]} goes to the old market.",
        "hi": f"लड़का {NUMBERS[i]} पुराने बाज़ार जाता है।",
        "hi_latn": f"ladka {LATIN[i]} purane bazaar jata hai.",
        "mr": f"मुलगा {NUMBERS[i]} जुन्या बाजारात जातो.",
        "hi_mixed": f"ladka {LATIN[i]} old market जाता है।",
    } | changes


GROUPS = [group(i) for i in range(10)]


def written(path, groups):
    path.write_text("".join(json.dumps(g, ensure_ascii=False) + "\n" for g in groups), encoding="utf-8")
    return path


@pytest.fixture
def corpus(tmp_path):
    return lambda *groups: written(tmp_path / "corpus.jsonl", groups)


def test_rows_have_every_text_and_control_of_every_group():
    rows = corpus_rows(GROUPS, DATA)
    assert len({row["doc_id"] for row in rows}) == len(rows) == 10 * (5 + 3)
    assert Counter(row["role"] for row in rows) == {
        "forget": 20,
        "mixed": 10,
        "retain": 10,
        "unseen": 10,
        "control": 30,
    }
    assert all(row["doc_id"] == f"{row['group_id']}:{row['language']}" for row in rows)
    by_group = {row["group_id"]: row["split"] for row in rows}
    assert all(row["split"] == by_group[row["group_id"]] for row in rows)
    assert Counter(by_group.values()) == {"train": 5, "tune": 2, "test": 3}


def test_rows_do_not_depend_on_the_order_of_the_file():
    assert corpus_rows(GROUPS, DATA) == corpus_rows(GROUPS[::-1], DATA)


def test_another_seed_is_another_split():
    splits = {tuple(sorted(split_groups(GROUPS, DATA["splits"], seed).items())) for seed in range(5)}
    assert len(splits) > 1


def test_every_split_holds_every_topic_in_proportion():
    groups = [
        {"group_id": f"{topic}{i}", "topic": topic}
        for topic, n in zip("abc", (60, 30, 10), strict=True)
        for i in range(n)
    ]
    splits = split_groups(groups, {"train": 50, "tune": 20, "test": 20}, seed=3)
    for name, count in Counter(splits.values()).items():
        for topic, share in zip("abc", (0.6, 0.3, 0.1), strict=True):
            found = sum(split == name and group_id[0] == topic for group_id, split in splits.items())
            assert abs(found - share * count) <= 1


def test_fewer_groups_than_the_splits_ask_for():
    with pytest.raises(ValueError, match=r"11 groups \(6 train \+ 2 tune \+ 3 test\) and the corpus has 10"):
        split_groups(GROUPS, {"train": 6, "tune": 2, "test": 3}, 0)


def test_more_groups_than_the_splits_use(caplog):
    with caplog.at_level("INFO", "mmie"):
        splits = split_groups([group(i) for i in range(12)], DATA["splits"], 0)
    assert len(splits) == 10
    assert "2 of 12 groups are in no split" in caplog.text


def test_parquet_and_jsonl_are_the_same_corpus(tmp_path, corpus):
    pd.DataFrame(GROUPS).to_parquet(tmp_path / "corpus.parquet")
    assert read_groups(tmp_path / "corpus.parquet", DATA) == read_groups(corpus(*GROUPS), DATA)


def test_texts_become_nfc_and_lose_outer_spaces(corpus):
    precomposed = "वह बाज़ार गया।".replace("ज़", "\u095b")
    (read,) = read_groups(corpus(group(0, hi=f"  {precomposed} ")), DATA)
    assert read["hi"] == unicodedata.normalize("NFC", precomposed) != precomposed


def test_topic_and_register_are_optional(corpus):
    bare = {key: value for key, value in group(0).items() if key not in ("topic", "register")}
    assert read_groups(corpus(bare), DATA)[0]["topic"] == ""


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        read_groups(tmp_path / "corpus.jsonl", DATA)


def test_unknown_kind_of_file(tmp_path):
    with pytest.raises(ValueError, match=r"not `\.csv`"):
        read_groups(tmp_path / "corpus.csv", DATA)


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_empty_corpus(tmp_path, text):
    (tmp_path / "corpus.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"corpus\.jsonl is empty"):
        read_groups(tmp_path / "corpus.jsonl", DATA)


def test_a_file_that_is_not_utf8(corpus):
    path = corpus(*GROUPS[:2])
    path.write_bytes(path.read_bytes() + '{"group_id": "café"}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match="line 3: byte 0xe9 at column 18 is not UTF-8"):
        read_groups(path, DATA)


def test_a_line_that_is_not_json(corpus):
    path = corpus(GROUPS[0])
    path.write_text(path.read_text(encoding="utf-8") + "{'group_id': 1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: not valid JSON"):
        read_groups(path, DATA)


def test_a_parquet_file_that_is_none(tmp_path):
    (tmp_path / "corpus.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        read_groups(tmp_path / "corpus.parquet", DATA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fr": "Bonjour"}, "line 2: unknown column `fr`"),
        ({"group_id": None}, "line 2: group_id is None"),
        ({"group_id": "g-00"}, "group g-00 is there 2 times"),
        ({"mr": None}, r"line 2 \(group g-01\): `mr` is empty"),
        ({"mr": ""}, r"line 2 \(group g-01\): `mr` is empty"),
        ({"mr": " \t"}, r"line 2 \(group g-01\): `mr` is empty"),
        ({"mr": 7}, r"`mr` is 7, expected text"),
        ({"topic": 7}, r"topic is 7, expected text"),
        ({"en": "half \ud83d"}, "`en` has half a character"),
        ({"en": group(0)["en"].upper()}, "groups g-00 and g-01 have the same `en` text"),
        ({"hi": "The wrong column"}, r"`hi` of group g-01 \('The wrong column'\) has 0% of its letters in Deva"),
        ({"en": "..."}, "has 0% of its letters in Latn"),
    ],
)
def test_a_bad_group_is_named(tmp_path, changes, message):
    lines = [json.dumps(g) for g in (group(0), group(1, **changes))]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_groups(tmp_path / "corpus.jsonl", DATA)


def test_a_missing_language_column(corpus):
    lacking = group(0)
    del lacking["mr"]
    with pytest.raises(ValueError, match="column `mr` is missing"):
        read_groups(corpus(lacking), DATA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"retain": "fr"}, r"`data.retain: fr` is not in `data.scripts`"),
        ({"forget": {"native": "ta", "roman": None}}, r"`data.forget.native: ta` is not in"),
        ({"neighbours": ["en"]}, "`data.neighbours: en` already has the role retain"),
        ({"unseen": []}, "`data.scripts.mr` has no role"),
        ({"scripts": DATA["scripts"] | {"mr": "Marathi"}}, "`Marathi` is not the code of a script"),
        ({"scripts": DATA["scripts"] | {"mr": "Zyyy"}}, "only `data.mixed` may mix scripts"),
        ({"scripts": DATA["scripts"] | {"en_deva": "Deva"}, "unseen": ["mr", "en_deva"]}, "this name is taken"),
    ],
)
def test_a_config_that_contradicts_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        roles(DATA | changes)


def test_a_language_pair_without_romanised_or_mixed_text():
    data = DATA | {"scripts": {"fr": "Latn", "de": "Latn"}, "forget": {"native": "fr", "roman": None}, "mixed": None}
    data |= {"retain": "de", "unseen": []}
    assert roles(data) == {"fr": "forget", "de": "retain"}
