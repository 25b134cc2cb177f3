"""
What a run has done, is doing, and failed at: read from its logs/ and benchmarks/, without Snakemake.

A job holds a lock beside its log while it lives (`mmie.stage`), and Snakemake writes its benchmark once its outputs are
there.
"""

from __future__ import annotations

import fcntl
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from mmie.stage import lock_of

LOGGED = re.compile(r"^\S+ \S+ (?P<level>DEBUG|INFO|WARNING|ERROR) (?P<message>.*)$")
DATE = re.compile(r"^\[(\w{3} \w{3} +\d+ [\d:]{8} \d{4})\]$", flags=re.M)
KILLED = re.compile(r"exceeded memory limit|oom.kill|DUE TO TIME LIMIT|CANCELLED AT.*", flags=re.I)
"""What Slurm writes into a job's output when it ends it."""
PLACED = re.compile(r"(?:model loaded in|replicas on) .*")
"""What a stage logs of the devices it uses."""
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
    gpus: int = 0
    """GPUs that its model was on, or its replicas."""


@dataclass(frozen=True)
class Outlook:
    """How far a run is."""

    done: int
    planned: int
    minutes_left: float | None
    """None as long as no job of it has ended."""
    unknown: list[str]
    """Rules that are to come and of which no job has ended: their time is not in ``minutes_left``."""


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


def outlook(folder: Path, found: list[Job]) -> Outlook | None:
    """
    How far the newest Snakemake run in ``folder`` is; None where there is no log of one.

    The time left is that of the jobs to come, by the mean of those of their rule that have ended, divided by how much
    work this run has done per minute so far: how many jobs ran at once, and how long they queued, is in it.
    """
    for path in sorted((folder / ".snakemake/log").glob("*.log"), reverse=True):
        text = path.read_text(encoding="utf-8", errors="replace")
        # A job on a cluster is a Snakemake too, and so is an unlocking one, which plans nothing.
        if "--mode remote" not in text and (planned := _planned(text)):
            break
    else:
        return None
    ended = Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, flags=re.M))
    dates = [datetime.strptime(date, "%a %b %d %H:%M:%S %Y") for date in DATE.findall(text)]
    minutes = {rule: rows.hours * 60 / rows.jobs for rule, rows in costs(found).iterrows()}
    left = {rule: count - ended[rule] for rule, count in planned.items() if count > ended[rule]}
    worked = sum(count * minutes.get(rule, 0) for rule, count in ended.items())
    remaining = sum(count * minutes.get(rule, 0) for rule, count in left.items())
    elapsed = (dates[-1] - dates[0]).total_seconds() / 60 if dates else 0
    return Outlook(
        done=sum(planned.values()) - sum(left.values()),
        planned=sum(planned.values()),
        minutes_left=remaining * elapsed / worked if worked else None,
        unknown=sorted(set(left) - set(minutes)),
    )


def _planned(text: str) -> dict[str, int]:
    table = re.search(r"^Job stats:\njob +count\n[ -]+\n((?:\w+ +\d+\n)+)", text, flags=re.M)
    rows = (line.split() for line in table[1].splitlines()) if table else ()
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}


def costs(found: list[Job]) -> pd.DataFrame:
    """Per rule of the finished jobs: ``jobs``, ``hours``, ``gpu_hours``, ``longest_minutes`` and ``peak_mb``."""
    rows = [
        {"rule": job.name.split("/")[0], "s": job.seconds, "gpu": (job.seconds or 0) * job.gpus, "mb": job.peak_mb}
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
        gpus = {device for line in PLACED.findall(text) for device in re.findall(r"cuda(?::\d+)?", line)}
        return Job(name, "done", "", float(measured["s"]), None if pd.isna(peak) else float(peak), len(gpus))
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
