"""A project whose jobs Slurm runs, and what a test does to it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from project import ROOT, Project, copy_project
from slurm.cluster import Cluster

# All nodes share one disk here, and nobody waits for jobs of hours.
HURRIED = ["--latency-wait", "5", "--slurm-init-seconds-before-status-checks", "1"]
ALONE = ["--group-components", "data=1"]
"""Every rule of group `data` is submitted by itself, where it does not depend on another one."""


class OnSlurm(Project):
    """A project whose jobs Slurm runs."""

    def command(self, *arguments: str) -> list[str]:
        local = super().command(*arguments)
        at = local.index("--cores")
        return [*local[:at], "--profile", "profiles/slurm", *HURRIED, *local[at + 2 :]]

    def sabotage(self, script: str, deed: str) -> None:
        """Make the ``main`` of a script do something before its work; ``time`` and ``Path`` are there."""
        imports = "import time; from pathlib import Path"
        self.edit(f"workflow_scripts/{script}.py", ") -> None:\n", f") -> None:\n    {imports}; {deed}\n")


def small(folder: Path, model: Path) -> OnSlurm:
    """A project in which nothing has run, with the overlay small.yaml."""
    folder.mkdir(exist_ok=True)
    copy_project(folder, model)
    (folder / "tests/extra.yaml").write_text((ROOT / "tests/slurm/small.yaml").read_text())
    return OnSlurm(folder)


class Background:
    """A Snakemake that runs while the test does something else."""

    def __init__(self, project: Project, command: list[str], cluster: Cluster) -> None:
        self.project = project
        self._out = project.folder / "snakemake.out"
        with self._out.open("w") as out:
            self._process = subprocess.Popen(
                command, cwd=project.folder, env=cluster.env, stdout=out, stderr=out, start_new_session=True
            )

    def finish(self, seconds: float, fails: bool = False) -> str:
        """Wait for its end, and return what it printed."""
        self._process.wait(timeout=seconds)
        printed = self._out.read_text()
        assert (self._process.returncode != 0) == fails, printed[-6000:]
        return printed

    def kill(self) -> None:
        """As a reboot of the login node does it: no time to cancel anything."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def queue_command(partition: str) -> list[str]:
    """Sixty jobs of the profile `profiles/slurm` in one partition."""
    return [
        *[sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "tests/slurm/queue.smk")],
        *["--profile", str(ROOT / "profiles/slurm"), *HURRIED],
        *["--default-resources", f"slurm_partition={partition}", "mem_mb=300", "runtime=10"],
    ]


def rows(project: Project, path: str) -> pd.DataFrame:
    """A table without its metadata, which name the code that made it."""
    return pq.read_table(project.folder / path).to_pandas()


def rules_of(project: Project, job: Mapping[str, str]) -> list[str]:
    """The rules that a job of Slurm ran, by the log that Slurm kept of it; none where it is another project's."""
    log = Path(job["StdOut"])
    if job["WorkDir"] != str(project.folder) or not log.exists():
        return []
    return sorted(set(re.findall(r"^localrule (\w+):", log.read_text(), flags=re.M)))


def until(done: Callable[[], object], seconds: float = 240) -> None:
    """Wait for something to become true; an AssertionError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.2)
