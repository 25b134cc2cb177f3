"""Every rule is the call site of its script's main(), and follows the conventions."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ("input", "output", "params")


def rules():
    for smk in sorted((ROOT / "rules").glob("*.smk")):
        for body in re.split(r"^rule ", smk.read_text(), flags=re.M)[1:]:
            yield pytest.param(body, id=body.split(":")[0])


def section(body: str, name: str) -> str:
    found = re.search(rf"^    {name}:\n((?:        .*\n|\n)+)", body, flags=re.M)
    return found[1] if found else ""


@pytest.mark.parametrize("body", list(rules()))
def test_rule_calls_main(body):
    script = re.search(r'"\.\./workflow_scripts/(\w+)\.py"', body)
    assert script, "a rule runs a script"
    given = {key for part in SECTIONS for key in re.findall(r"^        (\w+)=", section(body, part), flags=re.M)}
    given |= set(re.findall(r"^        (replicas)=", section(body, "resources"), flags=re.M))
    tree = ast.parse((ROOT / f"workflow_scripts/{script[1]}.py").read_text())
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert given == {argument.arg for argument in main.args.args}


@pytest.mark.parametrize("body", list(rules()))
def test_rule_follows_the_conventions(body):
    assert re.search(r'^    """[A-Z][^"\n]+\."""', body, flags=re.M), "a docstring of one imperative line"
    for part in ("log", "benchmark", "conda", "threads", "resources", "params"):
        assert re.search(rf"^    {part}:", body, flags=re.M), f"no {part}"
    assert "code=" in section(body, "params")
    assert "lambda" not in body and "retries" not in body


def test_scripts_are_thin_and_know_nothing_of_snakemake():
    for path in (ROOT / "workflow_scripts").glob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 50, path.name
        assert sum("snakemake" in line for line in lines) == 1, path.name


def test_the_snakefile_is_short():
    assert len((ROOT / "Snakefile").read_text().splitlines()) <= 40
