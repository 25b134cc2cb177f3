"""
Look inside the edited models: which layers are on their way to the forgotten language.

INPUTS

    results/model/manifest.json
    results/data/prompts.parquet
    results/adapters/{arm}/seed{seed}/{variant}/arm.json

OUTPUTS

    results/inside/{arm}/seed{seed}/{variant}.parquet
"""


rule look_inside:
    """Read every layer with the head, and let base go on from its states."""
    input:
        model="results/model/manifest.json",
        prompts="results/data/prompts.parquet",
        card="results/adapters/{arm}/seed{seed}/{variant}/arm.json",
    output:
        inside="results/inside/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/look_inside/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/look_inside/{arm}/seed{seed}/{variant}.tsv"
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("look_inside"),
        runtime=minutes("look_inside"),
    params:
        settings=inside_settings,
        runtime=RUNTIME,
        code=code_digest("look_inside"),
    script:
        "../workflow_scripts/look_inside.py"
