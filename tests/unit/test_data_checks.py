import pandas as pd
import pytest

from mmie.data_checks import check_corpus
from mmie.lid import Detector

DATA = {
    "scripts": {"en": "Latn", "hi": "Deva", "hi_mixed": "Zyyy"},
    "forget": {"native": "hi", "roman": None},
    "mixed": "hi_mixed",
    "retain": "en",
    "checks": {"agreement": 0.98, "agreement_roman": 0.9, "near_duplicates": 0.01, "similarity": 0.5},
}
ENGLISH = [
    "The ferry left the island before the children had finished their lunch.",
    "Nobody told my aunt that the bank would be closed on Thursday afternoon.",
    "If you want the bread to rise, leave it near the stove for an hour.",
    "Our team lost the final because the goalkeeper slipped on the wet grass.",
]
HINDI = [
    "बच्चों का खाना ख़त्म होने से पहले ही नाव टापू से चल पड़ी थी।",
    "मेरी बुआ को किसी ने नहीं बताया कि गुरुवार की दोपहर बैंक बंद रहेगा।",
    "अगर तुम चाहते हो कि आटा फूले तो उसे एक घंटा चूल्हे के पास रख दो।",
    "गीली घास पर गोलकीपर के फिसलने से हमारी टीम फ़ाइनल हार गई।",
]


@pytest.fixture(scope="module")
def detector():
    return Detector("package", ["en", "hi"])


def corpus(english=ENGLISH, hindi=HINDI, splits=("train", "train", "tune", "test")):
    rows = []
    for i, split in enumerate(splits):
        texts = {
            "en": ("retain", english[i]),
            "hi": ("forget", hindi[i]),
            "hi_mixed": ("mixed", f"{hindi[i]} okay fine"),
        }
        for language, (role, text) in texts.items():
            rows.append({"doc_id": f"g{i}:{language}", "group_id": f"g{i}", "language": language, "split": split})
            rows[-1] |= {"role": role, "text": text}
        rows.append(
            {"doc_id": f"g{i}:c", "group_id": f"g{i}", "language": "c", "split": split, "role": "control", "text": "x"}
        )
    return pd.DataFrame(rows)


def test_a_good_corpus_passes_and_controls_are_not_checked(detector):
    rows = check_corpus(corpus(), detector, DATA)
    assert len(rows) == 12 and rows["agrees"].all()
    assert (rows["similarity"] < 0.5).all()
    assert rows.loc[rows["doc_id"] == "g0:en", "words"].item() == 12


def test_a_wrong_language_is_named(detector):
    with pytest.raises(ValueError, match=r"`en` in 75.0% of its 4 texts.*g1:en is other: 'Meine Tante"):
        wrong = [ENGLISH[0], "Meine Tante wusste nicht, dass die Bank geschlossen ist.", *ENGLISH[2:]]
        check_corpus(corpus(wrong), detector, DATA)


def test_a_near_duplicate_across_splits_is_refused(detector):
    twin = ENGLISH[0].replace("island", "harbour")
    with pytest.raises(ValueError, match=r"g0:en \(train\) and g3:en \(test\) are \d+% alike"):
        check_corpus(corpus([*ENGLISH[:3], twin]), detector, DATA)


def test_near_duplicates_within_a_split_are_counted(detector):
    twin = [ENGLISH[0], ENGLISH[0].replace("island", "harbour"), *ENGLISH[2:]]
    with pytest.raises(ValueError, match=r"50.0% of the `en` texts resemble another.*allows 1.0%"):
        check_corpus(corpus(twin), detector, DATA)
    allowed = DATA | {"checks": DATA["checks"] | {"near_duplicates": 0.5}}
    rows = check_corpus(corpus(twin), detector, allowed)
    assert rows.loc[rows["doc_id"] == "g1:en", "nearest"].item() == "g0:en"


def test_similarity_is_jaccard_of_character_5_grams(detector):
    def grams(text):
        padded = [f" {word} " for word in text.lower().split()]
        return {w[i : i + 5] for w in padded for i in range(max(1, len(w) - 4))}

    rows = check_corpus(corpus(), detector, DATA).set_index("doc_id")
    text = corpus().set_index("doc_id")["text"]
    for doc_id in ("g0:en", "g2:hi"):
        one, other = grams(text[doc_id]), grams(text[rows.nearest[doc_id]])
        assert rows.similarity[doc_id] == pytest.approx(len(one & other) / len(one | other))


def test_a_text_cut_short_is_named(detector):
    short = [*HINDI[:3], "हमारी टीम हार गई।"]
    with pytest.raises(ValueError, match=r"`hi` of group g3 has 4 words beside 13 in `en`"):
        check_corpus(corpus(hindi=short), detector, DATA)
