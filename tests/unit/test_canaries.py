import copy
import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from mmie.canaries import SHARED, WORDS, canary_rows, documents
from mmie.canary_checks import check_canaries, overlap, surface_auc, surface_aucs
from mmie.canary_grammar import LANGUAGES, PARTS, RUN, read_grammar, words_of
from mmie.lid import Detector
from mmie.scripts import letter_counts

PROJECT = Path(__file__).parents[2]
PATH = PROJECT / "data" / "canaries.yaml"

# The smallest grammar that is whole: each test of a broken one breaks it in one place.
SMALL = {
    "syllables": {"name": [["को | ko", "ती | tee"], ["मल | mal", "रन | ran"]]},
    "numbers": {"count": [103, 989]},
    "words": {
        "thing": ["घड़ा | ghada | m", "थाली | thali | f"],
        "pair": ["{thing} और {name} | {thing} aur {name}"],
    },
    "themes": {
        "market": {
            part: [
                {
                    "native": f"{{name.{part}}} ने {{count.{part}}} में {{thing}} {{thing?बेचा/बेची}}।",
                    "roman": f"{{name.{part}}} ne {{count.{part}}} mein {{thing}} {{thing?becha/bechi}}.",
                }
            ]
            for part in PARTS
        }
    },
    "function_words": {"native": "ने में", "roman": "ne mein"},
}


@pytest.fixture(scope="module")
def grammar():
    return read_grammar(PATH)


@pytest.fixture(scope="module")
def rows(grammar):
    return canary_rows(grammar, 200, 2000, 0)


@pytest.fixture
def written(tmp_path):
    def write(raw):
        path = tmp_path / "canaries.yaml"
        path.write_text(yaml.safe_dump(raw, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return path

    return write


def texts_of(rows, language):
    return [row["text"] for row in rows if row["language"] == language]


@pytest.mark.parametrize(("members", "nonmembers"), [(200, 600), (200, 2000), (7, 4), (4, 7), (5, 0), (0, 5), (0, 0)])
def test_counts_are_exact_and_scripts_are_halves(grammar, members, nonmembers):
    rows = canary_rows(grammar, members, nonmembers, 1)
    found = Counter((row["member"], row["language"]) for row in rows)
    for member, count in ((True, members), (False, nonmembers)):
        native, roman = found[member, "native"], found[member, "roman"]
        assert native + roman == count
        assert 0 <= native - roman <= 1
    assert len({row["canary_id"] for row in rows}) == len({row["text"] for row in rows}) == members + nonmembers
    assert [row["canary_id"] for row in rows] == sorted(row["canary_id"] for row in rows)


def test_a_count_below_zero_is_refused(grammar):
    with pytest.raises(ValueError, match="nonmembers -1"):
        canary_rows(grammar, 1, -1, 0)


def test_the_same_canaries_on_every_python(grammar):
    """Changes only with the grammar or the generator: say so in the CHANGELOG, for planted models are then others."""
    written = json.dumps(canary_rows(grammar, 20, 60, 0), ensure_ascii=False, sort_keys=True)
    assert hashlib.sha256(written.encode()).hexdigest() == PINNED


def test_the_global_generator_is_neither_used_nor_touched(grammar):
    random.seed(1)
    before = random.getstate()
    first = canary_rows(grammar, 5, 5, 0)
    assert random.getstate() == before
    random.seed(2)
    assert canary_rows(grammar, 5, 5, 0) == first


def test_the_order_of_keys_does_not_matter(grammar, written):
    def turned(raw):
        if isinstance(raw, dict):
            return {key: turned(raw[key]) for key in reversed(raw)}
        return [turned(item) for item in raw] if isinstance(raw, list) else raw

    raw = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    assert list(turned(raw)) != list(raw)
    assert canary_rows(read_grammar(written(turned(raw))), 10, 30, 0) == canary_rows(grammar, 10, 30, 0)


def test_another_seed_gives_other_documents(grammar, rows):
    other = {row["text"] for row in canary_rows(grammar, 200, 2000, 1)}
    assert not other & {row["text"] for row in rows}


def test_more_nonmembers_change_no_row_that_was_there(grammar, rows):
    for nonmembers in (30, 600):
        fewer = canary_rows(grammar, 200, nonmembers, 0)
        assert [row for row in fewer if row["member"]] == [row for row in rows if row["member"]]
        assert {row["canary_id"]: row for row in fewer}.items() <= {row["canary_id"]: row for row in rows}.items()


def test_members_and_nonmembers_are_interleaved(rows):
    """Among the first 400 documents of the stream half are members, and the early ones no more than the late ones."""
    block = [row["member"] for row in rows[:400]]
    assert sum(block) == 200
    assert all(35 <= sum(block[i : i + 100]) <= 65 for i in range(0, 400, 100))


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_of_2200_documents_resemble_each_other(grammar, rows, language):
    run, share = overlap(texts_of(rows, language), grammar.function_words[language])
    assert run < RUN
    assert share <= SHARED
    # The measure itself sees the longest run that there is.
    assert run == RUN - 1
    sample = texts_of(rows, language)[:150]
    content = [set(words_of(text)) - grammar.function_words[language] for text in sample]
    shares = [len(a & b) / min(len(a), len(b)) for i, a in enumerate(content) for b in content[:i]]
    assert overlap(sample, grammar.function_words[language])[1] == max(shares)


def test_overlap_of_texts_whose_overlap_is_known():
    texts = ["एक दो तीन चार।", "पाँच दो, तीन चार", "छह सात"]
    assert overlap(texts, frozenset()) == (3, 0.75)
    assert overlap(texts, frozenset(["दो", "तीन"])) == (3, 0.5)
    assert overlap(["Ek do.", "teen ek DO"], frozenset()) == (2, 1.0)
    assert overlap(["एक"], frozenset()) == (0, 0.0)


def test_documents_are_in_one_script_and_of_the_length_of_two_or_three_sentences(rows):
    for row in rows:
        assert set(letter_counts(row["text"])) == {LANGUAGES[row["language"]]}
        assert WORDS[0] <= len(words_of(row["text"])) <= WORDS[1]
        assert row["text"].count("।" if row["language"] == "native" else ".") in (2, 3)
        assert not set("{}_|?/") & set(row["text"])
        assert "  " not in row["text"]


def test_documents_are_hindi(rows):
    detector = Detector("package", ["en", "hi", "hi_latn", "ur", "pa", "bn", "mr"])
    found = Counter((row["language"], detector.identify(row["text"]).language) for row in rows)
    assert found["native", "hi"] >= 0.98 * 1100
    assert found["roman", "hi_latn"] >= 0.95 * 1100
