"""The gate on models whose behaviour is known: whoever deserves a verdict gets it, and nobody gets one by accident."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from gate import main
from metrics_tables import (
    BASE,
    COLLAPSED,
    IDENTICAL,
    NO_QUALITY,
    PERFECT,
    SETTINGS,
    make_decision,
    make_metrics,
    make_quality,
)
from mmie import gate, tables
from mmie.labels import CORE, GATES
from mmie.verdict import as_json, config_hash, decide

ARMS = {"collapsed": COLLAPSED, "identical": IDENTICAL, "perfect": PERFECT}


@pytest.fixture(scope="module")
def small():
    metrics = make_metrics(ARMS, n=60)
    return metrics, *make_decision(metrics)


@pytest.fixture(scope="module")
def large():
    metrics = make_metrics(ARMS, n=200)
    return metrics, *make_decision(metrics)


def outcomes(decision, arm):
    return {name: found["outcome"] for name, found in decision["arms"][arm]["gates"].items()}


def test_perfect_proceeds_at_200_and_the_extended_verdict_waits_for_attacks(large):
    _, _, decision = large
    arm = decision["arms"]["perfect"]
    assert decision["complete"] and decision["label"] == ""
    assert arm["verdict"] == "PROCEED" and arm["outcome"] == "pass"
    assert arm["p"] <= 0.05 and arm["p_covers"] == list(CORE)
    assert arm["extended"]["verdict"] == "CANNOT CERTIFY" and arm["extended"]["p_covers"] == [*CORE, "G7", "G8"]
    assert arm["gates"]["G9"]["outcome"] == "missing" and "no attacks were run" in arm["gates"]["G9"]["reason"]


def test_without_canaries_nothing_proceeds():
    _, decision = make_decision(make_metrics({"perfect": PERFECT}, n=200, members=0))
    arm = decision["arms"]["perfect"]
    assert arm["verdict_g1_g5"] == "PROCEED (G1-G5 only)"
    assert arm["verdict"] == arm["extended"]["verdict"] == "CANNOT CERTIFY"
    assert not decision["complete"] and decision["label"].startswith("incomplete: G6")
    assert "no canaries were planted" in arm["sentence"]


def test_perfect_is_not_stopped_at_60_and_told_how_many_would_do(small):
    _, _, decision = small
    arm = decision["arms"]["perfect"]
    assert arm["verdict"] == "CANNOT CERTIFY" and arm["verdict_g1_g5"] == "CANNOT CERTIFY (G1-G5 only)"
    assert 150 <= arm["gates"]["G5"]["needed"] <= 300
    assert f"about {arm['gates']['G5']['needed']} groups" in arm["sentence"]
    assert arm["gates"]["G1"]["outcome"] == "pass"
    # A test of a mean with 60 texts is not believed, however small its p.
    assert arm["gates"]["G2"]["p"] < 0.001 and not arm["gates"]["G2"]["passes"]


@pytest.mark.parametrize("size", ["small", "large"])
def test_identical_fails_where_something_was_to_be_forgotten(size, request):
    _, _, decision = request.getfixturevalue(size)
    found = outcomes(decision, "identical")
    assert decision["arms"]["identical"]["verdict"] == "STOP"
    assert {name for name, outcome in found.items() if outcome == "fail"} == {"G1", "G3", "G6", "G7"}
    assert decision["arms"]["identical"]["gates"]["G1"]["estimate"] == 1.0


@pytest.mark.parametrize("size", ["small", "large"])
def test_collapsed_is_not_taken_for_unlearned(size, request):
    _, _, decision = request.getfixturevalue(size)
    found = outcomes(decision, "collapsed")
    assert decision["arms"]["collapsed"]["verdict"] == "STOP"
    assert found["G1"] == "pass"
    assert found["G2"] == found["G5"] == found["G8"] == "fail"
    assert found["G6"] == found["G7"] == "pass"


def test_debris_in_the_forget_script_is_not_unlearning(small):
    """Undetermined Devanagari counts as Hindi in the second reading, and the gate needs both."""
    metrics = small[0].copy()
    broad = (metrics["arm"] == "perfect") & (metrics["metric"] == "les_broad") & (metrics["family"] == "forget_native")
    metrics.loc[broad, "value"] = 1.0
    _, decision = make_decision(metrics)
    parts = decision["arms"]["perfect"]["gates"]["G1"]["parts"]
    assert parts["native"]["outcome"] == "pass" and parts["native:broad"]["outcome"] == "fail"
    assert decision["arms"]["perfect"]["verdict"] == "STOP"


@pytest.mark.parametrize(
    ("change", "gate_name", "part"),
    [
        ({"native": 0.8}, "G1", "native"),
        ({"roman": 0.8}, "G1", "roman"),
        ({"english": 1.3}, "G2", "en"),
        ({"register": 1.3}, "G2", "en2"),
        ({"mixed": 0.9}, "G3", "mixed"),
        ({"probe_shift": 2.0}, "G4", "layer6:hi_latn-latin_shuffled"),
        ({"leak": 0.3}, "G5", "ur:leak"),
        ({"neighbours": 1.3}, "G5", "bn:perplexity"),
        ({"unseen": 1.5}, "G5", "mr:perplexity"),
        ({"lost": 0.4}, "G5", "pa:confusion"),
        ({"member_shift": (1.0, 1.0)}, "G6", "min_k_plus"),
        ({"member_shift": (-1.0, -1.0)}, "G6", "loss"),
        ({"asked": 0.8}, "G7", "few_shot"),
        ({"asked": 0.8}, "G7", "request"),
        ({"und": 0.5}, "G8", "mixed:und"),
        ({"after": (("int4", 0.5),)}, "G9", "int4:roman"),
    ],
)
def test_each_harm_is_found_by_its_gate(change, gate_name, part):
    _, decision = make_decision(make_metrics({"arm": replace(PERFECT, **change)}, n=60))
    found = decision["arms"]["arm"]
    assert found["gates"][gate_name]["parts"][part]["outcome"] == "fail"
    assert found["verdict"] == ("STOP" if gate_name in CORE else "CANNOT CERTIFY")
    assert found["extended"]["verdict"] == "STOP"


def test_redistribution_below_the_edit_is_not_the_arms():
    """Layers before the first edited one are those of base; later ones count."""
    late = make_metrics({"arm": replace(PERFECT, probe_shift=1.0, first_layer=18)}, n=150)
    rows, _ = make_decision(late)
    assert rows[rows["gate"] == "G4"]["outcome"].tolist() == ["missing"]
    early = make_metrics({"arm": replace(PERFECT, first_layer=12)}, n=60)
    rows, _ = make_decision(early)
    assert {part.partition(":")[0] for part in rows[rows["gate"] == "G4"]["part"]} == {"layer12", "layer15", "layer17"}


def test_a_probe_that_leaves_no_room_says_so(small):
    """Where base decodes perfectly, AUC and nats cannot rise by the margin: the pass is marked as empty."""
    metrics = small[0].copy()
    probes = metrics["metric"] == "probe_score"
    sign = np.where(metrics["unit_id"].str.endswith(":hi") | metrics["unit_id"].str.endswith(":hi_latn"), 1, -1)
    metrics.loc[probes, "value"] = 6.0 * sign[probes]
    metrics.loc[metrics["metric"] == "probe_nats", "value"] = np.log(2) - np.logaddexp(0, -6.0)
    rows, decision = make_decision(metrics)
    assert rows[rows["gate"] == "G4"]["note"].str.contains("no edit could fail").all()
    assert any("no edit could fail" in reason for reason in decision["arms"]["perfect"]["reasons"])


def test_a_weak_assay_certifies_nothing():
    """If base itself hardly speaks Hindi, its absence in an arm shows nothing; damage elsewhere still does."""
    weak = replace(BASE, native=0.4)
    metrics = make_metrics({"good": PERFECT, "bad": replace(PERFECT, english=2.0)}, n=200, base=weak)
    _, decision = make_decision(metrics)
    assert not decision["assay"]["forget_native"]["ok"] and decision["assay"]["forget_roman"]["ok"]
    assert outcomes(decision, "good")["G1"] == "unclear"
    assert decision["arms"]["good"]["verdict_g1_g5"] == "CANNOT CERTIFY (G1-G5 only)"
    assert "assay is weak" in decision["arms"]["good"]["gates"]["G1"]["reason"]
    assert decision["arms"]["bad"]["verdict"] == "STOP"


def test_missing_data_never_passes(large):
    metrics = large[0]
    lost = {
        "G1": metrics["family"] == "forget_roman",
        "G2": metrics["language"] == "en2",
        "G3": metrics["family"] == "mixed",
        "G4": metrics["family"] == "probe",
        "G5": metrics["family"] == "unseen_mr",
        "G6": metrics["metric"] == "mia_zlib",
        "G7": metrics["family"] == "request",
    }
    for name, gone in lost.items():
        rows, decision = make_decision(metrics[~gone & metrics["arm"].isin(["base", "perfect"])])
        assert "missing" in set(rows[rows["gate"] == name]["outcome"])
        assert not decision["arms"]["perfect"]["gates"][name]["passes"]
        assert decision["arms"]["perfect"]["gates"][name]["outcome"] == "missing"
        assert decision["arms"]["perfect"]["verdict"] == ("CANNOT CERTIFY" if name in CORE else "PROCEED")


def test_row_order_changes_nothing(small):
    metrics, rows, decision = small
    shuffled = metrics.sample(frac=1, random_state=3)
    again, decided = make_decision(shuffled)
    pd.testing.assert_frame_equal(rows, again)
    assert as_json(decision) == as_json(decided)
    assert as_json(decide(rows.sample(frac=1, random_state=4), SETTINGS)) == as_json(decision)


def test_several_seeds_count_by_the_worst():
    arms = {"arm": PERFECT}
    metrics = make_metrics(arms, n=200, seeds=(0, 1, 2))
    bad = (
        (metrics["arm"] == "arm")
        & (metrics["seed"] == 1)
        & (metrics["metric"] == "les")
        & (metrics["family"] == "forget_roman")
    )
    metrics.loc[bad, "value"] = 1.0
    rows, decision = make_decision(metrics)
    found = decision["arms"]["arm"]
    assert decision["scope"] == found["scope"] == "all 3 checkpoints" and found["seeds"] == [0, 1, 2]
    assert "37%" in decision["scope_note"]
    assert found["gates"]["G1"]["part"] == "roman" and found["gates"]["G1"]["seed"] == 1
    assert found["gates"]["G1"]["p"] == pytest.approx(rows[rows["gate"] == "G1"]["p"].max())
    assert found["verdict"] == "STOP"


def test_p_of_an_arm_is_the_largest_and_is_adjusted_over_arms(large):
    _, rows, decision = large
    for arm, found in decision["arms"].items():
        core = rows[(rows["arm"] == arm) & rows["gate"].isin(CORE)]
        assert found["p"] == pytest.approx(core["p"].max(), rel=1e-9)
        assert found["p"] <= found["q"] <= found["p_by"] and found["p"] <= found["p_holm"]
        for name, one in found["gates"].items():
            if one["p"] is not None:
                assert one["p"] <= one["q"], name


def test_a_margin_changes_the_verdict_and_the_hash(large):
    metrics, _, decision = large
    strict = {
        **SETTINGS,
        "gate": {**SETTINGS["gate"], "margins": {**SETTINGS["gate"]["margins"], "unseen_perplexity": 1.05}},
    }
    _, other = make_decision(metrics, strict)
    assert other["arms"]["perfect"]["verdict"] == "STOP"
    assert other["config_hash"] == config_hash(strict) != decision["config_hash"]
    assert other["margins"]["unseen_perplexity"] == 1.05


def test_the_format_of_the_decision(small):
    _, rows, decision = small
    assert {"scope", "alpha", "q", "config_hash", "arms", "margins", "missing", "label"} <= decision.keys()
    for found in decision["arms"].values():
        assert {"verdict", "verdict_g1_g5", "extended", "scopes", "p", "reasons", "gates", "sentence"} <= found.keys()
        assert set(found["gates"]) == set(GATES)
        for one in found["gates"].values():
            assert {"passes", "estimate", "ci", "margin", "p", "q", "outcome", "parts", "reason"} <= one.keys()
            assert one["passes"] in (True, False) and len(one["ci"]) == 2
            assert bool(one["reason"]) == (one["outcome"] != "pass")
    assert json.loads(as_json(decision)) == decision
    assert not (rows["p"] <= 0).any()


def test_reasons_say_what_happened_in_numbers(small):
    _, _, decision = small
    reasons = decision["arms"]["collapsed"]["reasons"]
    assert reasons[0].startswith("G2 (retained language): English (second register) perplexity rose ×")
    assert any(r.startswith("G1") and "fell from" in r and "margin 0.50, p < 0.001" in r for r in reasons)
    assert decision["arms"]["collapsed"]["sentence"].startswith("collapsed, this checkpoint: STOP. Hindi extraction")


def test_unpaired_metrics_are_refused(small):
    metrics = small[0]
    lost = (metrics["arm"] == "perfect") & (metrics["metric"] == "les") & (metrics["unit_id"] == "mixed:g0003")
    with pytest.raises(ValueError, match=r"perfect, seed 0 lacks a unit.*mixed:g0003.*not paired"):
        gate.run_tests(metrics[~lost], NO_QUALITY, SETTINGS)
    with pytest.raises(ValueError, match="base"):
        gate.run_tests(metrics[metrics["arm"] != "base"], NO_QUALITY, SETTINGS)
    with pytest.raises(ValueError, match=r"perfect, seed 0 has a unit twice.*not paired"):
        gate.run_tests(pd.concat([metrics, metrics[lost]]), NO_QUALITY, SETTINGS)
    extra = metrics[lost].assign(unit_id="mixed:another")
    with pytest.raises(ValueError, match=r"perfect, seed 0 has what base lacks.*mixed:another.*not paired"):
        gate.run_tests(pd.concat([metrics, extra]), NO_QUALITY, SETTINGS)
    broken = metrics.copy()
    broken.loc[lost, "value"] = np.nan
    with pytest.raises(ValueError, match="missing"):
        gate.run_tests(broken, NO_QUALITY, SETTINGS)
    twice = metrics.copy()
    twice.loc[twice["unit_id"] == "mixed:g0003", "group_id"] = "g0004"
    with pytest.raises(ValueError, match="share a group"):
        gate.run_tests(twice, NO_QUALITY, SETTINGS)


def test_other_tokens_than_base_are_refused(small):
    metrics = small[0].copy()
    one = (metrics["arm"] == "perfect") & (metrics["metric"] == "n_tokens") & (metrics["unit_id"] == "g0003:en")
    metrics.loc[one, "value"] += 1
    with pytest.raises(ValueError, match="token counts"):
        gate.run_tests(metrics, NO_QUALITY, SETTINGS)


def test_the_stage_writes_the_same_bytes_from_rows_in_any_order(small, tmp_path):
    metrics = small[0][small[0]["arm"].isin(["base", "perfect"])]
    tables.write(make_quality(), tmp_path / "quality.parquet", tables.LID_QUALITY)
    for name, table in (("a", metrics), ("b", metrics.sample(frac=1, random_state=5))):
        tables.write(table, tmp_path / f"{name}.parquet", tables.METRICS)
        main(
            str(tmp_path / f"{name}.parquet"),
            str(tmp_path / "quality.parquet"),
            str(tmp_path / f"{name}_tests.parquet"),
            str(tmp_path / f"{name}.json"),
            SETTINGS,
        )
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a_tests.parquet").read_bytes() == (tmp_path / "b_tests.parquet").read_bytes()
    rows = tables.read(tmp_path / "a_tests.parquet", tables.TESTS)
    assert as_json(decide(rows, SETTINGS)) == (tmp_path / "a.json").read_text(encoding="utf-8")


def test_a_model_that_explodes_is_stopped_and_not_a_crash(small):
    metrics = small[0].copy()
    nll = (metrics["arm"] == "perfect") & (metrics["metric"] == "nll")
    metrics.loc[nll, "value"] = 1e6
    _, decision = make_decision(metrics)
    assert decision["arms"]["perfect"]["verdict"] == "STOP"
    as_json(decision)


def test_the_gate_loads_no_torch():
    code = "import sys, mmie.gate, mmie.verdict, mmie.metrics, mmie.probes; sys.exit('torch' in sys.modules)"
    scripts = str(Path(gate.__file__).parents[2])
    assert (
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": scripts}, check=False).returncode
        == 0
    )


def test_no_arms_no_verdict():
    metrics = make_metrics({}, n=20)
    _, decision = make_decision(metrics)
    assert decision["arms"] == {} and not decision["complete"]
