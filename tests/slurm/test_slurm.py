"""The workflow through a real Slurm: the same bytes as locally, and nothing half-written whatever dies."""

import subprocess
import sys
from pathlib import Path

import pytest

from slurm.cluster import NODES
from slurm.conftest import ON_GPU
from slurm.on_slurm import Background, rows, rules_of, until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


def test_a_cancelled_job_and_one_that_filled_its_memory_run_again(runs, cluster):
    """What they had half written is gone, and the second attempt has twice the memory."""
    project = runs.retried.project
    half = project.folder / "results/lid_quality.parquet"
    until(half.exists)
    assert half.read_text() == "half"
    (first,) = [job for job in cluster.jobs() if rules_of(project, job) == ["measure_lid"]]
    cluster.run("scancel", first["JobId"])
    runs.retried.finish(300)
    tried = {
        rule: [job for job in cluster.jobs() if rules_of(project, job) == [rule]]
        for rule in ("canaries", "measure_lid")
    }
    assert [job["JobState"] for job in tried["measure_lid"]] == ["CANCELLED", "COMPLETED"]
    assert [job["JobState"] for job in tried["canaries"]] == ["FAILED", "COMPLETED"]
    assert [job["MinMemoryNode"] for job in tried["canaries"]] == ["1000M", "2000M"]
    assert len(rows(project, "results/data/canaries.parquet")) and len(rows(project, "results/lid_quality.parquet"))


def test_a_killed_snakemake_starts_again_beside_its_own_jobs(on_slurm, cluster):
    """A job of the first run still writes when the second starts the same one: the second waits, and both are whole."""
    target, times = "results/data/corpus.parquet", on_slurm.folder / "times"
    say = "print({!r}, file=open('times', 'a'))".format
    on_slurm.sabotage("corpus", f"wait = 0 if Path('times').exists() else 45; {say('start')}; time.sleep(wait)")
    on_slurm.edit("workflow_scripts/corpus.py", "\n\nif __name__", f"\n    {say('end')}\n\n\nif __name__")

    def jobs(state):
        return [job for job in cluster.jobs() if job["WorkDir"] == str(on_slurm.folder) and job["JobState"] == state]

    killed = Background(on_slurm, on_slurm.command(target), cluster)
    try:
        until(times.exists)
    finally:
        killed.kill()
    assert "--unlock" in on_slurm.snakemake(target, fails=True)
    subprocess.run(on_slurm.command("--unlock"), cwd=on_slurm.folder, check=True, capture_output=True)
    again = Background(on_slurm, on_slurm.command(target), cluster)
    try:
        until(lambda: len(jobs("RUNNING")) == 2, seconds=45)
        again.finish(240)
    finally:
        again.kill()
    assert times.read_text().split() == ["start", "end", "start", "end"]
    assert len(jobs("COMPLETED")) == 2
    assert len(rows(on_slurm, target))


def test_a_job_that_exceeds_its_limit_is_reported_with_its_log_and_leaves_nothing(runs, cluster):
    project = runs.doomed.project
    printed = runs.doomed.finish(300, fails=True)
    (in_time,), (in_memory,) = (
        [job for job in cluster.jobs() if rules_of(project, job) == [rule]] for rule in ("measure_lid", "canaries")
    )
    assert in_time["JobState"] == "TIMEOUT" and in_memory["JobState"] in ("OUT_OF_MEMORY", "FAILED")
    assert "DUE TO TIME LIMIT" in Path(in_time["StdOut"]).read_text()
    assert "exceeded memory limit" in Path(in_memory["StdOut"]).read_text()
    for rule, job in (("measure_lid", in_time), ("canaries", in_memory)):
        assert f"rule {rule}" in printed and f"logs/{rule}.log" in printed and job["StdOut"] in printed
    assert not [path for path in (project.folder / "results").rglob("*") if path.is_file()]
    command = ["workflow_scripts/status.py", "--directory", str(project.folder)]
    said = subprocess.run([sys.executable, *command], cwd=project.folder, capture_output=True, text=True, check=True)
    assert "failed: canaries: ended by Slurm: exceeded memory limit" in said.stdout
    assert "failed: measure_lid: ended by Slurm: CANCELLED" in said.stdout and "TIME LIMIT" in said.stdout


def test_60_jobs_queue_for_4_nodes(runs, cluster):
    def of(state):
        return [job for job in cluster.jobs() if job["Partition"] == "queue" and job["JobState"] == state]

    until(lambda: len(of("PENDING")) == 60, seconds=300)
    cluster.run("scontrol", "update", "PartitionName=queue", "State=UP")
    runs.queue.finish(300)
    finished = of("COMPLETED")
    assert len(finished) == 60 and len({job["NodeList"] for job in finished}) == NODES


def test_the_whole_workflow_gives_the_same_bytes_as_locally(runs):
    runs.local.finish(400)
    runs.whole.finish(400)
    assert runs.whole.project.hashes() == runs.local.project.hashes()


def test_rules_that_run_the_model_were_given_a_gpu_and_small_ones_share_submissions(runs, cluster):
    project = runs.whole.project
    runs.whole.finish(400)
    given: dict[str, set[str]] = {}
    jobs = [job for job in cluster.jobs() if job["WorkDir"] == str(project.folder)]
    for job in jobs:
        for rule in rules_of(project, job):
            given.setdefault(rule, set()).add(job["JOB_GRES"])
    assert {rule: gres for rule, gres in given.items() if rule in ON_GPU} == {rule: {"gpu:fake:1"} for rule in ON_GPU}
    assert given["score_lid"] == given["metrics"] == given["fetch_model"] == {"(null)"}
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    run = len(list((project.folder / "benchmarks").rglob("*.tsv")))
    assert run >= 28 and len(jobs) <= run * 0.6
