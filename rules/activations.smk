"""
Cache the residual stream of the training texts, and rank the layers.

INPUTS

    results/model/manifest.json
    results/data/corpus.parquet

OUTPUTS

    results/activations/layer{n}.safetensors, results/activations/index.parquet,
    results/activations/storage.parquet
    results/layers.parquet

A cache job that is killed goes on from what it left in results/.work, which is no output of the rule.
"""


rule cache_activations:
    """Cache the outputs of the candidate layers in one early-stopped pass."""
    input:
        model="results/model/manifest.json",
        corpus="results/data/corpus.parquet",
    output:
        layers=expand("results/activations/layer{n}.safetensors", n=LAYERS),
        index="results/activations/index.parquet",
        storage="results/activations/storage.parquet",
    log:
        "logs/cache_activations.log",
    benchmark:
        "benchmarks/cache_activations.tsv"
    priority: CHAIN
    conda:
        MODEL_ENV
    threads: REPLICAS
    resources:
        gpu=GPU * REPLICAS,
        replicas=REPLICAS,
        mem_mb=memory("cache_activations"),
        runtime=minutes("cache_activations"),
    params:
        work="results/.work/cache_activations",
        settings=canonical({**config["activations"], "candidates": LAYERS}),
        runtime=RUNTIME,
        code=code_digest("cache_activations"),
    script:
        "../workflow_scripts/cache_activations.py"


rule select_layers:
    """Rank the candidate layers by how they hold the forget language."""
    input:
        layers=expand("results/activations/layer{n}.safetensors", n=LAYERS),
        index="results/activations/index.parquet",
        corpus="results/data/corpus.parquet",
    output:
        ranking="results/layers.parquet",
    log:
        "logs/select_layers.log",
    benchmark:
        "benchmarks/select_layers.tsv"
    priority: CHAIN
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("select_layers"),
        runtime=minutes("select_layers"),
    params:
        settings=canonical(
            {**config["layers"], "data": config["data"]},
        ),
        code=code_digest("select_layers"),
    script:
        "../workflow_scripts/select_layers.py"
