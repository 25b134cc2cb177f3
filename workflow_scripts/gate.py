"""
Decide for every arm: PROCEED, STOP or CANNOT CERTIFY.

Writes every test the verdict rests on, and the decision with its reasons.
"""

import os
from pathlib import Path

from mmie import stage, tables
from mmie.gate import run_tests
from mmie.verdict import as_json, decide


def main(metrics: str, lid_quality: str, tests: str, decision: str, settings: dict, code: str = "") -> None:
    measured = tables.read(metrics, tables.METRICS, categories=True)
    rows = run_tests(measured, tables.read(lid_quality, tables.LID_QUALITY), settings)
    tables.write(rows, tests, tables.TESTS, code=code)
    # From the file, so that the verdict can be recomputed from it.
    text = as_json(decide(tables.read(tests, tables.TESTS), settings))
    partial = Path(f"{decision}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, decision)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
