"""Probes: they find what is there, nothing that is not, and never see a held-out group."""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from metrics_tables import SETTINGS
from mmie import tables
from mmie.probes import contrasts, folds, held_out_scores, nats, probe_texts, read_states
from probe import main

DATA = SETTINGS["data"]
LANGUAGES = ("hi", "hi_shuffled", "hi_latn", "latin_shuffled", "ur", "en")


def world(n=30, d=64, gap=0.0, seed=0):
    """States of n groups in all languages; Hindi in both scripts differs from the rest by ``gap`` per dimension."""
    rng = np.random.default_rng(seed)
    corpus, states = [], []
    for group in range(n):
        topic = rng.normal(size=d)
        for language in LANGUAGES:
            keys = {"doc_id": f"g{group:03d}:{language}", "group_id": f"g{group:03d}", "language": language}
            about = {"script": "Latn", "split": "test", "role": "control", "topic": "", "register": "", "text": "x"}
            corpus.append({**keys, **about})
            states.append(topic + rng.normal(size=d) + gap * (language in ("hi", "hi_latn")))
    table = pd.DataFrame(corpus)
    return table, list(table["doc_id"]), np.array(states)


def test_a_difference_is_found_and_its_absence_too():
    corpus, ids, states = world(n=60)
    none = probe_texts({6: states}, ids, corpus, "test", DATA).groupby("contrast")["auc"].first()
    corpus, ids, states = world(n=60, gap=1.0)
    clear = probe_texts({6: states}, ids, corpus, "test", DATA).groupby("contrast")["auc"].first()
    assert (none.between(0.3, 0.7)).all()
    assert (clear > 0.95).all()
    assert list(clear.index) == ["hi-hi_shuffled", "hi-ur", "hi_latn-latin_shuffled"]


def test_rows_fit_their_table(tmp_path):
    corpus, ids, states = world()
    rows = probe_texts({6: states, 9: states + 1}, ids, corpus, "test", DATA)
    assert len(rows) == 2 * 3 * 2 * 30
    tables.write(rows.assign(arm="a", seed=0, variant="plain"), tmp_path / "p.parquet", tables.PROBES)
    one = rows[(rows["layer"] == 6) & (rows["contrast"] == "hi-ur")]
    assert roc_auc_score(one["label"], one["score"]) == pytest.approx(one["auc"].iloc[0])
    assert rows["nats"].max() <= np.log(2)


def test_order_of_texts_does_not_matter():
    corpus, ids, states = world(gap=0.2)
    order = np.random.default_rng(1).permutation(len(ids))
    one = probe_texts({6: states}, ids, corpus, "test", DATA)
    other = probe_texts(
        {6: states[order]}, [ids[i] for i in order], corpus.sample(frac=1, random_state=0), "test", DATA
    )
    pd.testing.assert_frame_equal(one, other)


def test_the_span_loses_nothing():
    """The fit among inner products is the fit among features."""
    _, _, states = world(n=20, d=200, gap=0.3)
    states, labels, groups = states[:40], np.tile([1, 0], 20), np.repeat(np.arange(20), 2)
    scores = held_out_scores(states, labels, groups)
    for number in range(5):
        held = folds(groups) == number
        train = states[~held]
        scaled = (states - train.mean(0)) / train.std(0) / np.sqrt(200)
        direct = LogisticRegression(C=10.0, max_iter=5000, tol=1e-8).fit(scaled[~held], labels[~held])
        assert scores[held] == pytest.approx(direct.decision_function(scaled[held]), abs=2e-3)


def test_folds_keep_groups_whole_and_know_nothing_else():
    groups = np.array(["b", "a", "c", "a", "e", "d", "b", "c", "d", "e", "f"])
    fold = folds(groups)
    assert all(len(set(fold[groups == name])) == 1 for name in groups)
    assert set(fold) == {0, 1, 2, 3, 4}
    assert (folds(groups[::-1])[::-1] == fold).all()
    with pytest.raises(ValueError, match="5"):
        folds(groups[:4])


def test_nats_of_certainty_and_of_ignorance():
    assert nats(np.array([0.0, 0.0]), np.array([1, 0])) == pytest.approx([0, 0])
    assert nats(np.array([50.0, 50.0]), np.array([1, 0])) == pytest.approx([np.log(2), np.log(2) - 50])


def test_contrasts_follow_the_config():
    assert contrasts(DATA) == [("hi", "hi_shuffled"), ("hi_latn", "latin_shuffled"), ("hi", "ur")]
    assert contrasts({"forget": {"native": "bn", "roman": None}, "neighbours": []}) == [("bn", "bn_shuffled")]


def states_file(path, ids, states, **layers):
    save_file({"layer6": states.astype(np.float32), **layers}, path, metadata={"mmie": json.dumps({"doc_ids": ids})})


def test_the_stage_writes_the_same_bytes_twice(tmp_path):
    corpus, ids, states = world()
    tables.write(corpus, tmp_path / "corpus.parquet", tables.CORPUS)
    states_file(tmp_path / "s.safetensors", ids, states)
    run = {"split": "test", "data": DATA, "arm": "lora", "seed": 1, "variant": "plain"}
    for name in ("a", "b"):
        main(str(tmp_path / "s.safetensors"), str(tmp_path / "corpus.parquet"), str(tmp_path / f"{name}.parquet"), run)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_bad_states_name_their_file(tmp_path):
    _, ids, states = world(n=5)
    path = tmp_path / "s.safetensors"
    with pytest.raises(ValueError, match=r"s\.safetensors is missing"):
        read_states(path)
    states_file(path, ids, states)
    layers, found = read_states(path)
    assert found == ids and layers[6].shape == states.shape
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"s\.safetensors cannot be read"):
        read_states(path)
    states_file(path, ids[:-1], states)
    with pytest.raises(ValueError, match="layer6"):
        read_states(path)
    states_file(path, ids, np.full_like(states, np.nan))
    with pytest.raises(ValueError, match="finite"):
        read_states(path)


def test_a_contrast_without_texts_is_refused():
    corpus, ids, states = world()
    with pytest.raises(ValueError, match="latin_shuffled"):
        probe_texts({6: states}, ids, corpus[corpus["language"] != "latin_shuffled"], "test", DATA)
