"""What a run has done, is doing, and failed at."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmie import progress, stage

BENCHMARK = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n{}\t0:00:07\t{}\t1\t1\t1\t1\t1\t1\t1\n"


MAIN_LOG = """Job stats:
job         count
--------  -------
corpus          1
generate        4
gate            1
all             1
total           7

[Wed Nov 25 12:00:00 2026]
rule corpus:
[Wed Nov 25 12:00:02 2026]
Finished jobid: 3 (Rule: corpus)
[Wed Nov 25 13:00:00 2026]
Finished jobid: 4 (Rule: generate)
"""


@pytest.fixture
def run(tmp_path):
    """A folder in which one job is done, one is older than its log, one raised, one was ended by Slurm."""

    def write(path, text, at=1000):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
        os.utime(tmp_path / path, (at, at))

    line = "2026-01-01 10:00:00,000 {} {}\n".format
    write("logs/generate/lora/seed0/plain.log", line("DEBUG", "model loaded in 3.0 s: cuda, torch.bfloat16"))
    write("benchmarks/generate/lora/seed0/plain.tsv", BENCHMARK.format(7200, 4000.5), at=1001)
    write("logs/corpus.log", line("DEBUG", "started in 0.1 s"))
    write("benchmarks/corpus.tsv", BENCHMARK.format(2, "-"), at=1001)
    write("logs/unlearn/lora/seed0.log", line("INFO", "step 3"), at=2000)
    write("benchmarks/unlearn/lora/seed0.tsv", BENCHMARK.format(60, 100))
    write(
        "logs/gate.log",
        line("DEBUG", "where it happened") + "Traceback\n" + line("ERROR", "results/metrics.parquet is missing."),
    )
    write("logs/figures.log", line("INFO", "fonts"))
    slurm = "rule figures:\n    log: logs/figures.log\nslurmstepd-c1: error: *** JOB 7 ON c1 CANCELLED AT 2026-01-01T10:00:00 DUE TO TIME LIMIT ***\n"
    write("logs/slurm/rule_figures/7.log", slurm)
    table = "Job stats:\njob         count\n--------  -------\n{}\n".format
    write(".snakemake/log/1.snakemake.log", MAIN_LOG)
    write(
        ".snakemake/log/2.snakemake.log",
        "  Command: snakemake --mode remote\n" + table("gate            1\ntotal           1"),
    )
    return tmp_path


def test_done_failed_and_why(run):
    found = {job.name: job for job in progress.jobs(run)}
    assert {name: job.state for name, job in found.items()} == {
        "generate/lora/seed0/plain": "done",
        "corpus": "done",
        "unlearn/lora/seed0": "failed",
        "gate": "failed",
        "figures": "failed",
    }
    assert found["gate"].says == "results/metrics.parquet is missing."
    assert "TIME LIMIT" in found["figures"].says and "logs/slurm/rule_figures/7.log" in found["figures"].says
    assert found["unlearn/lora/seed0"].says.startswith("ended without a word")


def test_the_time_left_is_that_of_the_jobs_to_come(run):
    """One generation of 120 min ended in 60 min of this run (two ran at once), three are to come: 180 min."""
    outlook = progress.outlook(run, progress.jobs(run))
    assert (outlook.done, outlook.planned, outlook.unknown) == (2, 6, ["gate"])
    assert outlook.minutes_left == pytest.approx(3 * 120 * 60 / (120 + 2 / 60))


def test_a_job_runs_while_its_log_is_locked(run):
    with stage.claim(run / "logs/gate.log"):
        assert next(job for job in progress.jobs(run) if job.name == "gate").state == "running"


def test_costs_per_rule(run):
    table = progress.costs(progress.jobs(run))
    assert list(table.index) == ["generate", "corpus"]
    assert list(table.loc["generate"]) == [1, 2.0, 2.0, 120.0, 4000.5]
    assert table.loc["corpus", "gpu_hours"] == 0 and table.peak_mb.isna()["corpus"]


def test_a_folder_in_which_nothing_ran_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--directory"):
        progress.jobs(tmp_path)


def test_two_processes_never_run_one_job(tmp_path):
    """The second says so and waits, also when the log was replaced."""
    path = tmp_path / "logs/x.log"
    first = stage.claim(path)
    code = "import logging, sys; from pathlib import Path; from mmie import stage; logging.basicConfig(); stage.claim(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(path)]
    second = subprocess.Popen(command, cwd=Path(stage.__file__).parents[1], stderr=subprocess.PIPE, text=True)
    assert "waiting" in second.stderr.readline() and second.poll() is None
    first.close()
    assert second.wait(timeout=20) == 0


def test_the_log_of_a_job_holds_what_it_says(tmp_path, monkeypatch):
    for name in ("mmie", "py.warnings"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
    stage._log_to(SimpleNamespace(rule="one", wildcards=["a"], log=[str(tmp_path / "logs/one.log")]))
    stage.log.info("hello")
    logging.captureWarnings(False)
    assert (tmp_path / "logs/one.log").read_text().endswith("INFO hello\n")
