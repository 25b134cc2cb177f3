"""
Make the pretrained model into a Hugging Face folder, once, and plant the canaries in a copy of it.

INPUTS

    config `model`
    results/data/corpus.parquet, results/data/canaries.parquet

OUTPUTS

    results/pretrained/manifest.json, and beside it config.json, model.safetensors, tokenizer.json
    results/model/manifest.json, and the same files: the model that all later stages use
    results/planting.parquet
"""


rule fetch_model:
    """Materialise the pretrained model as a bf16 folder."""
    output:
        manifest="results/pretrained/manifest.json",
    log:
        "logs/fetch_model.log",
    benchmark:
        "benchmarks/fetch_model.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("fetch_model"),
        runtime=minutes("fetch_model"),
    params:
        settings=MODEL_SOURCE,
        code=code_digest("fetch_model"),
    script:
        "../workflow_scripts/fetch_model.py"


rule plant_canaries:
    """Fine-tune the member canaries into a copy of the model."""
    input:
        pretrained="results/pretrained/manifest.json",
        corpus="results/data/corpus.parquet",
        canaries="results/data/canaries.parquet",
    output:
        manifest="results/model/manifest.json",
        planting="results/planting.parquet",
    log:
        "logs/plant_canaries.log",
    benchmark:
        "benchmarks/plant_canaries.tsv"
    # Everything waits for it, and it needs both cores of a laptop: no small job may come first.
    priority: FIRST
    conda:
        MODEL_ENV
    threads: 2
    resources:
        gpu=GPU,
        mem_mb=memory("plant_canaries"),
        runtime=minutes("plant_canaries"),
    params:
        settings=canonical(
            {
                "data": config["data"],
                **{
                    key: config["canaries"][key]
                    for key in ("epochs", "lr", "rank", "seed")
                },
            }
        ),
        runtime=RUNTIME,
        code=code_digest("plant_canaries"),
    script:
        "../workflow_scripts/plant_canaries.py"
