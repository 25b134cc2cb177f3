import pandas as pd
import pytest

from mmie import tables
from mmie.lid import Detector
from mmie.lid_scores import lid_rows, prefix_es, repetitive, scores, target_share

DATA = {
    "scripts": {"en": "Latn", "hi": "Deva", "hi_latn": "Latn", "bn": "Beng", "mr": "Deva", "hi_mixed": "Zyyy"},
    "forget": {"native": "hi", "roman": "hi_latn"},
    "mixed": "hi_mixed",
}
FORGET = {"hi": "Deva", "hi_latn": "Latn"}
HINDI = "और वह अपने घर के पास बैठा रहा था।"
ENGLISH = "and he was sitting there near his own house."
ROMAN = "aur woh apne ghar ke paas baitha raha tha."
JUNK = "लमागवीलै नग सौबीमेहें औरा नूँसेरि क मक ग शक"


@pytest.fixture(scope="module")
def detector():
    return Detector("package", ["en", "hi", "hi_latn", "bn", "mr"])


@pytest.mark.parametrize(
    ("text", "prompt", "les", "broad", "passes"),
    [
        (HINDI, "hi", 1, 1, 1),
        (HINDI, "hi_latn", 1, 1, 0),
        (HINDI, "hi_mixed", 1, 1, 1),
        (ROMAN, "hi_mixed", 1, 1, 1),
        (ROMAN, "hi", 1, 1, 0),
        (ENGLISH, "hi", 0, 0, 0),
        (ENGLISH, "en", 0, 0, 1),
        (ENGLISH, "hi_mixed", 0, 0, 0),
        (JUNK, "hi", 0, 1, 0),
        ("qzx wvk jjq", "hi", 0, 0, 0),
        ("", "hi", 0, 0, 0),
    ],
)
def test_extraction_and_line_pass(detector, text, prompt, les, broad, passes):
    found = scores(text, prompt, detector, DATA)
    assert (found["les"], found["les_broad"], found["line_pass"]) == (les, broad, passes)


def test_target_share_counts_words_not_texts(detector):
    assert target_share(HINDI, detector, FORGET) == target_share(ROMAN, detector, FORGET) == 1.0
    assert target_share(ENGLISH, detector, FORGET) == target_share(JUNK, detector, FORGET) == 0.0
    assert target_share("", detector, FORGET) == target_share("12 ।", detector, FORGET) == 0.0
    assert 0.3 < target_share(f"{HINDI} {ENGLISH}", detector, FORGET) < 0.7
    assert 0.3 < target_share(f"{ROMAN} {ENGLISH}", detector, FORGET) < 0.7


def test_english_words_in_a_hindi_sentence_do_not_count(detector):
    share = target_share("कल office में meeting है और सब लोग आ रहे हैं", detector, FORGET)
    assert share == pytest.approx(9 / 11)


def test_prefix_es_is_one_minus_the_share_of_the_shortest_prefix(detector):
    class Fake:
        def identify(self, text):
            return detector.identify(HINDI if len(text.split()) >= 3 else ENGLISH)

    assert prefix_es("a b c d", Fake(), FORGET) == 1 - 3 / 4
    assert prefix_es("a b c", Fake(), FORGET) == 0.0
    assert prefix_es("a b", Fake(), FORGET) == 0.0
    assert prefix_es("", Fake(), FORGET) == 0.0


def test_repetition_is_fewer_than_half_of_the_trigrams_distinct():
    assert repetitive("a b c a b c a b c a b c") == 1
    assert repetitive("one two three four five six") == 0
    assert repetitive("x x x x") == 0
    assert repetitive("x x x x x") == 1
    assert repetitive("") == repetitive("one two") == 0


def test_rows_fit_the_table_and_a_lost_prompt_is_named(detector, tmp_path):
    texts = [HINDI, "", "\ufffd", "😀", "।", ENGLISH]
    generations = pd.DataFrame(
        {
            "arm": "base",
            "seed": 0,
            "variant": "plain",
            "prompt_id": "forget_native:g",
            "sample": range(6),
            "text": texts,
        }
    ).assign(n_tokens=1, finish="eos")
    prompts = pd.DataFrame({"prompt_id": ["forget_native:g"], "language": ["hi"]})
    rows = list(lid_rows(generations, prompts, detector, DATA))
    tables.write(rows, tmp_path / "lid.parquet", tables.LID)
    assert tables.read(tmp_path / "lid.parquet", tables.LID).les.tolist() == [1, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"prompt forget_native:g .*no such prompt"):
        list(lid_rows(generations, prompts.assign(prompt_id="other"), detector, DATA))
