"""
Decide for every arm: PROCEED, STOP or CANNOT CERTIFY.

INPUTS

    results/metrics.parquet, results/lid_quality.parquet

OUTPUTS

    results/gate/tests.parquet
    results/gate/decision.json
"""


rule gate:
    """Test every gate and decide."""
    input:
        metrics="results/metrics.parquet",
        lid_quality="results/lid_quality.parquet",
    output:
        tests="results/gate/tests.parquet",
        decision="results/gate/decision.json",
    log:
        "logs/gate.log",
    benchmark:
        "benchmarks/gate.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("gate"),
        runtime=minutes("gate"),
    params:
        settings=canonical(
            {
                "gate": config["gate"],
                "data": config["data"],
                "tried": configurations(ARMS, config["tune"]["tried"]),
            }
        ),
        code=code_digest("gate"),
    script:
        "../workflow_scripts/gate.py"
