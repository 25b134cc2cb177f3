import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mmie.prompting import PromptTokenizer, check_length, cut, in_order, opening_rows, read_tokenizer

ROOT = Path(__file__).parents[2]
DATA = {
    "forget": {"native": "hi", "roman": "hi_latn"},
    "mixed": "hi_mixed",
    "retain": "en",
    "neighbours": ["ur"],
    "unseen": ["mr"],
}
SETTINGS = {"share": 0.5, "chat": False, "split": "test", "max_new_tokens": 20, "data": DATA}
PLAIN = PromptTokenizer(count=lambda text: len(text.split()), chat=None, context=30)


def corpus(**texts):
    rows = [
        {"group_id": f"g{i}", "language": language, "script": "Latn", "split": split, "role": "", "text": text}
        for i, split in enumerate(["test", "train", "test"])
        for language, text in texts.items()
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(doc_id=frame.group_id + ":" + frame.language)


TEXTS = dict.fromkeys(["mr", "ur", "en", "hi_mixed", "hi_latn", "hi", "hi_shuffled"], "one two three four five six")


def test_one_prompt_per_group_and_family_of_the_split_and_none_for_controls():
    rows = in_order(opening_rows(corpus(**TEXTS), SETTINGS, None), DATA)
    assert [row["prompt_id"] for row in rows] == [
        f"{family}:{group}"
        for family in ("forget_native", "forget_roman", "mixed", "retain_en", "neighbour_ur", "unseen_mr")
        for group in ("g0", "g2")
    ]
    assert {row["text"] for row in rows} == {"one two three"}
    assert rows[0]["doc_id"] == "g0:hi"


@pytest.mark.parametrize(
    ("words", "share", "left"),
    [(5, 0.1, 3), (5, 0.9, 3), (8, 0.5, 4), (9, 0.5, 5), (20, 0.95, 18), (20, 0.3, 6)],
)
def test_an_opening_has_its_share_of_the_words_within_bounds(words, share, left):
    text = " ".join(f"w{i}" for i in range(words))
    opening = cut(text, share, "Latn", "d")
    assert len(opening.split()) == left
    assert text.startswith(opening + " ")


def test_scripts_without_spaces_are_cut_between_characters():
    assert cut("今日はいい天気ですね", 0.5, "Jpan", "d") == "今日はいい"


def test_a_text_too_short_to_be_cut_is_named():
    with pytest.raises(ValueError, match=r"text g0:hi .* has 4 words"):
        cut("one two three four", 0.5, "Latn", "g0:hi")


def test_a_split_without_texts():
    with pytest.raises(ValueError, match=r"`evaluation.split: tune` has no texts"):
        opening_rows(corpus(**TEXTS), SETTINGS | {"split": "tune"}, None)


def test_a_prompt_longer_than_the_context_is_named():
    rows = in_order(opening_rows(corpus(**TEXTS), SETTINGS, None), DATA)
    check_length(rows, PLAIN, 27)
    with pytest.raises(ValueError, match=r"prompt forget_native:g0 has 3 tokens .* context holds 30"):
        check_length(rows, PLAIN, 28)


def test_tokens_are_counted_as_the_model_counts_them(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = read_tokenizer(tiny_model, chat=False)
    text = "बारिश दोपहर से पहले and the children"
    assert tokenizer.count(text) == len(AutoTokenizer.from_pretrained(tiny_model.parent)(text)["input_ids"])
    assert tokenizer.context == json.loads((tiny_model.parent / "config.json").read_text())["max_position_embeddings"]


def test_chat_prompts_end_with_the_opening(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model.parent, tmp_path / "model")
    with pytest.raises(ValueError, match="has no chat template"):
        read_tokenizer(folder / "manifest.json", chat=True)
    template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    tokenizer = read_tokenizer(folder / "manifest.json", chat=True)
    (row,) = opening_rows(corpus(hi=TEXTS["hi"]).head(1), SETTINGS | {"chat": True}, tokenizer.chat)
    assert row["text"].startswith("<user>Continue")
    assert row["text"].endswith("<assistant>one two three")
    assert tokenizer.count(row["text"]) > tokenizer.count("one two three")
    assert tokenizer.chat("Speak!", "") == "<user>Speak!</>\n<assistant>"


def test_a_model_folder_without_config(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        read_tokenizer(tmp_path / "manifest.json", chat=False)


def test_making_prompts_does_not_import_torch(tiny_model):
    code = (
        "import sys, mmie.data, mmie.lid_scores; from mmie.prompting import read_tokenizer; "
        f"read_tokenizer({str(tiny_model)!r}, False).count('a'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "workflow_scripts")
