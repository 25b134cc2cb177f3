"""The report: in the order a reader needs, self-contained, escaped, the same bytes each time; its tables and its words."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import UndefinedError

import report as script
from metrics_tables import COLLAPSED, PERFECT
from mmie import fonts, labels, latex, page, prose, report_tables, samples, tables
from mmie.labels import families
from results_folder import DATA, EVIL, report_settings, write_results

ARMS = ["base", "lora", "broken"]
FIGURES = (
    "tradeoff", "les", "perplexity", "layer_scores", "training_curves", "languages", "attacks", "recovery", "membership",
    "corpus_figure", "frontier", "comprehension", "inside", "flow",
)  # fmt: skip
TABLES = ("verdicts_csv", "verdicts_tex", "metrics_csv", "metrics_tex", "contrasts_csv")
PNG = b"\x89PNG\r\n\x1a\n"


def write_report(inputs, folder, settings=None):
    folder.mkdir(exist_ok=True)
    out = {"html": str(folder / "report.html")} | {name: str(folder / name.replace("_", ".")) for name in TABLES}
    images = {}
    for name in FIGURES:
        images[name] = str(folder / f"{name}.png")
        Path(images[name]).write_bytes(PNG)
    wanted = (
        "prompts",
        "corpus",
        "metrics",
        "tests",
        "decision",
        "generations",
        "lid",
        "gates",
        "features",
        "quality",
        "latent_tokens",
        "activation_storage",
        "transfer",
        "lid_quality",
        "audit",
    )
    script.main(**{k: inputs[k] for k in wanted}, **images, **out, settings=settings or report_settings(ARMS))
    return {name: Path(path).read_text(encoding="utf-8") for name, path in out.items()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    return write_results(folder, {"lora": PERFECT, "broken": COLLAPSED}, n=12, seeds=(0, 1), evil=True)


@pytest.fixture(scope="module")
def written(inputs, tmp_path_factory):
    return write_report(inputs, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def decision(inputs):
    return json.loads(Path(inputs["decision"]).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def prompts(inputs):
    return tables.read(inputs["prompts"], tables.PROMPTS)


def test_the_verdict_comes_first_then_why_then_what_the_arms_write(written):
    places = [
        written["html"].index(f'<section id="{name}"')
        for name in ("verdict", "why", "samples", "figures", "latents", "limits", "reproduce")
    ]
    assert places == sorted(places)


def test_every_arm_has_its_verdict_its_reasons_and_all_its_tests(written, decision, inputs):
    text = re.sub(r"\s+", " ", written["html"].replace("\u00a0", " "))
    tests = tables.read(inputs["tests"], tables.TESTS)
    for arm, found in decision["arms"].items():
        assert f'{arm} <span class="pill {found["verdict"].lower().replace(" ", "-")}">' in text
        for reason in found["reasons"]:
            assert re.sub(r"\s+", " ", str(page.Markup.escape(reason))) in text
        assert f"All {(tests['arm'] == arm).sum()} tests of {arm}" in text
    assert decision["config_hash"] in text


def test_arms_are_set_against_each_other_where_the_config_asks(written, inputs, tmp_path):
    assert '<section id="contrasts"' not in written["html"]
    assert pd.read_csv(io.StringIO(written["contrasts_csv"])).empty
    found = write_report(inputs, tmp_path, {**report_settings(ARMS), "contrasts": [["lora", "broken"]]})
    section = found["html"].split('<section id="contrasts"')[1].split("</section>")[0]
    assert "lora against broken; means over 2 seeds" in section and "Bengali: perplexity" in section
    assert len(pd.read_csv(io.StringIO(found["contrasts_csv"]))) == section.count('<th scope="row">')


def test_model_text_is_escaped(written):
    assert "<script" not in written["html"]
    assert EVIL not in written["html"]
    assert "&lt;script&gt;" in written["html"]


def test_the_page_needs_nothing_else(written):
    page_text = written["html"]
    sources = re.findall(r'(?:src|href)="([^"]{0,40})|url\("([^"]{0,20})', page_text)
    assert sources
    assert all((a or b).startswith(("data:", "#")) for a, b in sources)
    assert "http://" not in page_text and "https://" not in page_text
    assert "@font-face" in page_text
    assert len(page_text.encode()) + 6 * 150_000 < 5_000_000


def test_no_path_and_no_clock_time_is_in_it(written, inputs):
    folder = str(Path(inputs["metrics"]).parent)
    for text in written.values():
        assert folder not in text and str(Path.cwd()) not in text
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b|\b\d\d:\d\d:\d\d\b", text)


def test_the_same_inputs_give_the_same_bytes(inputs, written, tmp_path):
    assert write_report(inputs, tmp_path / "again") == written


def test_latents_show_their_tokens_and_each_arm_how_the_autoencoder_fits_it(inputs, written, tmp_path):
    section = written["html"].split('<section id="latents"')[1].split("</section>")[0]
    assert section.count("variance of the activations lost by storing them as int8 0.030%") == 2
    assert section.count("Tokens on which these latents") == 2 and EVIL not in section
    clean = {**inputs, "latent_tokens": inputs["latent_tokens"][:1]}
    assert write_report(clean, tmp_path)["html"].count("Tokens on which these latents") == 1
    for arm, value in (("base", "0.840"), ("lora", "0.610"), ("broken", "0.610")):
        row = re.search(rf"</span>{arm}</th>(.*?)</tr>", section)[1]
        assert re.findall(r"<td>(.*?)</td>", row) == [value, "32.5", "0.250", "120", "120"]


def test_gates_are_shown_where_an_arm_has_one(inputs, written, tmp_path):
    caption = "Share of held-out tokens (tune split) on which a gate is more than half open"
    assert caption in written["html"]
    rows = written["html"].split(caption)[1].split("</table>")[0]
    assert re.findall(r'<th scope="row">(\w+)</th>', rows) == ["lora", "broken"]
    assert re.findall(r"<td>(.*?)</td>", rows)[:4] == ["0.950", "0.010", "0.030", "0.990"]
    clean = {**inputs, "gates": inputs["gates"][:1]}
    assert caption not in write_report(clean, tmp_path)["html"]


def test_reads_without_sites_mixed_prompts_and_romanised_text(tmp_path, inputs):
    settings = report_settings(ARMS)
    data = {**DATA, "mixed": None, "unseen": [], "forget": {"native": "hi"}}
    found = write_report({**inputs, "features": [], "quality": []}, tmp_path, {**settings, "data": data})
    assert '<section id="latents"' not in found["html"]
    assert "romanised Hindi:" not in found["html"]


def test_a_local_models_folder_is_not_given_away():
    model = {"source": "local", "name": "/some/where/my-model", "revision": None}
    assert prose.model_name(model) == "my-model"


def test_a_missing_input_names_the_file_and_the_remedy(inputs, tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.json is missing. Run `snakemake"):
        write_report({**inputs, "decision": str(tmp_path / "nothing.json")}, tmp_path)
    (tmp_path / "cut.json").write_text('{"arms": ')
    with pytest.raises(ValueError, match=r"cut\.json cannot be read"):
        write_report({**inputs, "decision": str(tmp_path / "cut.json")}, tmp_path)


def test_a_value_the_template_lacks_is_an_error_and_not_a_gap():
    with pytest.raises((UndefinedError, KeyError)):
        page.render({"title": "x"}, {}, {})


def test_samples_are_even_over_the_families_and_seeded(prompts):
    chosen = samples.choose(prompts, 23, 0, DATA)
    by_family = pd.Series([prompt.split(":")[0] for prompt in chosen]).value_counts()
    assert len(chosen) == 23 == len(set(chosen))
    assert set(by_family.index) == set(families(DATA))
    assert by_family["forget_native"] == by_family["forget_roman"] == by_family.max() == 3
    assert by_family.min() == 2
    assert samples.choose(prompts.sample(frac=1, random_state=1), 23, 0, DATA) == chosen
    assert samples.choose(prompts, 23, 1, DATA) != chosen
    assert len(samples.choose(prompts, 10_000, 0, DATA)) == len(prompts)


def test_side_by_side_shows_the_first_seed_and_the_model_that_was_not_attacked():
    keys = {"prompt_id": "a", "sample": 0, "variant": "plain"}
    rows = [
        {**keys, "arm": "base", "seed": 0, "text": " one\ntwo\x00"},
        {**keys, "arm": "lora", "seed": 1, "text": "second seed"},
        {**keys, "arm": "lora", "seed": 0, "text": "first seed"},
        {**keys, "arm": "lora", "seed": 0, "text": "attacked", "variant": "int4"},
    ]
    generations = pd.DataFrame(rows)
    lid = generations.drop(columns="text").assign(language="en", les=0)
    found = samples.side_by_side(["a"], ["base", "lora", "grun"], generations, lid)["a"]
    assert [(answer["arm"], answer["text"]) for answer in found] == [("base", "one ⏎ two�"), ("lora", "first seed")]


def test_the_embedded_font_has_devanagari_and_its_shaping():
    import base64

    from fontTools.ttLib import TTFont

    raw = base64.b64decode(fonts.data_uri().partition(",")[2])
    font = TTFont(io.BytesIO(raw))
    assert set(range(0x0905, 0x094E)) <= set(font.getBestCmap())
    features = {record.FeatureTag for record in font["GSUB"].table.FeatureList.FeatureRecord}
    assert {"half", "rphf", "akhn"} <= features
    assert "fvar" not in font
    assert len(raw) < 150_000


def test_csv_keeps_every_digit(written, decision):
    table = pd.read_csv(io.StringIO(written["verdicts_csv"]), float_precision="round_trip")
    for row in table.to_dict("records"):
        gate = decision["arms"][row["arm"]]["gates"][row["gate"]]
        for column in ("estimate", "p", "margin"):
            assert row[column] == gate[column] or (pd.isna(row[column]) and gate[column] is None)
    metrics = pd.read_csv(io.StringIO(written["metrics_csv"]))
    assert {"les", "perplexity", "probe_auc", "mia_auc_loss"} <= set(metrics["metric"])
    assert set(metrics["arm"]) == set(ARMS)


def test_tex_tables_are_whole_and_escaped(written):
    for name in ("verdicts_tex", "metrics_tex"):
        text = written[name]
        assert text.isascii()
        for command in ("table", "tabular"):
            assert text.count(rf"\begin{{{command}}}") == text.count(rf"\end{{{command}}}") == 1
        columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", text)[1])
        body = text.partition(r"\midrule")[2].partition(r"\bottomrule")[0]
        for line in body.strip().splitlines():
            assert len(re.findall(r"(?<!\\)&", line)) == columns - 1
            assert line.endswith(r"\\")


def test_latex_escapes_what_latex_reads():
    assert latex.escape("sae_gate 5% & {x} ×10⁴ −1 ≥") == r"sae\_gate 5\% \& \{x\} $\times$10$^{4}$ $-$1 $\geq$"
    with pytest.raises(ValueError, match="no LaTeX"):
        latex.escape("हिन्दी")
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        latex.booktabs(["a"], [["1", "2"]], "l", "caption", "label")


def test_verdict_table_has_no_row_for_an_arm_that_was_not_judged(decision):
    assert "base" not in set(report_tables.verdicts(decision, ARMS)["arm"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (float("nan"), "–"), (0.0, "0.000"), (-0.0001, "0.000"), (0.0478, "0.048"), (-0.25, "−0.250"),
        (1.097, "1.097"), (2.163, "2.16"), (47.24, "47.2"), (512.4, "512"), (52_000, "5 × 10⁴"),
    ],
)  # fmt: skip
def test_numbers_keep_the_digits_that_matter(value, text):
    assert labels.number(value) == text


def test_intervals_and_p_values():
    assert labels.interval(1.386, 1.652) == "1.39 to 1.65"
    assert labels.interval(0.003, 0.0964) == "0.003 to 0.096"
    assert labels.interval(0.5, None) == "0.500 to ∞"
    assert labels.interval(None, None) == "–"
    assert [labels.p_text(p) for p in (1e-7, 0.0123, 0.19, None)] == ["p < 0.001", "p = 0.012", "p = 0.19", "–"]


def test_parts_are_named_for_readers():
    assert labels.part_name("G1", "native:broad", DATA) == "Hindi (Devanagari), undetermined output counted"
    assert labels.part_name("G2", "en", DATA) == "English: perplexity"
    assert labels.part_name("G4", "layer9:hi_latn-latin_shuffled", DATA).startswith("Layer 9: romanised Hindi or ")
    assert labels.part_name("G5", "mr:leak", DATA) == "Marathi: answers in Hindi"
    assert labels.part_name("G2", "en2", DATA) == "English (second register): perplexity"
    assert labels.part_name("G6", "min_k_plus", DATA) == "Attack by min-k++"
    assert (
        labels.part_name("G7", "few_shot:broad", DATA) == "Tricked into Hindi by few shot, undetermined output counted"
    )
    assert labels.part_name("G9", "int4:roman", DATA) == "Int4: romanised Hindi"
    assert labels.part_name("G8", "forget_native:und", DATA) == "Hindi (Devanagari): undetermined output"


def test_names_of_other_languages_are_not_made_up():
    assert labels.language_name("fr") == "French"
    assert labels.language_name("xx_latn") == "romanised xx"
    assert labels.script_name("Thaa") == "Thaa"
    assert labels.families({"forget": {"native": "fr"}, "retain": "en", "neighbours": ["it"], "unseen": []}) == {
        "forget_native": "fr", "request": "fr", "adversarial": "fr", "retain_en": "en", "neighbour_it": "it",
    }  # fmt: skip
