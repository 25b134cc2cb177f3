"""
Write the report: one self-contained HTML page, and verdicts, main metrics and contrasts as CSV and LaTeX tables.
"""

from mmie import files, page, provenance, report, report_tables, stage, tables
from mmie.contrasts import contrasts
from mmie.metric_table import metric_table


def main(
    prompts: str, corpus: str, metrics: str, tests: str, decision: str,
    tradeoff: str, les: str, perplexity: str, layer_scores: str, training_curves: str, languages: str,
    attacks: str, recovery: str, membership: str, corpus_figure: str, frontier: str,
    comprehension: str, inside: str, flow: str, audit: str,
    generations: list[str], lid: list[str], gates: list[str], features: list[str], quality: list[str],
    latent_tokens: list[str], activation_storage: str, transfer: list[str], lid_quality: str,
    html: str, verdicts_csv: str, verdicts_tex: str, metrics_csv: str, metrics_tex: str, contrasts_csv: str,
    settings: dict, code: str = "",
) -> None:  # fmt: skip
    data, arms = settings["data"], [entry["arm"] for entry in settings["arms"]]
    found, rows = files.read_json(decision), tables.read(tests, tables.TESTS)
    units, asked = tables.read(metrics, tables.METRICS), tables.read(prompts, tables.PROMPTS)
    compared = contrasts(units, settings["contrasts"], data)
    context = report.compose(
        settings, found, rows, compared, asked, tables.read(corpus, tables.CORPUS),
        files.read_tables(generations, tables.GENERATIONS), files.read_tables(lid, tables.LID),
        files.read_tables(features, tables.FEATURES), files.read_tables(quality, tables.SAE_QUALITY),
        files.read_tables(latent_tokens, tables.LATENT_TOKENS), tables.read(activation_storage, tables.STORAGE),
        files.read_tables(transfer, tables.SAE_TRANSFER), files.read(provenance.REQUIREMENTS).decode(),
    )  # fmt: skip
    images = {
        "tradeoff": tradeoff, "les": les, "perplexity": perplexity, "languages": languages, "flow": flow,
        "attacks": attacks, "recovery": recovery, "comprehension": comprehension, "inside": inside,
        "membership": membership, "training_curves": training_curves, "layer_scores": layer_scores,
        "corpus": corpus_figure, "frontier": frontier,
    }  # fmt: skip
    shown = {name: files.read(images[name]) for name in report.shown_figures(settings)}
    opened = report_tables.gates(files.read_tables(gates, tables.GATES), arms, data)
    numbers = [report_tables.glance(units, rows, arms, data), *opened, *files.read_json(audit)]
    files.write(page.render(context, shown, numbers), html)
    files.write(report_tables.csv(report_tables.verdicts(found, arms)), verdicts_csv)
    files.write(report_tables.verdicts_tex(found, arms), verdicts_tex)
    files.write(report_tables.csv(metric_table(units, tables.read(lid_quality, tables.LID_QUALITY), arms)), metrics_csv)
    files.write(report_tables.metrics_tex(units, rows, arms, data), metrics_tex)
    files.write(report_tables.csv(compared), contrasts_csv)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
