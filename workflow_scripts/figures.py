"""
Draw the figures of the experiment.

Writes each as PNG for the report and as PDF for a paper.
"""

from mmie import drawing, figures, figures_evidence, figures_frontier, figures_recovery, files, stage, tables


def main(
    metrics: str, tests: str, layers: str, training: list[str], lid: list[str], prompts: str, texts: str, checks: str,
    tradeoff: str, tradeoff_pdf: str, les: str, les_pdf: str, perplexity: str, perplexity_pdf: str,
    layer_scores: str, layer_scores_pdf: str, training_curves: str, training_curves_pdf: str,
    languages: str, languages_pdf: str, attacks: str, attacks_pdf: str, recovery: str, recovery_pdf: str,
    membership: str, membership_pdf: str, corpus: str, corpus_pdf: str, frontier: str, frontier_pdf: str,
    settings: dict, code: str = "",
) -> None:  # fmt: skip
    arms, data = settings["arms"], settings["data"]
    units, verdicts = tables.read(metrics, tables.METRICS), tables.read(tests, tables.TESTS)
    ranking, asked = tables.read(layers, tables.LAYERS), tables.read(prompts, tables.PROMPTS)
    history = files.read_tables(training, tables.TRAINING)
    answers = files.read_tables(lid, tables.LID)
    rows, checked = tables.read(texts, tables.CORPUS), tables.read(checks, tables.CHECKS)
    with drawing.style():
        for figure, png, pdf in [
            (figures.tradeoff(units, verdicts, arms, data), tradeoff, tradeoff_pdf),
            (figures.les(units, verdicts, arms, data), les, les_pdf),
            (figures.perplexity(units, verdicts, arms, data), perplexity, perplexity_pdf),
            (figures.layers(ranking, settings["sites"], data), layer_scores, layer_scores_pdf),
            (figures.training(history, arms), training_curves, training_curves_pdf),
            (figures.languages(answers, asked, arms, data), languages, languages_pdf),
            (figures_evidence.attacks(units, arms, data), attacks, attacks_pdf),
            (figures_recovery.recovery(units, arms, data, settings["durability"]), recovery, recovery_pdf),
            (figures_evidence.membership(verdicts, arms), membership, membership_pdf),
            (figures_evidence.corpus(rows, checked, data), corpus, corpus_pdf),
            (figures_frontier.frontier(units, verdicts, settings["sweeps"], data), frontier, frontier_pdf),
        ]:
            files.write(drawing.rendered(figure, "png"), png)
            files.write(drawing.rendered(figure, "pdf"), pdf)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
