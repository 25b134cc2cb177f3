"""
Score held-out texts and canaries with the edited model, and probe what its layers still know.

INPUTS

    results/model/manifest.json
    results/pretrained/manifest.json
    results/data/corpus.parquet, results/data/canaries.parquet
    results/adapters/{arm}/seed{seed}/{variant}/arm.json

OUTPUTS

    results/reference.parquet
    results/likelihood/{arm}/seed{seed}/{variant}.parquet
    results/membership/{arm}/seed{seed}/{variant}.parquet
    results/states/{arm}/seed{seed}/{variant}.safetensors
    results/probes/{arm}/seed{seed}/{variant}.parquet
"""


rule score_reference:
    """Score the canaries with the pretrained model, which saw none of them."""
    input:
        model="results/pretrained/manifest.json",
        canaries="results/data/canaries.parquet",
    output:
        reference="results/reference.parquet",
    log:
        "logs/score_reference.log",
    benchmark:
        "benchmarks/score_reference.tsv"
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("score_reference"),
        runtime=minutes("score_reference"),
    params:
        settings=canonical(
            {
                key: config["texts"][key]
                for key in ("batch_tokens", "gradnorm_canaries")
            }
        ),
        runtime=RUNTIME,
        code=code_digest("score_reference"),
    script:
        "../workflow_scripts/score_reference.py"


rule score_texts:
    """Score held-out texts, pool their hidden states, and score the canaries."""
    input:
        model="results/model/manifest.json",
        corpus="results/data/corpus.parquet",
        canaries="results/data/canaries.parquet",
        reference="results/reference.parquet",
        card="results/adapters/{arm}/seed{seed}/{variant}/arm.json",
    output:
        likelihood="results/likelihood/{arm}/seed{seed}/{variant}.parquet",
        states="results/states/{arm}/seed{seed}/{variant}.safetensors",
        membership="results/membership/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/score_texts/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/score_texts/{arm}/seed{seed}/{variant}.tsv"
    priority: LONGEST
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("score_texts"),
        runtime=minutes("score_texts"),
    params:
        settings=text_settings,
        runtime=RUNTIME,
        code=code_digest("score_texts"),
    script:
        "../workflow_scripts/score_texts.py"


rule probe:
    """Probe the pooled states of every layer for the forget language."""
    input:
        states="results/states/{arm}/seed{seed}/{variant}.safetensors",
        corpus="results/data/corpus.parquet",
    output:
        probes="results/probes/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/probe/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/probe/{arm}/seed{seed}/{variant}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("probe"),
        runtime=minutes("probe"),
    params:
        settings=probe_settings,
        code=code_digest("probe"),
    script:
        "../workflow_scripts/probe.py"
