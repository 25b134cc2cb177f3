"""
Calibrate the gates: their type-I errors, known models, power; and write what was found into docs/.

    .venv/bin/python tests/calibration/calibrate.py [--sims 200000]

Ends with an error when a type-I error is above .055 at its lower 99 % bound, known exceptions aside.
"""

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(ROOT / "tests")]

from calibration import page, sizes  # noqa: E402
from mmie import drawing, files  # noqa: E402

SIMULATIONS = 20_000


def main() -> None:
    """Compute every cell, write the page and the figure, and list what does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sims", type=int, default=SIMULATIONS, help="simulated experiments per cell")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder of statistics.md")
    arguments = parser.parse_args()
    start = time.monotonic()
    cells = sizes.all_cells(arguments.sims)
    text = (arguments.docs / "statistics.md").read_text(encoding="utf-8")
    files.write(page.filled(text, page.all_parts(cells, arguments.sims)), arguments.docs / "statistics.md")
    with drawing.style():
        files.write(drawing.rendered(page.figure(cells), "png"), arguments.docs / "figures" / "calibration.png")
    failing = [cell for cell in cells if not cell.holds and not cell.exception]
    print(f"{len(cells)} cells in {time.monotonic() - start:.0f} s; docs/statistics.md and its figure are written.")
    for cell in failing:
        print(f"{cell.gate}, n = {cell.n}, {cell.seeds} seeds: size {cell.size:.4f} (≥ {cell.low:.4f}): {cell.null}")
    if failing:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
