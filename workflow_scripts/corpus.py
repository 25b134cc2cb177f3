"""
Read the parallel corpus, split it by group, add controls, second register and further texts, and check it all.

Writes one row per text, and what was checked of each; nothing when a check fails.
"""

import pandas as pd

from mmie import stage, tables
from mmie.data import corpus_rows, read_groups
from mmie.data_checks import check_corpus
from mmie.large import large_rows
from mmie.lid import Detector
from mmie.register import register_rows
from mmie.scripts import MIXED


def main(
    source: str, register: list[str], texts: list[str], corpus: str, checks: str, settings: dict, code: str = ""
) -> None:
    data = settings["data"]
    rows = corpus_rows(read_groups(source, data), data)
    rows += [row for path in register for row in register_rows(path, data)]
    checked = pd.DataFrame(rows)
    detector = Detector(settings["fasttext"], [name for name, script in data["scripts"].items() if script != MIXED])
    tables.write(check_corpus(checked, detector, data), checks, tables.CHECKS, code=code)
    tables.write(rows + large_rows(checked, data, detector), corpus, tables.CORPUS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
