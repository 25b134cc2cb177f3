"""One arm against another: signs, intervals and scope are those of paired data."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metrics_tables import PERFECT, SETTINGS, make_metrics
from mmie.config import check_contrasts
from mmie.contrasts import COLUMNS, contrasts
from mmie.statistics import paired_table

DATA = SETTINGS["data"]
MODELS = {"good": PERFECT, "leaky": replace(PERFECT, native=0.4, leak=0.4)}


def table(seeds=(0,), n=60):
    return make_metrics(MODELS, n, seeds)


def rows(metrics, pair=("good", "leaky"), **wanted):
    found = contrasts(metrics, [pair], DATA)
    for name, value in wanted.items():
        found = found[found[name] == value]
    return found


def test_rates_are_paired_differences_with_both_ends():
    metrics = table()
    (row,) = rows(metrics, measure="extraction", where="forget_native").to_dict("records")
    les = metrics[(metrics["metric"] == "les") & (metrics["family"] == "forget_native")]
    wide = les.pivot(index="unit_id", columns="arm", values="value")
    _, n10, n01, _ = paired_table(wide["good"], wide["leaky"])
    assert row["estimate"] == pytest.approx((n10 - n01) / 60) == pytest.approx(row["first_value"] - row["second_value"])
    assert row["low"] < row["estimate"] < row["high"]
    assert row["high"] < 0
    assert (row["n"], row["seeds"], row["scope"]) == (60, 1, "checkpoints")


def test_turning_a_pair_round_turns_the_estimates():
    metrics = table((0, 1))
    there, back = rows(metrics), rows(metrics, ("leaky", "good"))
    rates = (there["measure"] != "perplexity").to_numpy()
    np.testing.assert_allclose(there["estimate"][rates], -back["estimate"].to_numpy()[rates], atol=1e-12)
    np.testing.assert_allclose(there["low"][rates], -back["high"].to_numpy()[rates], atol=1e-6)
    np.testing.assert_allclose(there["estimate"][~rates], 1 / back["estimate"].to_numpy()[~rates])


def test_an_arm_against_its_copy_is_no_difference():
    metrics = table()
    copy = metrics[metrics["arm"] == "good"].assign(arm="copy")
    found = rows(pd.concat([metrics, copy]), ("good", "copy"))
    assert (found["estimate"] == np.where(found["measure"] == "perplexity", 1.0, 0.0)).all()
    assert ((found["low"] <= found["estimate"]) & (found["estimate"] <= found["high"])).all()


def test_perplexity_is_the_ratio_of_the_arms_own_and_about_the_methods_with_five_seeds():
    for seeds, scope in (((0, 1), "checkpoints"), (range(5), "method")):
        found = rows(table(tuple(seeds)), measure="perplexity")
        assert set(found["scope"]) == {scope} and set(found["seeds"]) == {len(seeds)}
        assert {"en", "en2", "ur", "pa", "bn", "mr"} >= set(found["where"]) >= {"en", "ur", "mr"}
        assert ((found["low"] < found["estimate"]) & (found["estimate"] < found["high"])).all()
        np.testing.assert_allclose(found["estimate"], found["first_value"] / found["second_value"], rtol=0.01)


def test_an_arm_with_one_run_is_paired_with_every_seed():
    metrics = table((0, 1, 2))
    metrics = metrics[(metrics["arm"] != "leaky") | (metrics["seed"] == 0)]
    assert set(rows(metrics)["seeds"]) == {3}
    with pytest.raises(ValueError, match="different seeds"):
        rows(metrics[(metrics["arm"] != "good") | (metrics["seed"] < 2)].pipe(two_seeds_of_leaky))
    with pytest.raises(ValueError, match="'none' was not measured"):
        rows(metrics, ("good", "none"))


def two_seeds_of_leaky(metrics):
    other = metrics[metrics["arm"] == "leaky"]
    return pd.concat([metrics, other.assign(seed=5)])


def test_row_order_does_not_matter_and_no_pair_is_an_empty_table():
    metrics = table((0, 1))
    pd.testing.assert_frame_equal(rows(metrics), rows(metrics.sample(frac=1, random_state=0)))
    assert list(contrasts(metrics, [], DATA).columns) == list(COLUMNS)


def test_the_config_names_arms_of_the_run():
    assert check_contrasts([["grun", "reft"]], ["base", "grun", "reft"]) == [["grun", "reft"]]
    with pytest.raises(ValueError, match=r"'rft' is no arm of this run \(base, reft\)"):
        check_contrasts([["base", "rft"]], ["base", "reft"])
    with pytest.raises(ValueError, match="against itself"):
        check_contrasts([["reft", "reft"]], ["base", "reft"])
