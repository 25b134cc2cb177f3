import copy
import hashlib
import json
import random
import subprocess
import sys
import unicodedata
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
PINNED = "685db145b27f9c3bba540e6bad75ebf8da3b085201cf3ee05d01ca12041be160"

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
        assert unicodedata.is_normalized("NFC", row["text"])


def test_documents_are_hindi(rows):
    detector = Detector("package", ["en", "hi", "hi_latn", "ur", "pa", "bn", "mr"])
    found = Counter((row["language"], detector.identify(row["text"]).language) for row in rows)
    assert found["native", "hi"] >= 0.98 * 1100
    assert found["roman", "hi_latn"] >= 0.95 * 1100


def test_surface_does_not_tell_the_default_members(grammar, rows):
    for found in (check_canaries(rows), check_canaries(canary_rows(grammar, 200, 600, 0))):
        assert set(found) == {"native", "roman", "pooled"}


def test_surface_auc_is_a_coin_toss_on_random_labels_and_the_same_each_time(rows):
    texts = texts_of(rows, "roman")[:400]
    drawn = [random.Random(i).sample([True] * 100 + [False] * 300, 400) for i in range(12)]
    aucs = [surface_auc(texts, member) for member in drawn]
    assert abs(sum(aucs) / len(aucs) - 0.5) < 0.04
    assert surface_auc(texts, drawn[0]) == aucs[0]


@pytest.mark.parametrize(
    "rig",
    [
        lambda text: text + " " + text.split()[0] + " aur",
        lambda text: text.replace("1", "2"),
        lambda text: text.replace(".", "!").replace("।", "!"),
    ],
    ids=["longer", "digits", "punctuation"],
)
def test_the_check_fails_where_members_have_another_surface(grammar, rig):
    rows = canary_rows(grammar, 200, 600, 0)
    rigged = [row | {"text": rig(row["text"])} if row["member"] else row for row in rows]
    with pytest.raises(ValueError, match=r"AUC 0\.\d+|AUC 1\.0.*canaries\.seed"):
        check_canaries(rigged)


def test_the_check_fails_where_one_script_alone_is_rigged(grammar):
    rows = canary_rows(grammar, 200, 600, 0)
    rigged = [
        row | {"text": row["text"] + " phir"} if row["member"] and row["language"] == "roman" else row for row in rows
    ]
    assert surface_aucs(rigged)["roman"] > 0.7
    assert surface_aucs(rigged)["native"] == surface_aucs(rows)["native"]
    with pytest.raises(ValueError, match=r"for roman.*`canaries\.seed`"):
        check_canaries(rigged)


def test_too_few_canaries_to_check_are_refused(grammar):
    with pytest.raises(ValueError, match=r"2 members and 20 non-members.*canaries\.members"):
        check_canaries(canary_rows(grammar, 4, 40, 0))


@pytest.mark.parametrize("language", LANGUAGES)
def test_late_documents_are_as_early_ones(grammar, language):
    """Non-members go on where members have ended: what is drawn again must not change what documents are like."""
    aucs = []
    for seed in range(4):
        texts = documents(grammar, language, 1100, seed)
        aucs.append(surface_auc(texts[:200] + texts[-500:], [True] * 200 + [False] * 500))
    assert sum(aucs) / len(aucs) < 0.55


def test_a_grammar_that_runs_out_shows_it_in_late_documents_or_says_so(written):
    grammar = read_grammar(written(SMALL))
    with pytest.raises(ValueError, match=r"too small for 5000 documents.*`canaries\.nonmembers`|24 to 45"):
        documents(grammar, "native", 5000, 0)


def test_a_document_keeps_its_draws_and_agrees_with_them(written):
    raw = copy.deepcopy(SMALL)
    for part in PARTS:
        raw["themes"]["market"][part] = [
            {
                "native": f"{{count.{part}}} {{name}} {{thing?बेचा/बेची}} {{thing}} {{pair}} " + "और " * 4 + "{pair.b}।",
                "roman": f"{{count.{part}}} {{name}} {{thing?becha/bechi}} {{thing}} {{pair}} "
                + "aur " * 4
                + "{pair.b}.",
            }
        ]
    grammar = read_grammar(written(raw))
    for text in (documents(grammar, "roman", 1, seed)[0] for seed in range(8)):
        sentences = [words_of(sentence) for sentence in text.split(". ")]
        for words in sentences:
            assert words[2:4] in (["becha", "ghada"], ["bechi", "thali"])
            # The entry `pair` has no label, so its `thing` and `name` are the frame's own.
            assert words[4] == words[3]
            assert words[6] == words[1]
            assert words[1:] == sentences[0][1:]
        assert len({words[0] for words in sentences}) == len(sentences)


