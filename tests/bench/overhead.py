"""
Where the time of a finished run went, from its benchmarks/ and logs/.

    .venv/bin/python tests/bench/overhead.py [run folder] [--wall SECONDS]

Overhead is what is not a stage's own work: starting Python, importing, loading the model, and (with ``--wall``, the wall
time of the whole run) Snakemake itself. Shares are of the jobs' total time.
"""

import argparse
import re
from pathlib import Path

import pandas as pd


def main() -> None:
    """Print seconds, memory and overhead per rule, and the shares of the whole."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument("--wall", type=float, help="wall time of the whole run, seconds")
    parser.add_argument("--cores", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    for path in sorted((arguments.folder / "benchmarks").rglob("*.tsv")):
        made = pd.read_csv(path, sep="\t").iloc[-1]
        name = path.relative_to(arguments.folder / "benchmarks").with_suffix("")
        log = arguments.folder / "logs" / f"{name}.log"
        text = log.read_text(encoding="utf-8") if log.exists() else ""
        ready = [float(s) for s in re.findall(r"(?:started|model loaded) in ([0-9.]+) s", text)]
        # Between two looks Snakemake cannot say how much memory a job of a second used: it writes "-".
        rows.append(
            {
                "rule": name.parts[0],
                "seconds": float(made["s"]),
                "overhead": sum(ready),
                "mb": pd.to_numeric(made["max_rss"], errors="coerce"),
            }
        )
    table = (
        pd.DataFrame(rows)
        .groupby("rule")
        .agg(jobs=("seconds", "size"), seconds=("seconds", "sum"), overhead=("overhead", "sum"), max_mb=("mb", "max"))
    )
    print(table.sort_values("seconds", ascending=False).round(1).to_string())
    total, overhead = table.seconds.sum(), table.overhead.sum()
    print(f"\njobs {total:.0f} s, of which imports and model loads {overhead:.0f} s ({overhead / total:.1%})")
    if arguments.wall:
        idle = arguments.wall * arguments.cores - total
        print(
            f"wall {arguments.wall:.0f} s × {arguments.cores} cores: {idle:.0f} s of them without a job ({idle / arguments.wall / arguments.cores:.1%})"
        )


if __name__ == "__main__":
    main()
