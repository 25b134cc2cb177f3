"""The environments hold the same pins, and the workflow parses without heavy imports."""

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def pins(path: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return sorted(line for line in lines if line)


def test_conda_has_the_pins_of_the_plain_environment():
    conda = yaml.safe_load((ROOT / "envs/cpu.yaml").read_text())
    assert sorted(conda["dependencies"][-1]["pip"]) == pins(ROOT / "envs/requirements.txt")
    post = (ROOT / "envs/cpu.post-deploy.sh").read_text()
    for pin in pins(ROOT / "envs/requirements-no-deps.txt"):
        assert pin in post


def test_every_requirement_is_pinned():
    for name in ("requirements.txt", "requirements-no-deps.txt", "requirements-dev.txt", "constraints.txt"):
        for pin in pins(ROOT / "envs" / name):
            assert "==" in pin, pin


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
