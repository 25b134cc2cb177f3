"""
State the power of every gate before anything has run, from the config alone.

Writes the table (Parquet and CSV) and its figure, and shows what the configured experiment could certify.
"""

from mmie import drawing, files, power_figure, stage, tables
from mmie.power_parts import plan_of
from mmie.power_table import as_text, power_rows


def main(
    register: list[str], templates: str, table: str, csv: str, figure: str, figure_pdf: str, settings: dict,
    code: str = "",
) -> None:  # fmt: skip
    plan = plan_of(settings, templates, register)
    rows = power_rows(plan, settings["groups"], len(settings["seeds"]))
    tables.write(rows, table, tables.POWER, code=code)
    rows = tables.read(table, tables.POWER)
    files.write(rows.to_csv(index=False, float_format="%.6g"), csv)
    with drawing.style():
        drawn = power_figure.power_curves(rows)
        files.write(drawing.rendered(drawn, "png"), figure)
        files.write(drawing.rendered(drawn, "pdf"), figure_pdf)
    stage.log.info("%s", as_text(rows))


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
