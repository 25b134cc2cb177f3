"""
Choose among configurations of each arm, on the tune split: `snakemake tune --configfile configs/tune.yaml`.

INPUTS

    results/metrics.parquet, results/gate/tests.parquet

OUTPUTS

    results/tune.parquet
    results/tune.yaml
"""


rule tune:
    """Choose the best configuration of each arm."""
    input:
        metrics="results/metrics.parquet",
        tests="results/gate/tests.parquet",
    output:
        table="results/tune.parquet",
        chosen="results/tune.yaml",
    log:
        "logs/tune.log",
    benchmark:
        "benchmarks/tune.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("tune"),
        runtime=minutes("tune"),
    params:
        settings=canonical(
            {
                "arms": {
                    name: {key: arm[key] for key in ("entry", "method", "params")}
                    for name, arm in ARMS.items()
                },
                "split": config["evaluation"]["split"],
                "extraction": config["gate"]["margins"]["extraction"],
                **config["tune"],
            }
        ),
        code=code_digest("tune"),
    script:
        "../workflow_scripts/tune.py"
