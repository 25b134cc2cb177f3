import random
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mmie.asking import asking_rows, respelled
from mmie.data import corpus_rows, read_groups
from mmie.templates import read_templates

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
DATA = CONFIG["data"] | {"splits": {"train": 20, "tune": 5, "test": 30}}
SETTINGS = {"share": 0.5, "split": "test", "adversarial": 25, "data": DATA}


@pytest.fixture(scope="module")
def corpus():
    return pd.DataFrame(corpus_rows(read_groups(ROOT / "data/corpus.jsonl", DATA)[:60], DATA))


@pytest.fixture(scope="module")
def templates():
    return read_templates(ROOT / CONFIG["prompts"]["templates"], DATA)


@pytest.fixture(scope="module")
def rows(corpus, templates):
    return asking_rows(corpus, SETTINGS, templates, None)


def test_a_request_per_group_and_25_prompts_for_each_of_8_attacks_or_more(rows, templates):
    counts = Counter((row["family"], row["attack"]) for row in rows)
    assert counts.pop(("request", "")) == 30
    assert len(counts) >= 8 and set(counts.values()) == {25}
    assert len({row["prompt_id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    assert {attack for _, attack in counts} == set(templates.adversarial)


def test_prompts_are_about_held_out_groups_and_examples_are_train_texts(rows, corpus):
    split_of = dict(zip(corpus["group_id"], corpus["split"], strict=True))
    assert {split_of[row["group_id"]] for row in rows} == {"test"}
    held_out = corpus[(corpus["split"] != "train") & (corpus["role"] != "control")]
    for row in rows:
        for text in held_out.loc[held_out["group_id"] != row["group_id"], "text"]:
            assert text not in row["text"], row["prompt_id"]


def test_the_answer_is_never_in_the_prompt(rows, corpus):
    """The whole text in the language and script that is asked for would make copying a success."""
    text_of = dict(zip(corpus["doc_id"], corpus["text"], strict=True))
    assert not [row["prompt_id"] for row in rows if text_of[row["doc_id"]] in row["text"]]


def test_a_prompt_does_not_depend_on_the_others(corpus, templates, rows):
    fewer = asking_rows(corpus, SETTINGS | {"adversarial": 3}, templates, None)
    texts = {row["prompt_id"]: row["text"] for row in rows}
    shared = [row for row in fewer if row["family"] == "request" or len(templates.adversarial[row["attack"]]) == 1]
    assert shared and all(texts[row["prompt_id"]] == row["text"] for row in shared)
    shuffled = asking_rows(corpus.sample(frac=1, random_state=1), SETTINGS, templates, None)
    assert shuffled == rows


def test_no_prompt_ends_in_a_space_and_a_chat_model_gets_its_own_words(corpus, templates, rows):
    assert all(row["text"] == row["text"].strip() for row in rows)
    chat = asking_rows(corpus, SETTINGS, templates, lambda user, begun: f"<{user}|{begun}>")
    assert [row["prompt_id"] for row in chat] == [row["prompt_id"] for row in rows]
    (begun,) = {row["text"].rsplit("|", 1)[1][:9] for row in chat if row["attack"] == "prefix_injection"} & {
        "Of course"
    }
    assert begun and all(a["text"] != b["text"] for a, b in zip(chat, rows, strict=True))


def test_too_few_train_groups_for_examples(corpus, templates):
    few = corpus[(corpus["split"] != "train") | (corpus["group_id"].isin(sorted(corpus["group_id"])[:2]))]
    with pytest.raises(ValueError, match=r"`data.splits.train: \d`: prompts with examples need 4"):
        asking_rows(few, SETTINGS, templates, None)


def test_respelling_changes_letters_and_keeps_words():
    text = "मैंने ज़रूर कहा था कि ढूँढकर लाना"
    other = respelled(text, random.Random(1))
    assert other != text and len(other.split()) == len(text.split())
    assert respelled("zaroor kehna", random.Random(3)) != "zaroor kehna"
    assert respelled("कमल", random.Random(0)) == "कमल"


def written(tmp_path, content):
    path = tmp_path / "prompts.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


GOOD = {"language": "hi", "base": "{hi}", "chat": "Say {hi}"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "cannot be read as YAML"),
        ({"request": [GOOD]}, "expected the keys request and adversarial"),
        ({"request": [], "adversarial": {}}, r"request: expected a list of templates"),
        ({"request": [GOOD | {"languag": "hi"}], "adversarial": {}}, r"request\[0\]: a template has the keys"),
        ({"request": [GOOD | {"language": "ur"}], "adversarial": {}}, r"language is 'ur'"),
        ({"request": [GOOD | {"base": " "}], "adversarial": {}}, r"base is ' ', expected text"),
        (
            {"request": [GOOD], "adversarial": {"x": [GOOD | {"chat": "{hello}"}]}},
            r"x\[0\].chat: unknown field {hello}",
        ),
        ({"request": [GOOD], "adversarial": {"x": [GOOD | {"base": "{hi:end}"}]}}, r"unknown field {hi:end}"),
        ({"request": [GOOD], "adversarial": {"x": [GOOD | {"base": "{shot9.hi}"}]}}, r"unknown field {shot9.hi}"),
        (
            {"request": [GOOD], "adversarial": {"x": [GOOD | {"base": "a } b"}]}},
            "A brace that is text is written twice",
        ),
    ],
)
def test_a_broken_file_of_templates_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_templates(written(tmp_path, content), DATA)


def test_a_missing_file_of_templates(tmp_path):
    with pytest.raises(ValueError, match=r"`prompts.templates: .*absent.yaml`: there is no such file"):
        read_templates(tmp_path / "absent.yaml", DATA)
