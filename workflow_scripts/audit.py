"""
Put together what the audit found: comprehension, layers, membership, and what is said instead.

Writes its figures as PNG and PDF, its tables as CSV, and the same tables in words for the report.
"""

import json

from mmie import audit, audit_tables, drawing, figures_audit, files, report_tables, stage, tables


def main(
    metrics: str, reference: str, prompts: str, comprehension: list[str], inside: list[str], judge: list[str],
    probes: list[str], lid: list[str],
    comprehension_figure: str, comprehension_pdf: str, inside_figure: str, inside_pdf: str, flow: str, flow_pdf: str,
    comprehension_csv: str, membership_csv: str, found: str, settings: dict, code: str = "",
) -> None:  # fmt: skip
    arms, data = settings["arms"], settings["data"]
    units, asked = tables.read(metrics, tables.METRICS), tables.read(prompts, tables.PROMPTS)
    scores = files.read_tables(comprehension, tables.COMPREHENSION)
    looked = files.read_tables(inside, tables.INSIDE)
    probed, spoken = files.read_tables(probes, tables.PROBES), files.read_tables(lid, tables.LID)
    with drawing.style():
        for figure, png, pdf in [
            (figures_audit.comprehension(scores, units, arms, data), comprehension_figure, comprehension_pdf),
            (figures_audit.inside(looked, probed, arms, data), inside_figure, inside_pdf),
            (figures_audit.flow(spoken, asked, arms, data), flow, flow_pdf),
        ]:
            files.write(drawing.rendered(figure, "png"), png)
            files.write(drawing.rendered(figure, "pdf"), pdf)
    understood = audit.comprehension(scores)
    attacked = audit.membership(units, tables.read(reference, tables.REFERENCE), arms)
    files.write(report_tables.csv(understood), comprehension_csv)
    files.write(report_tables.csv(attacked), membership_csv)
    rated = audit.ratings(files.read_tables(judge, tables.JUDGE))
    shown = audit_tables.all_tables(understood, looked, attacked, audit.passes(spoken, asked), rated, arms, data)
    files.write(json.dumps(shown, ensure_ascii=False, indent=1) + "\n", found)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
