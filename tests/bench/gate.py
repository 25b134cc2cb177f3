"""
Time the gate: .venv/bin/python tests/bench/gate.py [groups] [arms] [seeds], as a stage would run it on one core.

Metrics are drawn for known models, in a process of their own: time and peak memory are those of the gate alone.
"""

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2] / "workflow_scripts"), str(Path(__file__).parents[1])]

from gate import main  # noqa: E402
from metrics_tables import PERFECT, SETTINGS, make_metrics, make_quality  # noqa: E402
from mmie import tables  # noqa: E402


def make(folder: Path, groups: int, arms: int, seeds: int) -> None:
    models = {f"arm{i}": replace(PERFECT, leak=0.005 * i) for i in range(arms)}
    metrics = make_metrics(models, groups, tuple(range(seeds)))
    print(f"{len(metrics):,} rows: {arms} arms × {seeds} seeds × {groups} groups", flush=True)
    tables.write(metrics, folder / "metrics.parquet", tables.METRICS)
    tables.write(make_quality(), folder / "quality.parquet", tables.LID_QUALITY)


def bench(groups: int, arms: int, seeds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(folder, groups, arms, seeds))
        maker.start()
        maker.join()
        files = [str(folder / f) for f in ("metrics.parquet", "quality.parquet", "tests.parquet", "decision.json")]
        begun, cpu = time.perf_counter(), time.process_time()
        main(*files, SETTINGS)
        print(f"gate: {time.perf_counter() - begun:.1f} s, of which computing {time.process_time() - cpu:.1f} s")
        print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    bench(*map(int, [*sys.argv[1:], *("200", "10", "10")[len(sys.argv) - 1 :]]))
