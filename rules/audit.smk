"""
Put together the audit: is the language gone, or only hidden?

INPUTS

    results/metrics.parquet, results/reference.parquet, results/data/prompts.parquet
    results/comprehension, results/inside, results/judge, results/probes, results/lid: {arm}/seed{seed}/plain.parquet

OUTPUTS

    results/figures/{comprehension,inside,flow}.{png,pdf}
    results/tables/{comprehension,membership}.csv
    results/audit.json (the tables in words, for the report)
"""


rule audit:
    """Draw the audit's figures and write its tables."""
    input:
        metrics="results/metrics.parquet",
        reference="results/reference.parquet",
        prompts="results/data/prompts.parquet",
        comprehension=plain_runs_if(
            COMPREHENDED, "results/comprehension/{arm}/seed{seed}/plain.parquet"
        ),
        inside=plain_runs_if(
            LOOKED_INSIDE, "results/inside/{arm}/seed{seed}/plain.parquet"
        ),
        judge=plain_runs_if(JUDGED, "results/judge/{arm}/seed{seed}/plain.parquet"),
        probes=plain_runs("results/probes/{arm}/seed{seed}/plain.parquet"),
        lid=plain_runs("results/lid/{arm}/seed{seed}/plain.parquet"),
    output:
        comprehension_figure=report(
            "results/figures/comprehension.png",
            caption="../report/comprehension.rst",
            category="Figures",
        ),
        comprehension_pdf="results/figures/comprehension.pdf",
        inside_figure=report(
            "results/figures/inside.png",
            caption="../report/inside.rst",
            category="Figures",
        ),
        inside_pdf="results/figures/inside.pdf",
        flow=report(
            "results/figures/flow.png",
            caption="../report/flow.rst",
            category="Figures",
        ),
        flow_pdf="results/figures/flow.pdf",
        comprehension_csv=report(
            "results/tables/comprehension.csv",
            caption="../report/comprehension_table.rst",
            category="Tables",
        ),
        membership_csv=report(
            "results/tables/membership.csv",
            caption="../report/membership_table.rst",
            category="Tables",
        ),
        found="results/audit.json",
    log:
        "logs/audit.log",
    benchmark:
        "benchmarks/audit.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("audit"),
        runtime=minutes("audit"),
    params:
        settings=canonical({"arms": list(ARMS), "data": config["data"]}),
        code=code_digest("audit"),
    script:
        "../workflow_scripts/audit.py"
