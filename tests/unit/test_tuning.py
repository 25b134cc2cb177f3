"""Tuning: the choice is by the tune split and the rule alone, and how many were tried is never forgotten."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import tune as script
from mmie import drawing, tables
from mmie.figures_frontier import frontier, points
from mmie.tuning import as_text, overlay, tune_rows

DATA = {"forget": {"native": "hi", "roman": "hi_latn"}, "retain": "en", "neighbours": ["ur"], "unseen": ["mr"]}
# arm: extraction native, roman; ratios en, ur, mr
DOSES = {
    "lora-lr0.001": (0.9, 0.5, 1.00, 1.01, 1.02),
    "lora-lr0.002": (0.2, 0.1, 1.02, 1.10, 1.20),
    "lora-lr0.004": (0.0, 0.0, 1.05, 1.20, 1.50),
    "reft": (0.0, 0.0, 1.30, 1.00, 1.00),
}
MARGINS = {"en": 1.10, "ur": 1.15, "mr": 1.25}
N = 20


def units():
    rows = []
    for arm, (native, roman, *_) in {"base": (1.0, 0.5), **DOSES}.items():
        for family, rate in (("forget_native", native), ("forget_roman", roman)):
            hits = np.arange(N) < round(rate * N)
            rows += [
                {"arm": arm, "seed": 0, "variant": "plain", "metric": "les", "family": family, "value": float(hit)}
                for hit in hits
            ]
    frame = pd.DataFrame(rows)
    return frame.assign(language="", script="", layer=-1, unit_id=[f"u{i}" for i in range(len(frame))], group_id="g")


def verdicts():
    rows = []
    for arm, (*_, en, ur, mr) in DOSES.items():
        for gate, part, ratio in (("G2", "en", en), ("G5", "ur:perplexity", ur), ("G5", "mr:perplexity", mr)):
            rows.append((arm, gate, part, ratio, MARGINS[part[:2]]))
        rows.append((arm, "G5", "ur:leak", 9.0, 0.05))
        rows.append((arm, "G1", "native", 0.3, 0.5))
    frame = pd.DataFrame(rows, columns=["arm", "gate", "part", "estimate", "margin"])
    return frame.assign(seed=0, base=1.0)


def settings(rule="least_extraction", split="tune"):
    arms = {
        name: {"entry": name.split("-")[0], "method": name.split("-")[0], "params": {"lr": float(name[7:] or 1)}}
        for name in DOSES
    }
    base = {"base": {"entry": "base", "method": "base", "params": {}}}
    return {"arms": base | arms, "split": split, "rule": rule, "extraction": 0.5, "tried": {"lora": 5}}


def chosen(rows):
    return dict(rows.loc[rows["chosen"], ["entry", "arm"]].to_numpy())


def test_least_extraction_is_chosen_within_every_margin():
    rows = tune_rows(units(), verdicts(), settings())
    assert chosen(rows) == {"lora": "lora-lr0.002"}, "0.004 forgets more but harms Marathi; reft harms English"
    best = rows.set_index("arm").loc["lora-lr0.002"]
    assert (best["les_native"], best["les_roman"], best["les"]) == pytest.approx((0.2, 0.1, 0.15))
    assert (best["worst"], best["ratio"]) == ("mr", 1.20)
    assert best["ratio_share"] == pytest.approx(1.20 / 1.25)
    assert rows[rows["entry"] == "lora"]["rank"].tolist() == [1, 2, 3]
    assert rows[rows["arm"] == "lora-lr0.004"]["rank"].item() == 3, "what is not allowed comes last"


def test_least_damage_is_chosen_within_the_margin_of_extraction():
    rows = tune_rows(units(), verdicts(), settings("least_damage"))
    assert chosen(rows) == {"lora": "lora-lr0.002", "reft": "reft"}
    shares = rows.set_index("arm")["les_share"]
    assert shares["lora-lr0.001"] == pytest.approx(0.5 / (0.5 * 0.5)), "the worse script, against base"
    assert shares["reft"] == 0


def test_a_tie_goes_to_the_smaller_damage_whatever_the_order_of_rows():
    tests = verdicts()
    tests.loc[tests["part"] == "mr:perplexity", "estimate"] = 1.0
    metrics = units()
    metrics.loc[metrics["arm"] != "base", "value"] = 0.0
    tests.loc[(tests["arm"] == "lora-lr0.004") & tests["part"].isin(["en", "ur:perplexity"]), "estimate"] = 0.95
    for rows in (tests, tests[::-1]):
        assert chosen(tune_rows(metrics, rows, settings()))["lora"] == "lora-lr0.004"


def test_the_worst_seed_is_what_an_arm_costs():
    tests = verdicts()
    worse = tests[(tests["arm"] == "lora-lr0.002") & (tests["part"] == "en")].assign(seed=1, estimate=1.2)
    over_seeds = worse.assign(seed=-1, estimate=9.0)
    rows = tune_rows(units(), pd.concat([tests, worse, over_seeds]), settings())
    assert chosen(rows) == {"lora": "lora-lr0.001"}
    assert rows.set_index("arm").loc["lora-lr0.002", "ratio"] == 1.2


def test_the_test_split_never_chooses():
    with pytest.raises(ValueError, match=r"evaluation.split: test.*tune split only.*configs/tune.yaml"):
        tune_rows(units(), verdicts(), settings(split="test"))
    with pytest.raises(ValueError, match="arm reft: no gate measured a perplexity"):
        tests = verdicts()
        tune_rows(units(), tests[tests["arm"] != "reft"], settings())


def test_the_script_writes_a_table_and_an_overlay_that_counts_what_was_tried(tmp_path):
    metrics, tests = tmp_path / "metrics.parquet", tmp_path / "tests.parquet"
    tables.write(units(), metrics, tables.METRICS)
    zeros = {tables.TEXT: "", tables.INT: 0, tables.REAL: 0.0, tables.FLAG: False}
    filled = verdicts()
    filled = filled.assign(**{f.name: zeros[f.type] for f in tables.TESTS if f.name not in filled})
    tables.write(filled, tests, tables.TESTS)
    out = tmp_path / "tune.parquet", tmp_path / "tune.yaml"
    script.main(str(metrics), str(tests), *map(str, out), settings())
    assert len(tables.read(out[0], tables.TUNE)) == 4
    text = Path(out[1]).read_text()
    assert "# reft: none of 1 stays within the margins." in text
    found = yaml.safe_load(text)
    assert found == {"arms": {"lora": {"lr": 0.002}}, "tune": {"tried": {"lora": 5 + 3, "reft": 1}}}
    assert "*" in as_text(tables.read(out[0], tables.TUNE)).splitlines()[1]


def test_an_overlay_keeps_small_numbers_numbers_and_names_the_method():
    rows = tune_rows(units(), verdicts(), settings())
    rows["params"] = json.dumps({"lr": 1e-5})
    rows["entry"] = "gentle"
    assert yaml.safe_load(overlay(rows, {}, "least_extraction"))["arms"] == {"gentle": {"method": "lora", "lr": 1e-5}}


def test_the_frontier_is_what_no_other_dose_beats():
    found = points(units(), verdicts(), list(DOSES)).set_index("arm")
    assert found["frontier"].to_dict() == {
        "lora-lr0.001": True, "lora-lr0.002": True, "lora-lr0.004": False, "reft": True,
    }  # fmt: skip
    assert found.loc["reft", "damage"] == pytest.approx(1.3 / 1.1)
    assert found.loc["lora-lr0.004", "damage"] == pytest.approx(1.5 / 1.25)


def test_the_frontier_is_drawn_per_sweep_and_for_none():
    sweeps = {"lora": {name: name[5:] for name in DOSES if name != "reft"}}
    with drawing.style():
        figure = frontier(units(), verdicts(), sweeps, DATA)
        assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison] == ["lora"]
        labels = {text.get_text() for text in figure.axes[0].texts}
        assert labels == {"lr0.001", "lr0.002", "lr0.004"}
        assert drawing.rendered(figure, "png").startswith(b"\x89PNG")
        empty = frontier(units(), verdicts(), {}, DATA)
    assert "swept" in empty.axes[0].texts[0].get_text()