def broken(*path, **change):
    """A grammar like SMALL, whose value at ``path`` is ``to``, or is gone."""
    raw = copy.deepcopy(SMALL)
    place = raw
    for key in path[:-1]:
        place = place[key]
    if "to" in change:
        place[path[-1]] = change["to"]
    else:
        del place[path[-1]]
    return raw


FRAME = ("themes", "market", "middle", 0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (broken("numbers"), "has the keys syllables, numbers"),
        (SMALL | {"common": {}}, "and no others"),
        (broken("words", to={}), "`words` is empty"),
        (broken("words", "thing", to=[]), "`words.thing` is empty"),
        (broken("words", "thing", 1, to="थाली"), r"`words.thing\[1\]: थाली` lacks a script"),
        (broken("words", "thing", 1, to="थाली | "), "lacks a script"),
        (broken("words", "thing", 1, to=7), "lacks a script"),
        (broken("words", "thing", 1, to="थाली | thali | x"), "`x` is no gender"),
        (broken("words", "thing", 1, to="थाली | थाली | f"), r"words.thing\[1\].roman: थाली` has letters in Deva"),
        (broken("words", "thing", 1, to="thali | thali | f"), "has letters in Latn"),
        (broken("words", "thing", 1, to="थाली | thali"), "agrees with `thing`, not all of whose entries have a gender"),
        (broken("syllables", "name", 1, to=[]), r"`syllables.name\[1\]` is empty"),
        (broken("syllables", "name", 1, 0, to="मल"), "lacks a script"),
        (broken("numbers", "count", to=[9, 3]), r"not \[least, most\]"),
        (broken("numbers", "count", to=["1", "3"]), r"not \[least, most\]"),
        (broken("numbers", "thing", to=[1, 3]), "`thing` is the name of two lists"),
        (broken("themes", "market", "closing"), "needs the parts opening, middle, closing"),
        (broken("themes", "market", "closing", to=[]), "`themes.market.closing` is empty"),
        (broken(*FRAME, "roman"), r"`themes.market.middle\[0\]` is not .*a script is missing"),
        (broken(*FRAME, "roman", to="{name} {count}."), "has no words"),
        (broken(*FRAME, "roman", to=""), "has no words"),
        (broken(*FRAME, "roman", to="{name.middle} ne becha"), "does not end in one of"),
        (broken(*FRAME, "roman", to="{name.middle} ne becha."), "slot .*thing.* is in one script only"),
        (broken(*FRAME, "roman", to="{name.middle ne becha."), "a brace without its other"),
        (broken(*FRAME, "roman", to="{Name!} ne becha."), "is no slot"),
        (broken(*FRAME, to={"native": "{nam} ने बेचा।", "roman": "{nam} ne becha."}), "Did you mean `name`"),
        (broken("words", "pair", 0, to="{pair} | {pair}"), "pair → pair contain each other"),
        (broken("function_words", "roman"), "`function_words.roman` is missing"),
        (
            broken(*FRAME, to={"native": "{name} एक दो तीन चार पाँच छह सात।", "roman": "{name} ek do."}),
            "`एक दो तीन चार पाँच छह सात` in a row make documents alike",
        ),
        (
            broken(*FRAME, to={"native": "{name} एक दो तीन चार पाँच छह।", "roman": "{name} ek do."}),
            None,
        ),
    ],
)
def test_a_broken_grammar_is_refused_with_file_entry_and_remedy(written, raw, message):
    path = written(raw)
    if message is None:
        read_grammar(path)
        return
    with pytest.raises(ValueError, match=message) as caught:
        read_grammar(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith((".", "?"))


def test_a_small_grammar_is_whole(written):
    assert read_grammar(written(SMALL)).numbers == {"count": (103, 989)}


def test_a_missing_file_and_no_yaml_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"canaries\.grammar: .*no such file"):
        read_grammar(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("words: [", encoding="utf-8")
    with pytest.raises(ValueError, match="is not YAML"):
        read_grammar(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1", encoding="utf-8")
    with pytest.raises(ValueError, match="has the keys"):
        read_grammar(tmp_path / "list.yaml")


def test_the_grammar_is_as_rich_as_it_says(grammar):
    assert PATH.stat().st_size <= 200_000
    assert sum(len(frames) for theme in grammar.frames.values() for frames in theme.values()) >= 60


def test_rows_need_no_scikit_learn():
    code = "import sys, mmie.canaries; sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT / "workflow_scripts").returncode == 0


def test_every_canary_is_composed(rows):
    assert all(unicodedata.is_normalized("NFC", row["text"]) for row in rows)
