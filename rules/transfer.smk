"""
Apply the autoencoders of the base model to every edited one. Nothing is judged by it.

INPUTS

    results/model/manifest.json
    results/data/corpus.parquet
    results/adapters/{arm}/seed{seed}/plain/arm.json
    results/sae/site{site}/sae_weights.safetensors, cfg.json, features.parquet

OUTPUTS

    results/transfer/{arm}/seed{seed}/plain.parquet
"""


rule transfer_sae:
    """Reconstruct the states of one edited model with base's autoencoders."""
    input:
        model="results/model/manifest.json",
        corpus="results/data/corpus.parquet",
        card="results/adapters/{arm}/seed{seed}/plain/arm.json",
        weights=expand("results/sae/site{site}/sae_weights.safetensors", site=SITES),
        cfg=expand("results/sae/site{site}/cfg.json", site=SITES),
        features=expand("results/sae/site{site}/features.parquet", site=SITES),
    output:
        measured="results/transfer/{arm}/seed{seed}/plain.parquet",
    log:
        "logs/transfer_sae/{arm}/seed{seed}.log",
    benchmark:
        "benchmarks/transfer_sae/{arm}/seed{seed}.tsv"
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("transfer_sae"),
        runtime=minutes("transfer_sae"),
    params:
        settings=transfer_settings,
        runtime=RUNTIME,
        code=code_digest("transfer_sae"),
    script:
        "../workflow_scripts/transfer_sae.py"
