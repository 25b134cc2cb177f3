"""
Say which language every continuation is in.

INPUTS

    results/generations/{arm}/seed{seed}/{variant}.parquet
    results/data/prompts.parquet

OUTPUTS

    results/lid/{arm}/seed{seed}/{variant}.parquet
"""


rule score_lid:
    """Identify the language of every continuation."""
    input:
        generations="results/generations/{arm}/seed{seed}/{variant}.parquet",
        prompts="results/data/prompts.parquet",
    output:
        lid="results/lid/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/score_lid/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/score_lid/{arm}/seed{seed}/{variant}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=canonical({**config["lid"], "data": config["data"]}),
        code=code_digest("score_lid"),
    script:
        "../workflow_scripts/score_lid.py"
