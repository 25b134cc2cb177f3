"""
Ask a language model what it thinks of the continuations; off unless config `judge.endpoint` is set.

INPUTS

    results/generations/{arm}/seed{seed}/{variant}.parquet
    results/data/prompts.parquet

OUTPUTS

    results/judge/{arm}/seed{seed}/{variant}.parquet; answers are kept in results/judge/cache/
"""


rule judge:
    """Let a language model rate some continuations of one run."""
    input:
        generations="results/generations/{arm}/seed{seed}/{variant}.parquet",
        prompts="results/data/prompts.parquet",
    output:
        ratings="results/judge/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/judge/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/judge/{arm}/seed{seed}/{variant}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("judge"),
        runtime=minutes("judge"),
    params:
        settings=canonical(config["judge"]),
        code=code_digest("judge"),
    script:
        "../workflow_scripts/judge.py"
