"""
Say which language every continuation is in, and measure how often the detector is right.

INPUTS

    results/generations/{arm}/seed{seed}/{variant}.parquet
    results/data/prompts.parquet
    the file of config `lid.labelled`

OUTPUTS

    results/lid/{arm}/seed{seed}/{variant}.parquet
    results/lid_quality.parquet
"""


rule measure_lid:
    """Measure the detector on labelled texts."""
    input:
        labelled=file_of(config["lid"]["labelled"]),
    output:
        quality="results/lid_quality.parquet",
    log:
        "logs/measure_lid.log",
    benchmark:
        "benchmarks/measure_lid.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("measure_lid"),
        runtime=minutes("measure_lid"),
    params:
        settings=canonical(
            {"fasttext": config["lid"]["fasttext"], "data": config["data"]}
        ),
        code=code_digest("measure_lid"),
    script:
        "../workflow_scripts/measure_lid.py"


rule score_lid:
    """Identify the language of every continuation."""
    input:
        generations="results/generations/{arm}/seed{seed}/{variant}.parquet",
        prompts="results/data/prompts.parquet",
    output:
        lid="results/lid/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/score_lid/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/score_lid/{arm}/seed{seed}/{variant}.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("score_lid"),
        runtime=minutes("score_lid"),
    params:
        settings=canonical(
            {"fasttext": config["lid"]["fasttext"], "data": config["data"]}
        ),
        code=code_digest("score_lid"),
    script:
        "../workflow_scripts/score_lid.py"
