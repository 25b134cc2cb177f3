"""
Continue every prompt with the edited model.

INPUTS

    results/model/manifest.json
    results/data/prompts.parquet
    results/adapters/{arm}/seed{seed}/{variant}/arm.json

OUTPUTS

    results/generations/{arm}/seed{seed}/{variant}.parquet
"""


rule generate:
    """Continue all prompt families in one model load."""
    input:
        model="results/model/manifest.json",
        prompts="results/data/prompts.parquet",
        card="results/adapters/{arm}/seed{seed}/{variant}/arm.json",
    output:
        generations="results/generations/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/generate/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/generate/{arm}/seed{seed}/{variant}.tsv"
    conda:
        MODEL_ENV
    threads: REPLICAS
    resources:
        gpu=GPU * REPLICAS,
        replicas=REPLICAS,
        mem_mb=memory("generate"),
        runtime=minutes("generate"),
    params:
        settings=generation_settings,
        runtime=RUNTIME,
        code=code_digest("generate"),
    script:
        "../workflow_scripts/generate.py"
