"""The experiment for a GPU, as far as a CPU can test it: its plan, and its path through the code on a tiny Qwen2."""

import json
import re
import subprocess
import sys

import pytest

from mmie import tables
from project import ROOT, Project, copy_project
from tiny import make_tiny_qwen

pytestmark = pytest.mark.xdist_group("workflow")  # one worker, so that the finished project is made once

QWEN = "configs/qwen2.5-1.5b.yaml"


@pytest.mark.parametrize("profile", ["local", "slurm", "slurm-example-site"])
def test_the_plan(tmp_path, profile):
    """Every job of the whole experiment, and a GPU for those that run the model."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--profile", f"profiles/{profile}"]
    done = subprocess.run(
        [*command, "--configfile", QWEN, "--directory", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    planned = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, flags=re.M))
    assert int(planned["train_sae"]) == 2 and int(planned["unlearn"]) == int(planned["generate"])
    asked = re.findall(r"^ *rule (\w+):.*?resources: ([^\n]*)", done.stdout, flags=re.M | re.S)
    on_gpu = {rule for rule, resources in asked if "gpu=1" in resources}
    trains = {"plant_canaries", "cache_activations", "train_sae", "select_features", "unlearn"}
    assert on_gpu == trains | {"generate", "score_texts", "score_reference"}


def test_the_same_code_on_a_tiny_model_in_8_bits(tmp_path):
    """Chat prompts, a model without a beginning-of-text token, weights in int8 (bitsandbytes), on a CPU."""
    corpus = (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8").splitlines()
    manifest = make_tiny_qwen(tmp_path / "tiny", texts=corpus)
    folder = tmp_path / "run"
    folder.mkdir()
    project = Quantised(copy_project(folder, manifest.parent).folder)
    (project.folder / "tests/extra.yaml").write_text(
        "model: {device: cpu, quantisation: int8}\nseeds: [0]\nlayers: {count: 1}\n"
    )
    run = "{}/lora/seed0/plain.parquet".format
    # The arm `prompt` refuses a template in which it cannot put its instruction before the user's words.
    arms = [
        "results/adapters/prompt/seed0/plain/arm.json",
        f"results/{run('generations')}",
        f"results/{run('likelihood')}",
    ]
    project.snakemake(*arms, "results/sae/site1/features.parquet")
    results = project.folder / "results"
    generations = tables.read(results / run("generations"), tables.GENERATIONS)
    likelihood = tables.read(results / run("likelihood"), tables.LIKELIHOOD)
    assert len(generations) and (likelihood.nll_sum > 0).all()
    prompts = tables.read(results / "data/prompts.parquet", tables.PROMPTS)
    assert prompts.text.str.startswith("<|im_start|>").all()
    assert json.loads((results / "pretrained/config.json").read_text())["model_type"] == "qwen2"


class Quantised(Project):
    """A project with the config of the GPU experiment under the tests' own."""

    def command(self, *arguments: str) -> list[str]:
        local = super().command(*arguments)
        local.insert(local.index("tests/config.yaml"), QWEN)
        return local
