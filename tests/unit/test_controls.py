import random
from collections import Counter

import pytest
import regex

from mmie.controls import control_languages, control_texts, shuffle_letters
from mmie.pronunciation import in_devanagari
from mmie.scripts import letter_counts

DATA = {
    "seed": 0,
    "scripts": {"en": "Latn", "hi": "Deva", "hi_latn": "Latn"},
    "forget": {"native": "hi", "roman": "hi_latn"},
    "retain": "en",
    "neighbours": [],
}
HINDI = "क्या तुमने ऊपर आने से पहले दरवाज़ा बंद किया था, या मैं नीचे जाकर देख लूँ?"
ROMAN = "Kya tumne upar aane se pehle darwaza band kiya tha, ya main neeche jakar dekh loon?"
WORD = regex.compile(r"[\p{L}\p{M}]+")
# A vowel sign on nothing, on another sign, on a virama or on an independent vowel; a virama at the end.
ILLEGAL = regex.compile(r"(?<![क-ह]\u093c?)[ा-ौ]|्(?![क-ह])")


def words(text):
    return frozenset(word.lower() for word in WORD.findall(text))


def test_controls_of_the_default_and_of_another_pair():
    assert control_languages(DATA) == {
        "hi_shuffled": ("hi", "Deva"),
        "en_deva": ("en", "Deva"),
        "latin_shuffled": ("hi_latn", "Latn"),
    }
    scripts = DATA["scripts"] | {"ur": "Arab", "pa": "Guru", "bn": "Beng"}
    near = control_languages(DATA | {"scripts": scripts, "neighbours": ["ur", "pa", "bn"]})
    assert {name: near[name] for name in near if name not in control_languages(DATA)} == {
        "pa_deva": ("pa", "Deva"),
        "bn_deva": ("bn", "Deva"),
    }
    french = DATA | {"scripts": {"fr": "Latn", "en": "Latn"}, "forget": {"native": "fr", "roman": None}}
    assert control_languages(french) == {"fr_shuffled": ("fr", "Latn")}
    marathi = DATA | {"scripts": DATA["scripts"] | {"de": "Latn"}, "retain": "de"}
    assert "en_deva" not in control_languages(marathi)


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_hindi_keeps_letters_and_spelling_but_no_word(seed):
    shuffled = shuffle_letters(HINDI, words(HINDI), random.Random(seed))
    assert Counter(shuffled) == Counter(HINDI)
    assert not words(shuffled) & words(HINDI)
    assert ILLEGAL.search(HINDI) is None
    assert ILLEGAL.search(shuffled) is None
    assert len(shuffled.split()) == len(HINDI.split())
    assert letter_counts(shuffled) == letter_counts(HINDI)


def test_shuffled_latin_keeps_the_letters_of_each_long_word_and_the_capitals():
    shuffled = shuffle_letters(ROMAN, words(ROMAN), random.Random(0))
    assert not words(shuffled) & words(ROMAN)
    assert [len(word) for word in shuffled.split()] == [len(word) for word in ROMAN.split()]
    assert [c.isupper() for c in shuffled] == [c.isupper() for c in ROMAN]
    assert sorted(shuffled.lower()) == sorted(ROMAN.lower())


def test_a_word_of_one_letter_and_one_sign_trades_with_others():
    assert "है" not in shuffle_letters("वह घर में है", words("वह घर में है"), random.Random(0)).split()


def test_a_text_that_cannot_be_shuffled_ends():
    assert shuffle_letters("है", frozenset({"है"}), random.Random(0)) == "है"
    assert shuffle_letters("123 ।", frozenset(), random.Random(0)) == "123 ।"


def test_controls_are_seeded_and_independent_of_the_other_groups_order():
    groups = [{"group_id": str(i), "en": "The cat.", "hi": HINDI, "hi_latn": ROMAN} for i in range(3)]
    first = control_texts(groups, DATA)
    assert control_texts(groups[::-1], DATA) == first
    assert first["hi_shuffled", "0"] != first["hi_shuffled", "1"]
    assert control_texts(groups, DATA | {"seed": 1})["hi_shuffled", "0"] != first["hi_shuffled", "0"]


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        ("The street.", "द स्ट्रीट।"),
        ("school table", "स्कूल टेबल"),
        ("sofa", "सोफ़ा"),
        ("singing hand camp think", "सिंगिंग हैंड कैंप थिंक"),
        ("at 5.30, today!", "ऐट 5.30, टडे!"),
    ],
)
def test_english_in_devanagari(english, expected):
    assert in_devanagari(english) == expected


def test_english_in_devanagari_is_always_legally_spelt():
    text = "Priya's Zqxvila rhythm hour, Xyzzy O'Brien; naïve brrr hmm I a ngo psst fjord queue eighth strengths 'twas"
    written = in_devanagari(text)
    assert ILLEGAL.search(written) is None
    assert set(letter_counts(written)) == {"Deva"}
