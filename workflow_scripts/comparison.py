"""
Write docs/comparison.md: every arm of a run side by side, from its tables.

`python workflow_scripts/comparison.py --directory runs/comparison --overlay configs/comparison.yaml`
"""

from pathlib import Path

from mmie import files, stage
from mmie.comparison import compare
from mmie.config import PROJECT


def main(directory: str, overlay: str, page: str = "docs/comparison.md") -> None:
    files.write(compare(Path(directory), overlay), PROJECT / page)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
