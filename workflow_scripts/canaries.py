"""
Write the canaries: unique synthetic documents in the forget language, some to be planted, some never seen.

Writes one row per canary, and none when membership shows in their surface.
"""

from mmie import stage, tables
from mmie.canaries import canary_rows, in_columns
from mmie.canary_checks import check_canaries
from mmie.canary_grammar import read_grammar


def main(grammar: list[str], canaries: str, settings: dict, code: str = "") -> None:
    rows = []
    for path in grammar:
        drawn = canary_rows(read_grammar(path), settings["members"], settings["nonmembers"], settings["seed"])
        check_canaries(drawn)
        rows += in_columns(drawn, settings["forget"])
    tables.write(rows, canaries, tables.CANARIES, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
