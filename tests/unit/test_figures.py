"""Figures and the numbers behind them: known answers, bytes that never differ, axes that one broken arm cannot ruin."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from statsmodels.stats.proportion import proportion_confint

import figures as script
from metrics_tables import COLLAPSED, IDENTICAL, PERFECT
from mmie import drawing, figures, palette, summary, tables
from results_folder import DATA, figure_settings, write_results

ROOT = Path(__file__).parents[2]
NAMES = [
    "tradeoff", "les", "perplexity", "layer_scores", "training_curves", "languages", "attacks", "recovery", "membership",
    "corpus", "frontier",
]  # fmt: skip
ARMS = ["base", "lora", "broken"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results"), {"lora": PERFECT, "broken": COLLAPSED}, n=12, seeds=(0, 1))


@pytest.fixture(scope="module")
def units(inputs):
    return tables.read(inputs["metrics"], tables.METRICS)


@pytest.fixture(scope="module")
def tests_table(inputs):
    return tables.read(inputs["tests"], tables.TESTS)


def rows_of(arm, metric, values, family="texts", language="en", seed=0):
    return pd.DataFrame(
        {
            "arm": arm, "seed": seed, "variant": "plain", "metric": metric, "family": family, "language": language,
            "script": "", "layer": -1, "unit_id": [f"u{i}" for i in range(len(values))],
            "group_id": [f"g{i}" for i in range(len(values))], "value": np.asarray(values, float),
        }
    )  # fmt: skip


def untested():
    return tables.TESTS.empty_table().to_pandas().astype({"part": str, "gate": str})


@pytest.mark.parametrize(("hits", "n"), [(0, 60), (60, 60), (1, 60), (17, 40), (1, 1)])
def test_wilson_is_statsmodels_wilson(hits, n):
    low, high = summary.wilson([hits], [n])
    assert (low[0], high[0]) == pytest.approx(proportion_confint(hits, n, 0.05, "wilson"), abs=1e-9)


def test_rates_count_and_leave_attacked_variants_out():
    plain = rows_of("lora", "les", [1, 0, 0, 0], "forget_native", "hi")
    attacked = rows_of("lora", "les", [1, 1, 1, 1], "forget_native", "hi").assign(variant="int4")
    (row,) = summary.rates(pd.concat([plain, attacked])).to_dict("records")
    assert (row["n"], row["value"]) == (4, 0.25)


def test_perplexity_ratio_is_exact_for_a_constant_rise_per_token():
    tokens = np.array([10, 20, 30, 40])
    metrics = pd.concat(
        [
            rows_of("base", "nll", 3.0 * tokens),
            rows_of("base", "n_tokens", tokens),
            rows_of("lora", "nll", (3.0 + np.log(1.5)) * tokens),
            rows_of("lora", "n_tokens", tokens),
        ]
    )
    (row,) = summary.perplexity_ratios(metrics, untested(), DATA).to_dict("records")
    assert (row["value"], row["low"], row["high"]) == pytest.approx((1.5, 1.5, 1.5))
    assert row["n"] == 4
    assert np.isnan(row["margin"])


def test_the_gates_own_numbers_are_shown_where_a_gate_tests_the_language(units, tests_table):
    shown = summary.perplexity_ratios(units, tests_table, DATA).set_index(["arm", "seed", "language"])
    gate = tests_table[tests_table["part"] == "ur:perplexity"].set_index(["arm", "seed"])
    for key in gate.index:
        assert shown.loc[(*key, "ur"), "value"] == gate.loc[key, "estimate"]
        assert shown.loc[(*key, "ur"), "margin"] == gate.loc[key, "margin"]


def test_seeds_are_not_pooled():
    table = pd.DataFrame({"arm": "lora", "value": [0.1, 0.3], "low": [0.0, 0.2], "high": [0.2, 0.4], "n": [60, 60]})
    (row,) = summary.over_seeds(table, ["arm"]).to_dict("records")
    assert row == {"arm": "lora", "value": pytest.approx(0.2), "low": 0.0, "high": 0.4, "n": 60}


def test_language_mix_adds_up_to_one(inputs):
    lid = pd.concat([tables.read(path, tables.LID) for path in inputs["lid"]])
    mix = summary.language_mix(lid, tables.read(inputs["prompts"], tables.PROMPTS))
    assert np.allclose(mix.groupby(["arm", "family"])["share"].sum(), 1)


def test_thresholds_are_margins_on_the_scale_of_the_rates(tests_table):
    limits = summary.thresholds(tests_table)
    native = tests_table[(tests_table["gate"] == "G1") & (tests_table["part"] == "native")].iloc[0]
    leak = tests_table[tests_table["part"] == "ur:leak"].iloc[0]
    assert limits["forget_native"] == pytest.approx(native["margin"] * native["base"])
    assert limits["neighbour_ur"] == pytest.approx(leak["base"] + leak["margin"])


def test_rows_of_two_runs_are_not_mixed_up():
    with pytest.raises(ValueError, match="two rows share"):
        summary.lookup(pd.DataFrame({"arm": ["lora", "lora"], "value": [1, 2]}), "arm")


def test_a_new_arm_changes_no_other_arms_colour():
    before, after = palette.arm_colours(ARMS), palette.arm_colours([*ARMS, "new"])
    assert all(after[arm] == before[arm] for arm in ARMS)
    assert len({(after[a], palette.arm_markers([*ARMS, "new"])[a]) for a in after}) == 4


def test_the_forgotten_language_is_red_whatever_it_is():
    colours = palette.language_colours(["fr", "en", "hi"], ["fr"])
    assert colours["fr"] == palette.LANGUAGES["hi"]
    assert len(set(palette.language_colours(["fr", "en", "de", "it", "und", "other"], ["fr"]).values())) == 6


def test_one_broken_arm_does_not_stretch_the_axes(units, tests_table):
    with drawing.style():
        figure = figures.perplexity(units, tests_table, ARMS, DATA)
        assert figure.axes[0].get_xlim()[1] <= figures.REACH[1] * 1.05
        texts = [text.get_text() for axes in figure.axes[:5] for text in axes.texts]
    assert texts and all(text.startswith("×") for text in texts)


def test_every_arm_is_in_every_panel(units, tests_table):
    with drawing.style():
        figure = figures.les(units, tests_table, ARMS, DATA)
    for axes in (axes for axes in figure.axes if axes.axison):
        heights = {float(np.ravel(line.get_ydata())[0]) for line in axes.lines if line.get_marker() != "None"}
        assert heights == {0.0, 1.0, 2.0}


def ink(text):
    """Where a text leaves ink, from its left edge on: [pixel, pixel]."""
    with drawing.style(), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of a missing glyph
        figure = Figure(figsize=(3, 1), dpi=160)
        canvas = FigureCanvasAgg(figure)
        figure.text(0.1, 0.4, text, fontsize=30)
        canvas.draw()
        marks = np.asarray(canvas.buffer_rgba())[:, :, :3].min(axis=2) < 128
    columns = np.flatnonzero(marks.any(axis=0))
    return marks[:, columns[0] : columns[-1] + 1]


def test_devanagari_is_shaped():
    stems = {text: ink(text)[:, :12].sum(axis=0).max() for text in ("कि", "की")}
    assert stems["कि"] > 2 * stems["की"], "the short i is drawn before its consonant, the long one after it"
    assert ink("क्ष").shape[1] < 0.8 * ink("कष").shape[1], "consonants join"


def test_no_trained_arm_gives_a_figure_that_says_so():
    with drawing.style():
        figure = figures.training(tables.TRAINING.empty_table().to_pandas(), ["base"])
    assert "No arm" in figure.axes[0].texts[0].get_text()


def test_the_script_writes_every_figure_and_the_same_bytes_again(inputs, tmp_path, units, tests_table):
    out = {name: str(tmp_path / f"{name}.png") for name in NAMES}
    out |= {f"{name}_pdf": str(tmp_path / f"{name}.pdf") for name in NAMES}
    wanted = ("metrics", "tests", "layers", "training", "lid", "prompts", "texts", "checks")
    script.main(**{k: inputs[k] for k in wanted}, **out, settings=figure_settings(ARMS))
    for name in NAMES:
        assert Path(out[name]).read_bytes().startswith(b"\x89PNG")
        assert Path(out[f"{name}_pdf"]).read_bytes().startswith(b"%PDF")
    assert not list(tmp_path.glob("*.partial"))
    with drawing.style():
        figure = figures.tradeoff(units, tests_table, ARMS, DATA)
        assert drawing.rendered(figure, "png") == Path(out["tradeoff"]).read_bytes()
        assert drawing.rendered(figure, "pdf") == Path(out["tradeoff_pdf"]).read_bytes()
    assert b"CreationDate" not in Path(out["tradeoff_pdf"]).read_bytes()
    assert b"Software" not in Path(out["tradeoff"]).read_bytes()[:400]


def test_a_script_of_this_stage_loads_no_torch_and_no_pyplot():
    code = (
        "import sys, figures, report; print([m for m in ('torch', 'matplotlib.pyplot', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_identical_model_sits_on_base(tmp_path):
    found = write_results(tmp_path, {"same": IDENTICAL}, n=6)
    ratios = summary.perplexity_ratios(
        tables.read(found["metrics"], tables.METRICS), tables.read(found["tests"], tables.TESTS), DATA
    )
    assert ratios["value"].to_numpy() == pytest.approx(1.0)
