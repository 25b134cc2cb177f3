"""
Measure the language detector on labelled texts.

Writes sensitivity and specificity per language, with their intervals; no row when config `lid.labelled` is null.
"""

from mmie import stage, tables
from mmie.lid import Detector
from mmie.lid_quality import quality_rows, read_labelled
from mmie.scripts import MIXED


def main(labelled: list[str], quality: str, settings: dict, code: str = "") -> None:
    data = settings["data"]
    detector = Detector(settings["fasttext"], [name for name, script in data["scripts"].items() if script != MIXED])
    rows = [row for path in labelled for row in quality_rows(read_labelled(path, data), detector, data)]
    tables.write(rows, quality, tables.LID_QUALITY, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
