from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mmie import tables
from mmie.layers import Roles, across_scripts, auc, combined, debiased_cka, evaluate, parallel, procrustes, ranking
from small_cache import DATA, LAYERS, write_cache

ROLES = Roles.of(DATA)


def rng():
    return np.random.default_rng(0)


def rotation(d):
    return np.linalg.qr(rng().normal(size=(d, d)))[0]


def layer(shared, n=40, d=64, seed=0, noise=1.0):
    """Groups whose languages have a direction each; ``shared`` of Hindi's is the same in both scripts."""
    draw = np.random.default_rng(seed)
    meaning, own = draw.normal(size=(n, d)), {name: draw.normal(size=d) for name in (*ROLES.others, *ROLES.forget)}
    hindi = draw.normal(size=d)
    for name in ROLES.forget:
        own[name] = shared * hindi + (1 - shared) * own[name]
    return {name: meaning + direction + noise * draw.normal(size=(n, d)) for name, direction in own.items()}


def test_cka_of_independent_rows_is_zero_where_the_plain_estimator_says_nearly_one():
    x, y = rng().normal(size=(2, 50, 640))
    centred = [m - m.mean(0) for m in (x, y)]
    grams = [m @ m.T for m in centred]
    plain = (grams[0] * grams[1]).sum() / np.sqrt((grams[0] ** 2).sum() * (grams[1] ** 2).sum())
    assert plain > 0.9
    assert abs(debiased_cka(x, y)) < 0.05


def test_cka_is_one_for_a_rotated_and_scaled_copy():
    x = rng().normal(size=(30, 8))
    assert debiased_cka(x, 3 * x @ rotation(8) + 5) == pytest.approx(1)


def test_hsic_is_the_mean_over_quadruples_of_distinct_rows():
    # Song et al. 2012: HSIC_1 is the U-statistic with kernel (1/4!) Σ k(k_tu (l_tu + l_vw − 2 l_tv)) over orders.
    from itertools import permutations

    from mmie.layers import _gram, _hsic

    x, y = rng().normal(size=(2, 6, 3))
    k, m = _gram(x), _gram(y)
    terms = [k[t, u] * (m[t, u] + m[v, w] - 2 * m[t, v]) for t, u, v, w in permutations(range(6), 4)]
    assert _hsic(k, m) == pytest.approx(np.mean(terms))


def test_too_few_texts_for_cka_are_named():
    with pytest.raises(ValueError, match=r"data\.splits"):
        debiased_cka(*rng().normal(size=(2, 3, 8)))


def test_procrustes_is_zero_up_to_rotation_and_two_when_orthogonal():
    x = rng().normal(size=(30, 8))
    assert procrustes(x, 3 * x @ rotation(8) + 5) == pytest.approx(0, abs=1e-9)
    values = np.zeros((4, 4))
    values[0, 0], values[1, 0] = 1, -1
    other = np.zeros((4, 4))
    other[2, 0], other[3, 0] = 1, -1
    assert procrustes(values, other) == pytest.approx(2)


def test_procrustes_equals_its_definition():
    x, y = rng().normal(size=(2, 20, 30))
    x, y = (m - m.mean(0) for m in (x, y))
    x, y = (m / np.linalg.norm(m) for m in (x, y))
    u, _, v = np.linalg.svd(x.T @ y)
    assert procrustes(x, y) == pytest.approx(np.linalg.norm(x @ (u @ v) - y) ** 2)


def test_auc_counts_ties_half():
    assert auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])) == pytest.approx(3.5 / 4)


def test_the_probe_transfers_between_scripts_only_where_they_share_a_direction():
    train = np.arange(40) < 30
    apart = np.mean([across_scripts(layer(0.0, seed=s), train, ROLES) for s in range(10)])
    assert across_scripts(layer(1.0), train, ROLES) > 0.99
    assert 0.3 < apart < 0.85


def test_one_script_is_probed_on_itself():
    train = np.arange(40) < 30
    single = Roles.of({**DATA, "forget": {"native": "hi", "roman": None}})
    assert single.forget == ("hi",)
    assert across_scripts(layer(0.0), train, single) > 0.99


