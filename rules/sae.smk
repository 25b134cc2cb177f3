"""
Train or fetch a sparse autoencoder per chosen layer, and select the latents of the forget language.

INPUTS

    results/activations/layer{n}.safetensors, results/activations/index.parquet
    results/data/corpus.parquet
    results/layers.parquet
    results/model/manifest.json (for the autoencoder's quality, and the latents' influence)

OUTPUTS

    results/sae/site{site}/cfg.json, sae_weights.safetensors (a SAELens folder)
    results/sae/site{site}/training.parquet, quality.parquet, features.parquet,
    latent_tokens.parquet
"""


rule train_sae:
    """Train the autoencoder of one site, or take a trained one, and measure it on the tune split."""
    input:
        activations=expand("results/activations/layer{n}.safetensors", n=LAYERS),
        index="results/activations/index.parquet",
        corpus="results/data/corpus.parquet",
        ranking="results/layers.parquet",
        model="results/model/manifest.json",
    output:
        weights="results/sae/site{site}/sae_weights.safetensors",
        cfg="results/sae/site{site}/cfg.json",
        training="results/sae/site{site}/training.parquet",
        quality="results/sae/site{site}/quality.parquet",
    log:
        "logs/train_sae/site{site}.log",
    benchmark:
        "benchmarks/train_sae/site{site}.tsv"
    priority: CHAIN
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("train_sae"),
        runtime=minutes("train_sae"),
    params:
        site="{site}",
        settings=SAE_SETTINGS,
        runtime=RUNTIME,
        code=code_digest("train_sae"),
    script:
        "../workflow_scripts/train_sae.py"


rule select_features:
    """Score every latent, and select those of the forget language."""
    input:
        activations=expand("results/activations/layer{n}.safetensors", n=LAYERS),
        index="results/activations/index.parquet",
        corpus="results/data/corpus.parquet",
        ranking="results/layers.parquet",
        weights="results/sae/site{site}/sae_weights.safetensors",
        cfg="results/sae/site{site}/cfg.json",
        model="results/model/manifest.json",
    output:
        features="results/sae/site{site}/features.parquet",
        latent_tokens="results/sae/site{site}/latent_tokens.parquet",
    log:
        "logs/select_features/site{site}.log",
    benchmark:
        "benchmarks/select_features/site{site}.tsv"
    priority: CHAIN
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("select_features"),
        runtime=minutes("select_features"),
    params:
        site="{site}",
        settings=canonical(
            {**config["features"], "data": config["data"], "candidates": LAYERS}
        ),
        runtime=RUNTIME,
        code=code_digest("select_features"),
    script:
        "../workflow_scripts/select_features.py"
