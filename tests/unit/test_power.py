"""Power before a run: from the config alone, honest about what cannot pass, and the same every time."""

import re

import numpy as np
import pytest

from calibration.models import default_plan
from mmie import drawing, power_figure, tables
from mmie.assumptions import TARGET, Assumptions, described
from mmie.config import PROJECT
from mmie.labels import CORE
from mmie.power_parts import parts
from mmie.power_table import PROCEED, WHOLE, as_text, detectable, power_rows

SIZES = (60, 300)


@pytest.fixture(scope="module")
def rows():
    return power_rows(default_plan(), 200, 3, sizes=SIZES, sims=400)


def whole(rows, gate, seeds, n):
    found = rows[(rows["gate"] == gate) & (rows["part"] == WHOLE) & (rows["seeds"] == seeds) & (rows["n"] == n)]
    return float(found["power"].iloc[0])


def test_rows_are_a_table_with_the_same_bytes(rows, tmp_path):
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    tables.write(rows, one, tables.POWER)
    tables.write(power_rows(default_plan(), 200, 3, sizes=SIZES, sims=400), two, tables.POWER)
    assert one.read_bytes() == two.read_bytes()


def test_every_core_gate_and_the_configs_seeds_are_there(rows):
    assert set(CORE) | {"G7", "G8", "G9", PROCEED} == set(rows["gate"])
    configured = rows[rows["configured"]]
    assert set(configured.loc[configured["part"] == WHOLE, "seeds"]) == {1, 3, 5}
    assert configured.loc[configured["gate"] == "G6", "n"].unique().tolist() == [200]  # members, not groups
    assert not configured.duplicated(["gate", "part", "seeds"]).any()


def test_a_whole_is_no_more_likely_than_its_parts(rows):
    for gate in CORE:
        of_parts = rows[(rows["gate"] == gate) & (rows["part"] != WHOLE) & rows["configured"]]["power"].min()
        assert whole(rows, PROCEED, 1, 200) - 0.05 <= whole(rows, gate, 1, 200) <= of_parts + 0.05
        assert whole(rows, gate, 5, 200) <= whole(rows, gate, 1, 200) + 0.05
    assert whole(rows, PROCEED, 1, 60) == 0  # no mean of 60 texts is trusted
    assert whole(rows, PROCEED, 1, 300) > whole(rows, PROCEED, 1, 200)


def test_detectable_values_have_the_power():
    for part in parts(default_plan(), Assumptions()):
        value = detectable(part, 200)
        if value is not None:
            assert part.chance(200, value - 1e-3) >= TARGET - 0.02
            assert value < part.margin
            assert part.chance(200, (value + part.margin) / 2) < TARGET


def test_a_good_arm_is_better_than_the_margin():
    for part in parts(default_plan(), Assumptions()):
        assert part.good < part.margin, part.name


def test_stricter_margins_and_smaller_experiments_have_less_power():
    plan = default_plan()
    margins = plan.gate["margins"] | {"neighbour_leak": 0.02}
    strict = default_plan(gate=plan.gate | {"margins": margins})
    usual, less = (
        next(p for p in parts(given, Assumptions()) if p.name == "ur:leak").chance(200, 0.0) for given in (plan, strict)
    )
    assert less < 0.4 < 0.9 < usual


def test_without_canaries_nothing_proceeds():
    rows = power_rows(default_plan(members=0), 200, 1, sizes=(200,), sims=200)
    assert (rows.loc[rows["gate"] == PROCEED, "power"] == 0).all() and not (rows["gate"] == "G6").any()
    assert "no arm can PROCEED" in as_text(rows)


def test_the_text_says_what_the_experiment_can_do(rows):
    text = as_text(rows)
    assert re.search(r"PROCEED, one seed: 0\.\d\d with 200 groups", text)
    assert "G5       mr:confusion" in text and max(map(len, text.splitlines())) <= 110


def test_the_figure_is_drawn_from_the_table_alone(rows):
    with drawing.style():
        one, two = (drawing.rendered(power_figure.power_curves(rows), "png") for _ in range(2))
    assert one == two and one.startswith(b"\x89PNG")


def test_the_rule_reads_no_result():
    rule = (PROJECT / "rules/power.smk").read_text(encoding="utf-8")
    inputs = rule.partition("    input:")[2].partition("    output:")[0]
    assert inputs.strip() and "results" not in inputs and "rules." not in inputs


def test_every_assumption_has_a_source():
    assert len(described()) == len({name for name, *_ in described()}) > 20
    for name, value, meaning, source in described():
        assert np.isfinite(value) and len(meaning) > 10 and len(source) > 5, name
