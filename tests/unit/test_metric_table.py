"""The table of metrics: every arm, every metric, an interval each, of the kind that fits."""

import io
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metrics_tables import COLLAPSED, NO_QUALITY, PERFECT, SETTINGS, make_decision, make_metrics, make_quality
from mmie import intervals, report_tables
from mmie.metric_table import COLUMNS, metric_table

ARMS = ["base", "zeta", "broken"]
PDFLATEX = shutil.which("pdflatex")


@pytest.fixture(scope="module")
def metrics():
    return make_metrics({"zeta": replace(PERFECT, after=(("int4", 0.03),)), "broken": COLLAPSED}, n=60, members=40)


@pytest.fixture(scope="module")
def table(metrics):
    return metric_table(metrics, make_quality(), ARMS)


def one(table, **keys):
    (row,) = table[np.logical_and.reduce([table[key] == value for key, value in keys.items()])].to_dict("records")
    return row


def test_every_arm_has_every_metric_once_in_the_order_given(table):
    assert list(table.columns) == list(COLUMNS) and list(dict.fromkeys(table["arm"])) == ARMS
    assert not table.duplicated(["arm", "seed", "variant", "metric", "where", "layer"]).any()
    plain = table[table["variant"] == "plain"]
    sets = [
        frozenset(zip(rows["metric"], rows["where"], rows["layer"].fillna(-1), strict=True))
        for _, rows in plain.groupby("arm")
    ]
    assert len(set(sets)) == 1
    assert set(table.loc[table["variant"] == "int4", "arm"]) == {"zeta"}


def test_rates_have_wilson_exact_corrected_and_ratio(table, metrics):
    row = one(table, arm="zeta", variant="plain", metric="les", where="forget_native")
    hits = round(row["value"] * row["n"])
    assert (row["low"], row["high"]) == intervals.proportion_interval(hits, 60) and row["interval"] == "Wilson"
    assert (row["low_exact"], row["high_exact"]) == intervals.proportion_interval(hits, 60, "beta")
    assert row["corrected_low"] <= row["corrected"] <= row["corrected_high"]
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"] < 0.5
    tests, _ = make_decision(metrics)
    gate = tests[(tests["arm"] == "zeta") & (tests["gate"] == "G1") & (tests["part"] == "native")].iloc[0]
    assert row["ratio"] == pytest.approx(gate["estimate"]) and row["ratio_high"] == pytest.approx(gate["ci_high"])


def test_perplexity_is_the_gates(table, metrics):
    tests, _ = make_decision(metrics)
    gate = tests[(tests["arm"] == "zeta") & (tests["part"] == "ur:perplexity")].iloc[0]
    row = one(table, arm="zeta", variant="plain", metric="perplexity", where="ur")
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == pytest.approx(
        (gate["estimate"], gate["ci_low"], gate["ci_high"])
    )
    assert row["value"] == pytest.approx(gate["value"]) and row["low"] < row["value"] < row["high"]


def test_intervals_hold_their_values_and_stay_on_their_scale(table):
    shown = table.dropna(subset=["low", "high"])
    assert ((shown["low"] <= shown["value"] + 1e-9) & (shown["value"] <= shown["high"] + 1e-9)).all()
    bounded = shown[shown["metric"].isin(["les", "und", "probe_auc", "mia_auc_loss", "mia_tpr_zlib"])]
    assert bounded["low"].ge(0).all() and bounded["high"].le(1).all()
    assert (table["interval"].eq("") == table["low"].isna()).all()


def test_without_the_detectors_errors_nothing_is_corrected(metrics):
    found = metric_table(metrics[metrics["arm"] == "base"], NO_QUALITY, ARMS)
    assert found["corrected"].isna().all()


def test_bca_is_not_shown_below_fifty_units():
    found = metric_table(make_metrics({}, n=30, members=0), NO_QUALITY, ["base"])
    assert found.loc[found["metric"] == "perplexity", "low"].isna().all()


def test_rows_in_another_order_give_the_same_csv(metrics, table):
    again = metric_table(metrics.sample(frac=1, random_state=2), make_quality(), ARMS)
    assert report_tables.csv(again) == report_tables.csv(table)
    assert len(pd.read_csv(io.StringIO(report_tables.csv(table)))) == len(table)


@pytest.mark.skipif(PDFLATEX is None, reason="pdflatex is not installed here: the tables are checked as text alone")
def test_the_latex_tables_compile(metrics, tmp_path):
    tests, decision = make_decision(metrics)
    data = SETTINGS["data"]
    bodies = report_tables.verdicts_tex(decision, ARMS) + report_tables.metrics_tex(metrics, tests, ARMS, data)
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "paper.tex").write_text(head + bodies + "\\end{document}\n")
    command = [str(PDFLATEX), "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
