"""
Draw the figures, and write the report and its tables.

INPUTS

    results/metrics.parquet, results/gate/tests.parquet, results/gate/decision.json
    results/data/prompts.parquet, results/data/corpus.parquet
    results/data/checks.parquet, results/layers.parquet, results/sae/site{site}/features.parquet, results/sae/site{site}/quality.parquet
    results/sae/site{site}/latent_tokens.parquet, results/activations/storage.parquet, results/transfer/{arm}/seed{seed}/plain.parquet
    results/audit.json, results/figures/{comprehension,inside,flow}.png
    results/adapters/{arm}/seed{seed}/plain/training.parquet, gates.parquet
    results/generations/{arm}/seed{seed}/plain.parquet, results/lid/{arm}/seed{seed}/plain.parquet

OUTPUTS

    results/figures/{tradeoff,les,perplexity,layers,training,languages,attacks,recovery,membership,corpus,frontier}.{png,pdf}
    results/report.html
    results/tables/{verdicts,metrics}.{csv,tex}, results/tables/contrasts.csv
"""


rule figures:
    """Draw every figure, for the report (PNG) and for a paper (PDF)."""
    input:
        metrics="results/metrics.parquet",
        tests="results/gate/tests.parquet",
        layers="results/layers.parquet",
        training=plain_runs("results/adapters/{arm}/seed{seed}/plain/training.parquet"),
        lid=plain_runs("results/lid/{arm}/seed{seed}/plain.parquet"),
        prompts="results/data/prompts.parquet",
        texts="results/data/corpus.parquet",
        checks="results/data/checks.parquet",
    output:
        tradeoff=report(
            "results/figures/tradeoff.png",
            caption="../report/tradeoff.rst",
            category="Figures",
        ),
        tradeoff_pdf="results/figures/tradeoff.pdf",
        les=report(
            "results/figures/les.png",
            caption="../report/les.rst",
            category="Figures",
        ),
        les_pdf="results/figures/les.pdf",
        perplexity=report(
            "results/figures/perplexity.png",
            caption="../report/perplexity.rst",
            category="Figures",
        ),
        perplexity_pdf="results/figures/perplexity.pdf",
        layer_scores=report(
            "results/figures/layers.png",
            caption="../report/layers.rst",
            category="Figures",
        ),
        layer_scores_pdf="results/figures/layers.pdf",
        training_curves=report(
            "results/figures/training.png",
            caption="../report/training.rst",
            category="Figures",
        ),
        training_curves_pdf="results/figures/training.pdf",
        languages=report(
            "results/figures/languages.png",
            caption="../report/languages.rst",
            category="Figures",
        ),
        languages_pdf="results/figures/languages.pdf",
        attacks=report(
            "results/figures/attacks.png",
            caption="../report/attacks.rst",
            category="Figures",
        ),
        attacks_pdf="results/figures/attacks.pdf",
        recovery=report(
            "results/figures/recovery.png",
            caption="../report/recovery.rst",
            category="Figures",
        ),
        recovery_pdf="results/figures/recovery.pdf",
        membership=report(
            "results/figures/membership.png",
            caption="../report/membership.rst",
            category="Figures",
        ),
        membership_pdf="results/figures/membership.pdf",
        corpus=report(
            "results/figures/corpus.png",
            caption="../report/corpus.rst",
            category="Figures",
        ),
        corpus_pdf="results/figures/corpus.pdf",
        frontier=report(
            "results/figures/frontier.png",
            caption="../report/frontier.rst",
            category="Figures",
        ),
        frontier_pdf="results/figures/frontier.pdf",
    log:
        "logs/figures.log",
    benchmark:
        "benchmarks/figures.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("figures"),
        runtime=minutes("figures"),
    params:
        settings=canonical(
            {
                "arms": list(ARMS),
                "sweeps": sweeps(ARMS),
                "data": config["data"],
                "sites": len(SITES),
                "durability": config["gate"]["margins"]["durability"],
            }
        ),
        code=code_digest("figures"),
    script:
        "../workflow_scripts/figures.py"


rule report:
    """Write the report as one page, and its tables for a paper."""
    input:
        prompts="results/data/prompts.parquet",
        corpus="results/data/corpus.parquet",
        metrics="results/metrics.parquet",
        tests="results/gate/tests.parquet",
        decision="results/gate/decision.json",
        tradeoff="results/figures/tradeoff.png",
        les="results/figures/les.png",
        perplexity="results/figures/perplexity.png",
        layer_scores="results/figures/layers.png",
        training_curves="results/figures/training.png",
        languages="results/figures/languages.png",
        attacks="results/figures/attacks.png",
        recovery="results/figures/recovery.png",
        membership="results/figures/membership.png",
        corpus_figure="results/figures/corpus.png",
        frontier="results/figures/frontier.png",
        comprehension="results/figures/comprehension.png",
        inside="results/figures/inside.png",
        flow="results/figures/flow.png",
        audit="results/audit.json",
        generations=plain_runs("results/generations/{arm}/seed{seed}/plain.parquet"),
        lid=plain_runs("results/lid/{arm}/seed{seed}/plain.parquet"),
        gates=plain_runs("results/adapters/{arm}/seed{seed}/plain/gates.parquet"),
        features=expand("results/sae/site{site}/features.parquet", site=SITES),
        quality=expand("results/sae/site{site}/quality.parquet", site=SITES),
        latent_tokens=expand("results/sae/site{site}/latent_tokens.parquet", site=SITES),
        activation_storage="results/activations/storage.parquet",
        transfer=plain_runs_if(
            TRANSFERRED, "results/transfer/{arm}/seed{seed}/plain.parquet"
        ),
        lid_quality="results/lid_quality.parquet",
    output:
        html=report(
            "results/report.html", caption="../report/report.rst", category="Report"
        ),
        verdicts_csv=report(
            "results/tables/verdicts.csv",
            caption="../report/verdicts.rst",
            category="Tables",
        ),
        verdicts_tex="results/tables/verdicts.tex",
        metrics_csv=report(
            "results/tables/metrics.csv",
            caption="../report/metrics.rst",
            category="Tables",
        ),
        metrics_tex="results/tables/metrics.tex",
        contrasts_csv=report(
            "results/tables/contrasts.csv",
            caption="../report/contrasts.rst",
            category="Tables",
        ),
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("report"),
        runtime=minutes("report"),
    params:
        settings=canonical(
            {
                **config["report"],
                "contrasts": check_contrasts(config["report"]["contrasts"], ARMS),
                "data": config["data"],
                "model": {
                    key: config["model"][key] for key in ("source", "name", "revision")
                },
                "swept": bool(sweeps(ARMS)),
                "attacked": bool(ATTACKS),
                "understood": COMPREHENDED,
                "looked_inside": LOOKED_INSIDE,
                "selector": config["features"]["selector"],
                "arms": [
                    {
                        "arm": name,
                        "method": arm["method"],
                        "params": arm["params"],
                        "about": summary_of(arm["method"]),
                    }
                    for name, arm in ARMS.items()
                ],
            }
        ),
        code=code_digest("report"),
    script:
        "../workflow_scripts/report.py"
