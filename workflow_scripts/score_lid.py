"""
Identify the language of every continuation.

Writes one row per generation.
"""

from mmie import stage, tables
from mmie.lid import Detector
from mmie.lid_scores import lid_rows
from mmie.scripts import MIXED


def main(generations: str, prompts: str, lid: str, settings: dict, code: str = "") -> None:
    data = settings["data"]
    detector = Detector(settings["fasttext"], [name for name, script in data["scripts"].items() if script != MIXED])
    texts = tables.read(generations, tables.GENERATIONS)
    rows = lid_rows(texts, tables.read(prompts, tables.PROMPTS), detector, data)
    tables.write(list(stage.track(rows, len(texts), "continuations")), lid, tables.LID, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
