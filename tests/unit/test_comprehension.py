"""Questions of the comprehension tasks are fair and always the same; inside lm-eval they are scored as it does."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

import tiny
from mmie import comprehension, tables
from mmie.batches import encode
from mmie.model import load
from mmie.option_scores import option_scores

ROOT = Path(__file__).parents[2]
DATA = yaml.safe_load((ROOT / "config.yaml").read_text())["data"]
LANGUAGES = ("en", "hi", "hi_latn", "ur", "pa", "bn", "mr")


@pytest.fixture(scope="module")
def corpus():
    lines = (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    return pd.DataFrame(
        [
            {"group_id": f"g{i}", "language": code, "split": "test", "topic": f"topic{i % 4}", "text": group[code]}
            for i, group in enumerate(map(json.loads, lines))
            for code in LANGUAGES
        ]
    )


@pytest.fixture(scope="module")
def knowledge():
    return comprehension.read_knowledge(ROOT / "data/knowledge.jsonl")


@pytest.fixture(scope="module")
def items(corpus, knowledge, tmp_path_factory):
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    tables.write(comprehension.make_items(corpus, knowledge, "test", DATA, 12), path, tables.ITEMS)
    return tables.read(path, tables.ITEMS)


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


def test_every_task_and_language_has_its_questions(items):
    counts = items.groupby(["task", "language"]).size().to_dict()
    meaning = {("meaning", code): 12 for code in ("hi", "hi_latn", "ur", "pa", "bn", "mr")}
    cloze = {("cloze", code): 12 for code in LANGUAGES}
    assert counts == {**meaning, **cloze, ("identify", "all"): 12, ("knowledge", "en"): 12}
    assert items["item_id"].is_unique


def test_options_differ_and_the_gold_one_is_right(items, corpus):
    english = corpus[corpus["language"] == "en"].set_index("group_id")
    for item in items.to_dict("records"):
        assert len(set(item["options"])) == len(item["options"]) == (2 if item["task"] == "identify" else 4)
        if item["task"] == "meaning":
            right = item["options"][item["gold"]]
            assert english["text"][item["group_id"]].startswith(right) and len(right.split()) == 10
            others = english[english["text"].map(lambda t, o=item["options"]: t.startswith(tuple(o)))]
            assert others["topic"].nunique() == 1, "distractors are of the same topic"
    places = items.loc[items["task"] == "meaning", "gold"].value_counts(normalize=True)
    assert len(places) == 4, "the right answer is anywhere"


def test_half_of_the_texts_to_identify_are_in_the_forgotten_language(items, corpus):
    rows = items[items["task"] == "identify"]
    language = dict(zip(corpus["text"], corpus["language"], strict=True))
    spoken = rows["text"].map(language).isin(["hi", "hi_latn"])
    said = [options[gold] == "Yes" for options, gold in zip(rows["options"], rows["gold"], strict=True)]
    assert list(spoken) == said and spoken.sum() == 6 and rows["text"].map(language).nunique() >= 6


def test_more_questions_include_the_first_ones(corpus, knowledge):
    few, many = (comprehension.make_items(corpus, knowledge, "test", DATA, n) for n in (5, 9))
    known = {item["item_id"]: item for item in many}
    assert all(known[item["item_id"]] == item for item in few if item["task"] != "identify")
    shuffled = corpus.sample(frac=1, random_state=1)
    assert comprehension.make_items(shuffled, knowledge, "test", DATA, 5) == few


def test_bad_input_is_named(corpus, knowledge, tmp_path):
    with pytest.raises(ValueError, match=r"3\. Raise config `data\.splits`"):
        comprehension.make_items(corpus[corpus["group_id"].isin(["g0", "g1", "g2"])], knowledge, "test", DATA, 5)
    (tmp_path / "facts.jsonl").write_text('{"question": "A", "options": ["b", "c", "d", "d"]}\n')
    with pytest.raises(ValueError, match="line 1: needs `question` and 4 different"):
        comprehension.read_knowledge(tmp_path / "facts.jsonl")


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_options_score_as_if_each_were_read_alone(loaded, batch_tokens):
    model, tokenizer = loaded
    questions = [
        (encode(tokenizer, text[:20]), [encode(tokenizer, option)[1:] for option in options])
        for text, options in zip(
            tiny.SAMPLE[:4], (["a", "bc"], ["garden", "x", "rain fell"], ["yes"], ["the", "a b c"]), strict=True
        )
    ]
    for (asked, options), scores in zip(
        questions, option_scores(model, tokenizer, questions, batch_tokens), strict=True
    ):
        for option, score in zip(options, scores, strict=True):
            ids = torch.tensor([[*asked, *option]])
            with torch.inference_mode():
                log_p = model(ids).logits[0].double().log_softmax(-1)
            own = log_p[len(asked) - 1 : -1].gather(-1, ids[0, len(asked) :, None])
            assert score == pytest.approx(float(own.sum()), rel=1e-4)


def test_an_empty_option_is_refused(loaded):
    with pytest.raises(ValueError, match="at least one token"):
        option_scores(*loaded, [([2, 5], [[4], []])])


def test_the_fast_pass_answers_as_lm_eval_does(loaded, items):
    from lm_eval.models.huggingface import HFLM

    from mmie.harness import Harness, answer_items, read_templates

    templates = read_templates((ROOT / "data/comprehension.yaml").read_bytes())
    some = items.groupby(["task", "language"]).head(2).reset_index(drop=True)
    own = answer_items(Harness(*loaded), some, templates, DATA)
    stock = answer_items(HFLM(pretrained=loaded[0], tokenizer=loaded[1], batch_size=4), some, templates, DATA)
    assert [answer["chosen"] for answer in own] == [answer["chosen"] for answer in stock]
    assert [a["lead"] for a in own] == pytest.approx([a["lead"] for a in stock], abs=2e-3)
    rows = comprehension.rows_of(some, own, {"arm": "base", "seed": 0, "variant": "plain"})
    assert {row["correct"] for row in rows} <= {0, 1} and len(rows) == len(some)
    with pytest.raises(ValueError, match="lacks the task `cloze`"):
        answer_items(Harness(*loaded), some, {k: v for k, v in templates.items() if k != "cloze"}, DATA)
