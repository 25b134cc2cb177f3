"""
Make the model forget: one arm, one seed, one card of edits.

INPUTS

    results/model/manifest.json
    results/data/corpus.parquet
    results/data/canaries.parquet (the members are to be forgotten too)
    results/activations/layer{n}.safetensors, results/activations/index.parquet (arms that need activations)
    results/sae/site{site}/sae_weights.safetensors, cfg.json, features.parquet (arms that need the autoencoders)

OUTPUTS

    results/adapters/{arm}/seed{seed}/plain/arm.json, and the files it names beside it
    results/adapters/{arm}/seed{seed}/plain/training.parquet, gates.parquet
"""


rule unlearn:
    """Train one arm with one seed."""
    input:
        model="results/model/manifest.json",
        corpus="results/data/corpus.parquet",
        canaries="results/data/canaries.parquet",
        activations=branch(
            needs("activations"), then=rules.cache_activations.output.layers
        ),
        index=branch(needs("activations"), then="results/activations/index.parquet"),
        sae=branch(
            needs("sae"),
            then=expand("results/sae/site{site}/sae_weights.safetensors", site=SITES),
        ),
        features=branch(
            needs("sae"),
            then=expand("results/sae/site{site}/features.parquet", site=SITES),
        ),
    output:
        card="results/adapters/{arm}/seed{seed}/plain/arm.json",
        training="results/adapters/{arm}/seed{seed}/plain/training.parquet",
        gates="results/adapters/{arm}/seed{seed}/plain/gates.parquet",
    log:
        "logs/unlearn/{arm}/seed{seed}.log",
    benchmark:
        "benchmarks/unlearn/{arm}/seed{seed}.tsv"
    priority: CHAIN
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("unlearn"),
        runtime=minutes("unlearn"),
    params:
        arm="{arm}",
        seed="{seed}",
        settings=arm_settings,
        runtime=RUNTIME,
        code=arm_code,
    script:
        "../workflow_scripts/unlearn.py"
