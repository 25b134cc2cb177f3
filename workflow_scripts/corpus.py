"""
Read the parallel corpus, split it by group, and add the derived controls.

Writes one row per text.
"""

from mmie import stage, tables
from mmie.data import corpus_rows, read_groups


def main(source: str, corpus: str, settings: dict, code: str = "") -> None:
    groups = read_groups(source, settings)
    tables.write(corpus_rows(groups, settings), corpus, tables.CORPUS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
