"""Recovery: known answers, and a figure that is whole with attacks and without."""

import numpy as np
import pandas as pd
import pytest

from metrics_tables import SETTINGS
from mmie import drawing, figures_recovery, tables

DATA = SETTINGS["data"]
SCRIPTS = {"native": ("forget_native", "hi"), "roman": ("forget_roman", "hi_latn")}
N = 20


def rows(arm, variant, metric, values, family, language, seed=0):
    units = [f"{family}:{i}" for i in range(len(values))]
    return pd.DataFrame(
        {
            "arm": arm, "seed": seed, "variant": variant, "metric": metric, "family": family, "language": language,
            "script": "", "layer": -1, "unit_id": units, "group_id": units, "value": np.asarray(values, float),
        }
    )  # fmt: skip


def run(arm, variant="plain", native=0, roman=0, nll=3.0, seed=0):
    """``native`` and ``roman`` of N openings are continued in the forget language; ``nll`` nats per English token."""
    parts = [
        rows(arm, variant, "les", [1] * hits + [0] * (N - hits), *SCRIPTS[script], seed=seed)
        for script, hits in (("native", native), ("roman", roman))
    ]
    parts += [
        rows(arm, variant, metric, [value] * 3, "texts", "en", seed)
        for metric, value in (("nll", 10 * nll), ("n_tokens", 10))
    ]
    return pd.concat(parts)


BASE = run("base", native=20, roman=10)
EMPTY = tables.METRICS.empty_table().to_pandas()


def recovered(*parts):
    return figures_recovery.recoveries(pd.concat([BASE, *parts]), DATA).set_index(["arm", "variant", "script"])["value"]


def test_recovery_is_the_share_of_the_way_back_to_base():
    found = recovered(run("lora", native=4), run("lora", "rtn4", native=12, roman=10))
    assert found["lora", "rtn4", "native"] == pytest.approx((0.6 - 0.2) / (1 - 0.2))
    assert found["lora", "rtn4", "roman"] == 1


def test_recovery_stays_between_0_and_1_and_its_interval_holds_it():
    table = pd.concat([BASE, run("lora", native=4, roman=2), run("lora", "x", native=2, roman=20)])
    found = figures_recovery.recoveries(table, DATA).set_index("script")
    assert found.loc["native", "value"] == 0 and found.loc["roman", "value"] == 1
    assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
    assert found.loc["native", "high"] > 0.05


def test_nothing_comes_back_where_nothing_was_forgotten():
    found = recovered(run("lora", native=20, roman=2), run("lora", "x", native=20, roman=2))
    assert list(found.index) == [("lora", "x", "roman")]


def test_seeds_are_compared_with_themselves_and_then_averaged():
    found = recovered(
        run("lora", native=0), run("lora", "x", native=10), run("lora", native=10, seed=1),
        run("lora", "x", native=10, seed=1),
    )  # fmt: skip
    assert found["lora", "x", "native"] == pytest.approx((0.5 + 0) / 2)


def test_damage_is_a_ratio_of_perplexities():
    table = pd.concat([BASE, run("lora"), run("lora", "x", nll=3 + np.log(2))])
    (row,) = figures_recovery.damage(table, DATA).to_dict("records")
    assert (row["arm"], row["variant"], row["value"]) == ("lora", "x", pytest.approx(2))


def test_a_language_without_a_second_script_has_no_panel_of_it():
    data = {**DATA, "forget": {"native": "hi"}}
    with drawing.style():
        figure = figures_recovery.recovery(
            pd.concat([BASE, run("lora"), run("lora", "x")]), ["base", "lora"], data, 0.1
        )
    assert len(figure.axes) == 2


def test_the_figure_has_a_line_of_panels_per_attack_and_a_point_per_arm():
    table = pd.concat(
        [BASE, run("lora"), run("grun"), *(run(a, v, native=9) for a in ("lora", "grun") for v in ("x", "y"))]
    )
    with drawing.style():
        figure = figures_recovery.recovery(table, ["base", "lora", "grun"], DATA, 0.1)
        assert drawing.rendered(figure, "png") == drawing.rendered(figure, "png")
    assert len(figure.axes) == 2 * 3 and [axes.get_title(loc="left") for axes in figure.axes[::3]] == ["x", "y"]
    for axes in figure.axes:
        points = {
            float(np.ravel(line.get_ydata())[0]) for line in axes.lines if line.get_marker() not in ("None", None)
        }
        assert points == {0.0, 1.0}


@pytest.mark.parametrize("table", [EMPTY, pd.concat([BASE, run("lora")])], ids=["empty", "not attacked"])
def test_without_attacks_the_figure_says_so(table):
    with drawing.style():
        figure = figures_recovery.recovery(table, ["base", "lora"], DATA, 0.1)
        drawing.rendered(figure, "pdf")
    assert "No arm was attacked" in figure.get_supxlabel()


def test_base_under_attack_is_a_share_of_its_own_rate():
    attacked = run("base", "rtn4", native=15, roman=10, nll=3 + np.log(1.5))
    found = recovered(run("lora"), run("lora", "rtn4"), attacked)
    assert found["base", "rtn4", "native"] == pytest.approx(0.75) and found["base", "rtn4", "roman"] == 1
    assert found["lora", "rtn4", "native"] == 0
    table = pd.concat([BASE, run("lora"), run("lora", "rtn4"), attacked])
    hurt = figures_recovery.damage(table, DATA).set_index("arm")["value"]
    assert hurt["base"] == pytest.approx(1.5) and hurt["lora"] == pytest.approx(1)
    with drawing.style():
        figure = figures_recovery.recovery(table, ["base", "lora"], DATA, 0.1)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["lora", "base"]
