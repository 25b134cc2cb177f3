"""The real default, from the package to Hindi: slow, run with `make test-slow`."""

import subprocess
import sys

import pytest

from mmie import tables

pytestmark = pytest.mark.xdist_group("workflow")  # one worker, so that the finished project is made once


@pytest.mark.slow
def test_the_default_model_speaks_the_languages(tmp_path, pytestconfig):
    """Gemma 3 270M is made, and base continues held-out Hindi in Hindi and English in English."""
    lid = "results/lid/base/seed0/plain.parquet"
    command = [sys.executable, "-m", "snakemake", lid, "--cores", "2", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=pytestconfig.rootpath, check=True)
    found = tables.read(tmp_path / lid, tables.LID)
    found["family"] = found.prompt_id.str.split(":").str[0]
    rates = found.groupby("family")[["les", "line_pass"]].mean()
    assert rates.les["forget_native"] >= 0.8
    assert rates.les["retain_en"] == 0
    assert (rates.line_pass[["retain_en", "neighbour_ur", "neighbour_pa", "neighbour_bn"]] >= 0.8).all()
