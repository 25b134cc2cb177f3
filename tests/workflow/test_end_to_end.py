"""The whole workflow on a tiny model: every artifact is there, fits its schema, and is what others can load."""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmie import tables

pytestmark = pytest.mark.xdist_group("workflow")  # one worker, so that the finished project is made once

ROOT = Path(__file__).parents[2]

ON_DEMAND = {"power", "tune", "judge"}
ARMS = ["base", "grun", "lora", "random_gate", "reft", "sae_gate"]


@pytest.fixture
def results(finished_once):
    return finished_once.folder / "results"


def test_every_table_is_there_and_fits_its_schema(results):
    for name, schema in tables.SCHEMAS.items():
        if name in ON_DEMAND:
            continue
        pattern = schema.metadata[b"path"].decode().removeprefix("results/")
        for wildcard in ("{site}", "{arm}", "{seed}", "{variant}"):
            pattern = pattern.replace(wildcard, "*")
        found = list(results.glob(pattern))
        assert found, f"no {name}"
        for path in found:
            tables.read(path, schema)


def test_one_decision_per_arm(results):
    decision = json.loads((results / "gate/decision.json").read_text())
    assert sorted(decision["arms"]) == ARMS[1:]
    for arm in decision["arms"].values():
        assert arm["verdict"] in ("STOP", "CANNOT CERTIFY") and arm["reasons"]
        assert arm["gates"]["G6"]["passes"] is False
    assert decision["scope"] == "this checkpoint"


def test_base_is_measured_like_every_arm(results):
    metrics = tables.read(results / "metrics.parquet", tables.METRICS)
    assert sorted(metrics.arm.unique()) == ARMS
    les = metrics[(metrics.metric == "les") & (metrics.variant == "plain")]
    adversarial = les.family.str.startswith("adversarial:")
    assert (les[~adversarial].groupby(["arm", "family"]).size() == 10).all()
    assert (les[adversarial].groupby(["arm", "family"]).size() == 4).all()
    assert les.family.nunique() == 19  # openings in 8 families, a request, 10 attacks


def test_an_attacked_arm_is_measured_where_durability_is_judged(results):
    metrics = tables.read(results / "metrics.parquet", tables.METRICS)
    attacked = metrics[metrics.variant != "plain"]
    assert set(zip(attacked.arm, attacked.variant, strict=True)) == {("base", "rtn4"), ("lora", "rtn4")}
    assert set(attacked.family) == {"forget_native", "forget_roman", "texts"}
    assert set(attacked[attacked.family == "texts"].language) == {"en"}
    assert (attacked[attacked.metric == "les"].groupby(["arm", "family"]).size() == 10).all()
    card = json.loads((results / "adapters/lora/seed0/rtn4/arm.json").read_text())
    assert [edit["kind"] for edit in card["edits"]] == ["lora", "quantise"]
    assert card["edits"][0]["file"] == "../plain/lora/adapter_model.safetensors"
    parts = tables.read(results / "gate/tests.parquet", tables.TESTS)
    durability = parts[parts.gate == "G9"].set_index(["arm", "part"])
    assert durability.loc[("lora", "rtn4:native"), "n"] == 10
    assert "was not run" in durability.loc[("grun", "rtn4:native"), "reason"]


def test_splits_never_meet(results):
    corpus = tables.read(results / "data/corpus.parquet", tables.CORPUS)
    assert (corpus.groupby("group_id").split.nunique() == 1).all()
    tokens = tables.read(results / "activations/index.parquet", tables.TOKENS)
    cached = corpus[corpus.doc_id.isin(tokens.doc_id)]
    assert set(cached.split) == {"train", "tune"} and "unseen" not in set(cached.role)
    prompts = tables.read(results / "data/prompts.parquet", tables.PROMPTS)
    groups = dict(zip(corpus.group_id, corpus.split, strict=True))
    assert {groups[g] for g in prompts.group_id} == {"test"}


def test_what_others_can_load_they_load(results):
    from peft import PeftModel
    from sae_lens import SAE
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(results / "model")
    (adapter,) = (results / "adapters/lora/seed0/plain").rglob("adapter_config.json")
    PeftModel.from_pretrained(model, adapter.parent)
    assert SAE.load_from_disk(results / "sae/site1").cfg.d_sae == 128


def test_nothing_in_the_artifacts_names_this_machine(finished_once):
    folder = str(finished_once.folder).encode()
    for path in (finished_once.folder / "results").rglob("*"):
        if path.is_file():
            assert folder not in path.read_bytes(), path
            assert path.suffix in {
                ".parquet",
                ".safetensors",
                ".json",
                ".html",
                ".png",
                ".pdf",
                ".csv",
                ".tex",
                ".jinja",
            }


def test_the_report_stands_alone(results):
    html = (results / "report.html").read_text(encoding="utf-8")
    assert "CANNOT CERTIFY" in html or "STOP" in html
    assert "data:image/png;base64," in html
    assert 'src="http' not in html and 'href="/' not in html
    for arm in ARMS:
        assert arm in html


def test_metadata_says_what_code_made_it(results):
    made = json.loads(pq.read_schema(results / "metrics.parquet").metadata[b"mmie"])
    assert len(made["code"]) == 12


def test_the_arm_of_the_readme_is_an_arm(finished):
    """The file that the README shows whole makes a new arm, and only its jobs run."""
    code = re.search(r"```python\n(\"\"\"Replace the component.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    (finished.folder / "workflow_scripts/mmie/arms/means.py").write_text(code[1])
    (finished.folder / "tests/extra.yaml").write_text("arms: {means: {layer: 1}}\n")
    target = "results/generations/means/seed0/plain.parquet"
    assert finished.planned(target) == {"unlearn": 1, "generate": 1}
    finished.snakemake(target)
    means, base = (
        tables.read(finished.folder / f"results/generations/{arm}/seed0/plain.parquet", tables.GENERATIONS)
        for arm in ("means", "base")
    )
    assert list(means.prompt_id) == list(base.prompt_id) and list(means.text) != list(base.text)
