"""
A running Slurm, and the runs that the tests look at.

Waiting is most of what a queue does: whatever can run while a test waits is started with the cluster, all at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from project import ROOT, Project
from slurm.cluster import Cluster, missing
from slurm.on_slurm import ALONE, Background, OnSlurm, queue_command, small

TRAINING = ["plant_canaries", "cache_activations", "train_sae", "select_features", "unlearn", "attack"]
MEASURING = ["generate", "score_texts", "score_reference", "score_comprehension", "look_inside", "transfer_sae"]
ON_GPU = [*TRAINING, *MEASURING]


@dataclass(frozen=True)
class Runs:
    """What runs beside the tests."""

    local: Background
    """The small project on this machine, without Slurm."""
    whole: Background
    """The same through Slurm."""
    doomed: Background
    """One job fills its memory and one exceeds its time, both with half an output written; neither is tried again."""
    retried: Background
    """One job fills the memory of its first attempt, and a test cancels another one."""
    queue: Background
    """Sixty jobs in a partition that starts none until a test opens it."""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    """A running cluster; skipped, with the reason, where Slurm is not installed."""
    if reason := missing():
        pytest.skip(reason)
    running = Cluster(tmp_path_factory.mktemp("slurm"), port=16900)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def runs(tmp_path_factory, model_folder, cluster) -> Iterator[Runs]:
    """Everything that runs beside the tests; killed with them."""
    started = []

    def start(project: Project, *arguments: str) -> Background:
        started.append(Background(project, project.command(*arguments), cluster))
        return started[-1]

    def project(name: str) -> OnSlurm:
        return small(tmp_path_factory.mktemp(name), model_folder)

    targets = ["results/data/canaries.parquet", "results/lid_quality.parquet"]
    doomed, retried = project("doomed"), project("retried")
    fills = 'Path(canaries).write_text("half"); full = b"x" * (1300 << 20)'
    doomed.sabotage("canaries", f"{fills}; time.sleep(60)")
    doomed.sabotage("measure_lid", 'Path(quality).write_text("half"); time.sleep(600)')
    retried.sabotage("canaries", f"{fills}; time.sleep(3)")
    retried.sabotage("measure_lid", 'Path(quality).write_text("half"); time.sleep(20)')
    # The device is a CPU, so that there is something to compute on; the GPUs of this cluster are only counted.
    asks = [f"{rule}:gpu=1" for rule in ON_GPU]
    # An option replaces what the profile says.
    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())["set-resources"]
    asks += [f"{rule}:{name}={value}" for rule, given in profile.items() for name, value in given.items()]
    try:
        yield Runs(
            retried=start(retried, *targets, *ALONE),
            doomed=start(doomed, *targets, *ALONE, "--retries", "0", "--set-resources", "measure_lid:runtime=1"),
            whole=start(project("whole"), "--set-resources", *asks),
            local=start(Project(project("local").folder)),
            queue=start(Queue(tmp_path_factory.mktemp("queue"))),
        )
    finally:
        for running in started:
            running.kill()


class Queue(Project):
    """A folder for sixty jobs of no project."""

    def command(self, *arguments: str) -> list[str]:
        return queue_command("queue")


@pytest.fixture
def on_slurm(tmp_path, model_folder, cluster, monkeypatch) -> OnSlurm:
    """A small project in which nothing has run."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    return small(tmp_path, model_folder)
