"""
Gather what was measured into one tidy table.

Writes one row per run, metric and unit: everything that the gate reads.
"""

import pandas as pd

from mmie import stage, tables
from mmie.metrics import gather, read_card


def main(
    prompts: str,
    corpus: str,
    lid: list[str],
    likelihood: list[str],
    probes: list[str],
    cards: list[str],
    metrics: str,
    settings: dict,
    code: str = "",
) -> None:
    table = gather(
        tables.read(prompts, tables.PROMPTS),
        tables.read(corpus, tables.CORPUS),
        pd.concat([tables.read(path, tables.LID) for path in lid], ignore_index=True),
        pd.concat([tables.read(path, tables.LIKELIHOOD) for path in likelihood], ignore_index=True),
        pd.concat([tables.read(path, tables.PROBES) for path in probes], ignore_index=True),
        [read_card(path) for path in cards],
    )
    tables.write(table, metrics, tables.METRICS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
