"""
Ask the edited models whether they still understand the language that they no longer write.

INPUTS

    results/data/corpus.parquet, and the files of config `comprehension.knowledge` and `comprehension.templates`
    results/model/manifest.json
    results/adapters/{arm}/seed{seed}/{variant}/arm.json

OUTPUTS

    results/data/comprehension.parquet
    results/comprehension/{arm}/seed{seed}/{variant}.parquet
"""


rule comprehension_items:
    """Write the questions, the same for every arm."""
    input:
        corpus="results/data/corpus.parquet",
        knowledge=project_path(config["comprehension"]["knowledge"]),
    output:
        questions="results/data/comprehension.parquet",
    log:
        "logs/comprehension_items.log",
    benchmark:
        "benchmarks/comprehension_items.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("comprehension_items"),
        runtime=minutes("comprehension_items"),
    params:
        settings=canonical(
            {
                "items": config["comprehension"]["items"],
                "split": config["evaluation"]["split"],
                "data": config["data"],
            }
        ),
        code=code_digest("comprehension_items"),
    script:
        "../workflow_scripts/comprehension_items.py"


rule score_comprehension:
    """Let one edited model choose its answers inside lm-eval."""
    input:
        model="results/model/manifest.json",
        questions="results/data/comprehension.parquet",
        templates=project_path(config["comprehension"]["templates"]),
        card="results/adapters/{arm}/seed{seed}/{variant}/arm.json",
    output:
        scores="results/comprehension/{arm}/seed{seed}/{variant}.parquet",
    log:
        "logs/score_comprehension/{arm}/seed{seed}/{variant}.log",
    benchmark:
        "benchmarks/score_comprehension/{arm}/seed{seed}/{variant}.tsv"
    conda:
        MODEL_ENV
    threads: 1
    resources:
        gpu=GPU,
        mem_mb=memory("score_comprehension"),
        runtime=minutes("score_comprehension"),
    params:
        settings=comprehension_settings,
        runtime=RUNTIME,
        code=code_digest("score_comprehension"),
    script:
        "../workflow_scripts/score_comprehension.py"
