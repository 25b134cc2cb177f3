"""The environments hold the same pins, and the workflow parses without heavy imports."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def pins(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return sorted(line for line in lines if line)


@pytest.mark.parametrize(("name", "extra"), [("cpu", []), ("gpu", ["requirements-gpu.txt"])])
def test_conda_has_the_pins_of_the_plain_environment(name, extra):
    conda = yaml.safe_load((ROOT / f"envs/{name}.yaml").read_text())
    assert sorted(conda["dependencies"][-1]["pip"]) == pins(ROOT / "envs/requirements.txt")
    post = (ROOT / f"envs/{name}.post-deploy.sh").read_text()
    installed = sorted(re.findall(r"[\w-]+==[\w.]+", post))
    assert installed == sorted(
        pin for file in ["requirements-no-deps.txt", *extra] for pin in pins(ROOT / "envs" / file)
    )


def test_every_requirement_is_pinned():
    for path in (ROOT / "envs").glob("*.txt"):
        for pin in pins(path):
            assert "==" in pin, pin


def test_direct_and_frozen_pins_never_disagree():
    def versions(name):
        split = (pin.split(";")[0].strip().lower().replace("_", "-").split("==") for pin in pins(ROOT / "envs" / name))
        return dict(split)

    frozen = versions("constraints.txt")
    for name in ("requirements.txt", "requirements-dev.txt"):
        for package, version in versions(name).items():
            assert frozen.get(package, version) == version, package


def test_the_container_installs_the_same_files_as_make_does():
    recipe, make = (ROOT / "Containerfile").read_text(), (ROOT / "Makefile").read_text()
    assert "==" not in recipe
    for file in ("constraints.txt", "requirements.txt", "requirements-no-deps.txt"):
        assert f"envs/{file}" in recipe and f"envs/{file}" in make
    assert (ROOT / ".containerignore").read_text() == (ROOT / ".dockerignore").read_text()


def commands(text: str, pip: str) -> list[tuple[str, ...]]:
    """The arguments of every pip install, without those that differ by taste, and without folders."""
    text = text.replace("\\\n", " ").replace("$(BIN)/", "")
    found = re.findall(rf"{re.escape(pip)} install ([^&;\n]*)", text)
    dull = {"--quiet", "--no-cache-dir", "-r", "envs/requirements-dev.txt"}
    return [tuple(word for part in line.split() if (word := part.removeprefix("/mmie/")) not in dull) for line in found]


def test_the_container_is_built_by_the_commands_of_make_from_files_that_are_there():
    """Nothing here builds it: what would make a build fail at once is looked at instead."""
    recipe = (ROOT / "Containerfile").read_text()
    assert commands(recipe, "pip") == commands((ROOT / "Makefile").read_text(), "pip") != []
    copied = re.findall(r"^COPY (\S+) (\S+)$", recipe, flags=re.M)
    assert [source for source, _ in copied] == ["envs", "."]
    ignored = (ROOT / ".dockerignore").read_text().split()
    for source, target in copied:
        assert (ROOT / source).exists() and source not in ignored and target.startswith("/mmie")
    needed = {"Snakefile", "config.yaml", "config.schema.json", "rules", "workflow_scripts", "envs", "data", "report"}
    assert not needed & set(ignored) and all((ROOT / name).exists() for name in needed)
    version = re.search(r"^FROM \S+/python:(\d+)\.(\d+)-", recipe, flags=re.M)
    assert version and (3, 11) <= (int(version[1]), int(version[2])) <= (3, 13)
    steps = {line.split()[0] for line in re.sub(r"\\\n", " ", recipe).splitlines() if line and line[0] != "#"}
    assert steps == {"FROM", "RUN", "COPY", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert 'ENTRYPOINT ["snakemake"]' in recipe


def test_every_rule_names_an_environment_that_is_there():
    named = set(re.findall(r"envs/\w+\.yaml", "".join(p.read_text() for p in (ROOT / "rules").glob("*.smk"))))
    assert named == {"envs/cpu.yaml", "envs/gpu.yaml"}
    for name in named:
        assert (ROOT / name).exists() and (ROOT / name).with_suffix(".post-deploy.sh").exists()
    assert "--sdm conda" in (ROOT / "README.md").read_text()


def test_parsing_never_loads_torch():
    code = (
        "import sys, yaml; sys.path.insert(0, 'workflow_scripts')\n"
        "from mmie.arms import check_arms\n"
        "from mmie.config import check_config\n"
        "from mmie.provenance import code_digest\n"
        "check_arms(check_config(yaml.safe_load(open('config.yaml')))['arms'])\n"
        "code_digest('unlearn', 'mmie/arms/grun')({})\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
