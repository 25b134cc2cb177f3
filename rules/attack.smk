"""
Attack the edited models: is the language gone, or only hidden?

INPUTS

    results/adapters/{arm}/seed{seed}/plain/arm.json, and the files it names beside it
    results/model/manifest.json
    results/data/corpus.parquet

OUTPUTS

    results/adapters/{arm}/seed{seed}/{variant}/arm.json, which names the files of the plain card and its own
"""


rule attack:
    """Attack one edited model in one way."""
    input:
        model="results/model/manifest.json",
        corpus="results/data/corpus.parquet",
        plain="results/adapters/{arm}/seed{seed}/plain/arm.json",
    output:
        card="results/adapters/{arm}/seed{seed}/{variant}/arm.json",
    log:
        "logs/attack/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/attack/{arm}/seed{seed}/{variant}.tsv"
    wildcard_constraints:
        variant=one_of(ATTACKS),
    priority: CHAIN
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("attack"),
        runtime=minutes("attack"),
    params:
        seed="{seed}",
        variant="{variant}",
        settings=attack_settings,
        runtime=RUNTIME,
        code=attack_code,
    script:
        "../workflow_scripts/attack.py"
