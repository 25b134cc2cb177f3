"""
What a run has done, is doing, and failed at: read from its logs/ and benchmarks/, without Snakemake.

A job holds a lock beside its log while it lives (`mmie.stage`), and Snakemake writes its benchmark once its outputs are
there.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mmie.stage import lock_of

LOGGED = re.compile(r"^\S+ \S+ (?P<level>DEBUG|INFO|WARNING|ERROR) (?P<message>.*)$")
STEPS = re.compile(r"^(\d+) of (\d+) steps", flags=re.M)
KILLED = re.compile(r"exceeded memory limit|oom.kill|DUE TO TIME LIMIT|CANCELLED AT.*", flags=re.I)
"""What Slurm writes into a job's output when it ends it."""
ERROR_LINES = 3


@dataclass(frozen=True)
class Job:
    """One job of a rule, by the path of its log."""

    name: str
    """Rule and wildcards: ``generate/lora/seed0/plain``."""
    state: str
    """``done``, ``running`` or ``failed``."""
    says: str
    """Of a running job its last line; of a failed one its last error lines, or who ended it."""
    seconds: float | None = None
    """Of a finished job."""
    peak_mb: float | None = None
    """Of a finished job; None also where it ended before anybody looked."""
    gpu: bool = False
    """Whether its model was on a GPU."""


def jobs(folder: Path) -> list[Job]:
    """
    Every job that has started since its outputs were last wanted, by name.

    Raises ValueError when nothing has run in ``folder``.
    """
    if not (folder / "logs").is_dir():
        raise ValueError(f"{folder}/logs is missing: nothing has run there. Give the folder of a run (--directory).")
    ended = dict(_ended_by_slurm(folder))
    logs = (path for path in (folder / "logs").rglob("*.log") if path.parts[len(folder.parts) + 1] != "slurm")
    return [_job(folder, path, ended) for path in sorted(logs)]


def steps(folder: Path) -> tuple[int, int] | None:
    """Steps done and planned of the newest Snakemake run in ``folder``; None where its log does not say."""
    for path in sorted((folder / ".snakemake/log").glob("*.log"), reverse=True):
        # A job on a cluster is a Snakemake too, of one step or a few; only the main one plans `all` of its targets.
        text = path.read_text(encoding="utf-8", errors="replace")
        if "--mode remote" not in text and (found := STEPS.findall(text)):
            return int(found[-1][0]), int(found[-1][1])
    return None


def costs(found: list[Job]) -> pd.DataFrame:
    """Per rule of the finished jobs: ``jobs``, ``hours``, ``gpu_hours``, ``longest_minutes`` and ``peak_mb``."""
    rows = [
        {"rule": job.name.split("/")[0], "s": job.seconds, "gpu": (job.seconds or 0) * job.gpu, "mb": job.peak_mb}
        for job in found
        if job.state == "done"
    ]
    frame = pd.DataFrame(rows, columns=["rule", "s", "gpu", "mb"]).astype({"s": float, "gpu": float, "mb": float})
    table = frame.groupby("rule").agg(
        jobs=("s", "size"),
        hours=("s", "sum"),
        gpu_hours=("gpu", "sum"),
        longest_minutes=("s", "max"),
        peak_mb=("mb", "max"),
    )
    table[["hours", "gpu_hours"]] /= 3600
    table["longest_minutes"] /= 60
    return table.sort_values("hours", ascending=False)


def _job(folder: Path, path: Path, ended: dict[str, str]) -> Job:
    name = str(path.relative_to(folder / "logs").with_suffix(""))
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = [match for line in text.splitlines() if (match := LOGGED.match(line))]
    benchmark = folder / "benchmarks" / f"{name}.tsv"
    if _is_locked(lock_of(path)):
        return Job(name, "running", next((m["message"] for m in reversed(lines) if m["level"] == "INFO"), "started"))
    # The log is opened before and closed after the work; a benchmark older than it is of an earlier attempt.
    if benchmark.exists() and benchmark.stat().st_mtime >= path.stat().st_mtime - 1:
        measured = pd.read_csv(benchmark, sep="\t").iloc[-1]
        peak = pd.to_numeric(measured["max_rss"], errors="coerce")
        on_gpu = re.search(r"model loaded in .*: cuda", text) is not None
        return Job(name, "done", "", float(measured["s"]), None if pd.isna(peak) else float(peak), on_gpu)
    errors = text[text.rfind(" ERROR ") + 7 :].strip().splitlines() if " ERROR " in text else []
    why = " / ".join(errors[-ERROR_LINES:]) or ended.get(name, "ended without a word: killed, or out of memory")
    return Job(name, "failed", why)


def _is_locked(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks, which the job's own log says
            return False
    return False


def _ended_by_slurm(folder: Path) -> Iterator[tuple[str, str]]:
    """Job → what Slurm wrote when it ended it; of several submissions the last counts."""
    for path in sorted((folder / "logs/slurm").rglob("*.log"), key=lambda path: path.stat().st_mtime):
        text = path.read_text(encoding="utf-8", errors="replace")
        if found := KILLED.search(text):
            for name in re.findall(r"^ +log: logs/(\S+)\.log", text, flags=re.M):
                yield name, f"ended by Slurm: {found[0]} ({path.relative_to(folder)})"
