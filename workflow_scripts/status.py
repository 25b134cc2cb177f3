"""
Say what a run has done, is doing, and failed at and why, and what it cost: time, memory and GPU hours per rule.

`python workflow_scripts/status.py --directory runs/x`; it reads logs and benchmarks, and changes nothing. With `--table
costs.csv` the cost is written there too.
"""

from collections import Counter
from pathlib import Path

from mmie import files, progress, stage


def main(directory: str = ".", table: str = "") -> None:
    found = progress.jobs(Path(directory))
    counts = Counter(job.state for job in found)
    print(", ".join(f"{counts[state]} {state}" for state in ("done", "running", "failed")))
    if run := progress.outlook(Path(directory), found):
        left = "" if run.minutes_left is None else f", about {run.minutes_left:.0f} min left"
        but = f", not counting {', '.join(run.unknown)}, of which none has ended" if run.unknown else ""
        print(f"newest run: {run.done} of {run.planned} jobs done{left}{but}")
    for job in found:
        if job.state != "done":
            print(f"{job.state}: {job.name}: {job.says}")
    cost = progress.costs(found)
    print("\n" + cost.to_string(float_format="{:.2f}".format, na_rep="-"))
    if table:
        files.write(cost.to_csv(), table)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
