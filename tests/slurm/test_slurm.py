"""The workflow through a real Slurm: the same bytes as locally, and nothing half-written whatever dies."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from project import Project

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("workflow")]
JUDGED = "results/gate/decision.json"


class OnSlurm(Project):
    """A project whose jobs Slurm runs."""

    def command(self, *arguments: str) -> list[str]:
        local = super().command(*arguments)
        at = local.index("--cores")
        # Here all nodes share one disk, and waiting a minute for files to show up would hide that one is missing.
        return [*local[:at], "--profile", "profiles/slurm", "--latency-wait", "5", *local[at + 2 :]]


@pytest.fixture
def on_slurm(fresh, cluster, monkeypatch):
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    return OnSlurm(fresh.folder)


def test_the_whole_workflow_gives_the_same_bytes_as_locally(on_slurm, finished_once, cluster):
    before = len(cluster.jobs())
    on_slurm.snakemake()
    assert on_slurm.hashes() == finished_once.hashes()
    jobs = cluster.jobs()[before:]
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    # Rules of seconds share a submission: fewer submissions than rules × runs.
    assert len(jobs) < sum(1 for path in (on_slurm.folder / "logs").rglob("*.log") if "slurm" not in path.parts)


def test_rules_that_run_the_model_ask_for_a_gpu_and_say_so_when_there_is_none(on_slurm, cluster):
    (on_slurm.folder / "tests/extra.yaml").write_text("model: {device: cuda}\n")
    before = len(cluster.jobs())
    printed = on_slurm.snakemake("results/adapters/base/seed0/plain/arm.json", "--retries", "0", fails=True)
    assert "torch sees no CUDA device" in printed
    asked = {job["Partition"]: job.get("TresPerJob", "") for job in cluster.jobs()[before:]}
    assert "gpu" in asked["gpu"] and "gpu" not in asked["cpu"]


def test_a_cancelled_job_is_run_again(on_slurm, cluster, finished_once):
    target = "results/data/corpus.parquet"
    process = _started(on_slurm, target)
    cluster.run("scancel", _running(cluster)["JobId"])
    assert process.wait(timeout=300) == 0
    assert (on_slurm.folder / target).read_bytes() == (finished_once.folder / target).read_bytes()
    assert "CANCELLED" in {job["JobState"] for job in cluster.jobs()}


@pytest.mark.parametrize(
    ("limit", "state"), [("mem_mb=300", "OUT_OF_MEMORY"), ("runtime=1", "TIMEOUT")], ids=["memory", "time"]
)
def test_a_job_that_exceeds_its_limit_is_reported_and_leaves_nothing(on_slurm, cluster, limit, state):
    target = "results/model/manifest.json"
    if state == "TIMEOUT":
        on_slurm.edit(
            "workflow_scripts/fetch_model.py",
            "    materialise(",
            "    import time\n\n    time.sleep(200)\n    materialise(",
        )
    printed = on_slurm.snakemake(
        target, "--retries", "0", "--set-resources", f"fetch_model:{limit}", "--keep-going", fails=True
    )
    assert "fetch_model" in printed and "logs/" in printed
    assert state in {job["JobState"] for job in cluster.jobs()} | {job.get("Reason", "") for job in cluster.jobs()}
    folder = on_slurm.folder / "results"
    assert not [path for path in folder.rglob("*") if path.is_file()]


def test_a_killed_snakemake_goes_on_where_it_stopped(on_slurm, cluster, finished_once):
    """Its jobs live on: they are cancelled before the next run, or two would write one file."""
    targets = ["results/data/prompts.parquet", "results/data/checks.parquet"]
    process = _started(on_slurm, *targets)
    _running(cluster)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    cluster.run("scancel", "--user", str(os.getuid()))
    _until(lambda: not any(job["JobState"] in ("RUNNING", "PENDING", "COMPLETING") for job in cluster.jobs()))
    subprocess.run(on_slurm.command("--unlock"), cwd=on_slurm.folder, check=True, capture_output=True)
    on_slurm.snakemake(*targets)
    for target in targets:
        assert (on_slurm.folder / target).read_bytes() == (finished_once.folder / target).read_bytes()
    assert not list((on_slurm.folder / "results").rglob("*.partial"))


def test_60_jobs_queue_for_4_nodes(finished, cluster, monkeypatch):
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    project = OnSlurm(finished.folder)
    seeds = list(range(60))
    (project.folder / "tests/extra.yaml").write_text(f"seeds: {seeds}\n")
    one = project.folder / "results/generations/lora/seed0/plain.parquet"
    for seed in seeds[1:]:
        other = project.folder / f"results/generations/lora/seed{seed}/plain.parquet"
        other.parent.mkdir()
        shutil.copy2(one, other)
    targets = [f"results/lid/lora/seed{seed}/plain.parquet" for seed in seeds[1:]]
    profile = project.folder / "profiles/slurm/config.yaml"
    profile.write_text("".join(line for line in profile.read_text().splitlines(True) if "scoring" not in line))
    before = len(cluster.jobs())
    project.snakemake(*targets, "--allowed-rules", "score_lid")
    assert len(cluster.jobs()) - before == len(targets)
    assert all((project.folder / target).exists() for target in targets)


def _started(project: Project, *targets: str) -> subprocess.Popen:
    return subprocess.Popen(
        project.command(*targets),
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _running(cluster) -> dict[str, str]:
    found: list = []
    _until(lambda: found.extend(job for job in cluster.jobs() if job["JobState"] == "RUNNING") or found)
    return found[0]


def _until(done, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)
