"""
Gather what was measured into one tidy table.

INPUTS

    results/data/prompts.parquet, results/data/corpus.parquet
    results/lid, results/likelihood: {arm}/seed{seed}/{variant}.parquet
    results/probes, results/membership: {arm}/seed{seed}/plain.parquet
    results/adapters/{arm}/seed{seed}/plain/arm.json (which layers were edited)

OUTPUTS

    results/metrics.parquet
"""


rule metrics:
    """Join all measurements: one row per unit and metric."""
    input:
        prompts="results/data/prompts.parquet",
        corpus="results/data/corpus.parquet",
        lid=runs("results/lid/{arm}/seed{seed}/{variant}.parquet"),
        likelihood=runs("results/likelihood/{arm}/seed{seed}/{variant}.parquet"),
        probes=plain_runs("results/probes/{arm}/seed{seed}/plain.parquet"),
        membership=plain_runs("results/membership/{arm}/seed{seed}/plain.parquet"),
        cards=plain_runs("results/adapters/{arm}/seed{seed}/plain/arm.json"),
    output:
        metrics="results/metrics.parquet",
    log:
        "logs/metrics.log",
    benchmark:
        "benchmarks/metrics.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("metrics"),
        runtime=minutes("metrics"),
    params:
        settings=canonical({"data": config["data"]}),
        code=code_digest("metrics"),
    script:
        "../workflow_scripts/metrics.py"
