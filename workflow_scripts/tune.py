"""
Choose among configurations of each arm, on the tune split.

Writes one row per arm, and the choice as an overlay for `--configfile`.
"""

from mmie import files, stage, tables
from mmie.tuning import as_text, overlay, tune_rows


def main(metrics: str, tests: str, table: str, chosen: str, settings: dict, code: str = "") -> None:
    rows = tune_rows(tables.read(metrics, tables.METRICS), tables.read(tests, tables.TESTS), settings)
    tables.write(rows, table, tables.TUNE, code=code)
    files.write(overlay(rows, settings["tried"], settings["rule"]), chosen)
    stage.log.info("%s\nThe choice, for --configfile: %s", as_text(rows), chosen)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
