"""
Make the base model into a Hugging Face folder, once.

INPUTS

    config `model`

OUTPUTS

    results/model/manifest.json, and beside it config.json, model.safetensors, tokenizer.json
"""


rule fetch_model:
    """Materialise the base model as a bf16 folder."""
    output:
        manifest="results/model/manifest.json",
    log:
        "logs/fetch_model.log",
    benchmark:
        "benchmarks/fetch_model.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=MODEL_MB,
        runtime=60,
    params:
        settings=MODEL_SOURCE,
        code=code_digest("fetch_model"),
    script:
        "../workflow_scripts/fetch_model.py"