def test_a_tiny_layer_is_scored_by_its_definition():
    train = np.arange(40) < 30
    states = layer(0.5)
    row = evaluate(states, train, ROLES)
    near = np.mean([debiased_cka(states["en"], states[m]) for m in ("ur", "pa", "bn")])
    far = np.mean([debiased_cka(states["en"], states[m]) for m in ("hi", "hi_latn")])
    assert row["cka_gap"] == pytest.approx(near - far)
    assert row["cka"] == pytest.approx(far)
    assert row["procrustes"] == pytest.approx(np.mean([procrustes(states["en"], states[m]) for m in ROLES.forget]))
    assert row["probe_gap"] <= 0 <= row["probe_auc"] <= 1


def test_the_layer_that_shares_hindi_across_scripts_wins_and_is_stable():
    train = np.arange(40) < 30
    states = {3: layer(0.0), 7: layer(1.0), 11: layer(0.0, seed=1)}
    table = ranking(states, train, ROLES, count=1, resamples=10, seed=0)
    assert table["layer"].tolist()[0] == 7 and table["rank"].tolist() == [1, 2, 3]
    assert table["stability"].tolist()[0] >= 0.9 and table["stability"].sum() == pytest.approx(1)
    again = ranking(dict(reversed(states.items())), train, ROLES, count=1, resamples=10, seed=0)
    pd.testing.assert_frame_equal(table, again)


def test_equal_layers_tie_and_the_earlier_comes_first():
    train = np.arange(40) < 30
    same = layer(0.5)
    table = ranking({9: same, 4: same}, train, ROLES, count=1, resamples=3, seed=0)
    assert table["layer"].tolist() == [4, 9] and table["score"].abs().max() < 1e-9


def test_a_gap_without_error_counts_nothing():
    gaps = np.array([[0.0, 1.0], [2.0, 5.0]])
    assert combined(gaps, np.array([1.0, 0.0])).tolist() == [-0.5, 0.5]


def test_bad_settings_are_named():
    train, states = np.arange(40) < 30, {1: layer(0.5)}
    with pytest.raises(ValueError, match=r"layers\.count: 2"):
        ranking(states, train, ROLES, count=2, resamples=3, seed=0)
    with pytest.raises(ValueError, match=r"layers\.resamples: 1"):
        ranking(states, train, ROLES, count=1, resamples=1, seed=0)


def test_parallel_pools_texts_and_standardises_on_the_train_groups():
    names = (*ROLES.forget, *ROLES.others)
    rows = [(f"{g}:{n}", g, n, "train" if g < "g2" else "tune") for g in ("g0", "g1", "g2") for n in names]
    rows.append(("g3:en", "g3", "en", "train"))  # has no translation: left out
    texts = pd.DataFrame(rows, columns=["doc_id", "group_id", "language", "split"])
    tokens = texts.loc[texts.index.repeat(2)].reset_index(drop=True).assign(row=range(2 * len(texts)))
    states = torch.tensor(rng().normal(size=(len(tokens), 3)) * [1, 100, 0] + [5, 0, 7]).bfloat16()
    found, train = parallel(states, tokens, ROLES)
    assert train.tolist() == [True, True, False] and set(found) == set(names)
    fitted = np.concatenate([m[train] for m in found.values()])
    assert np.allclose(fitted.mean(0), 0) and np.allclose(fitted.std(0), [1, 1, 0])
    first, other = (states[i : i + 2].double().mean(0).numpy() for i in (0, 2))
    gap = (found[names[0]][0] - found[names[1]][0])[:2]
    spread = np.stack([states[2 * i : 2 * i + 2].double().mean(0).numpy() for i in range(12)]).std(0)[:2]
    assert np.allclose(gap, (first - other)[:2] / spread)


def test_the_stage_ranks_the_cached_layers_without_transformers(tiny_model, tmp_path):
    made = write_cache(tmp_path, tiny_model)
    # Four parallel groups are the least that CKA takes, and halves need as many.
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from mmie import layers
layers._half = lambda draw, items: items
from select_layers import main
main({made["layers"]!r}, {made["index"]!r}, {made["corpus"]!r}, {str(tmp_path / "layers.parquet")!r},
     {{"candidates": {LAYERS}, "count": 1, "resamples": 2, "data": {DATA!r}}})
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2] / "workflow_scripts")
    table = tables.read(tmp_path / "layers.parquet", tables.LAYERS)
    assert sorted(table["layer"]) == LAYERS and table["rank"].tolist() == [1, 2]
