"""
Gather what was measured into one tidy table.

Writes one row per run, metric and unit: everything that the gate reads.
"""

from mmie import stage, tables
from mmie.files import read_tables
from mmie.metrics import gather, read_card


def main(
    prompts: str,
    corpus: str,
    lid: list[str],
    likelihood: list[str],
    probes: list[str],
    membership: list[str],
    cards: list[str],
    metrics: str,
    settings: dict,
    code: str = "",
) -> None:
    table = gather(
        tables.read(prompts, tables.PROMPTS),
        tables.read(corpus, tables.CORPUS),
        read_tables(lid, tables.LID),
        read_tables(likelihood, tables.LIKELIHOOD),
        read_tables(probes, tables.PROBES),
        read_tables(membership, tables.MEMBERSHIP),
        [read_card(path) for path in cards],
        settings["data"]["scripts"],
    )
    tables.write(table, metrics, tables.METRICS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
