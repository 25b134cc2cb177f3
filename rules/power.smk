"""
State the power of every gate before anything has run: `snakemake power --cores 1`.

INPUTS

    the files of config `data.second_register` and `prompts.templates`; no result

OUTPUTS

    results/power/power.{parquet,csv}
    results/power/power.{png,pdf}
"""


rule power:
    """Compute what this experiment could certify."""
    input:
        register=file_of(config["data"]["second_register"]),
        templates=project_path(config["prompts"]["templates"]),
    output:
        table="results/power/power.parquet",
        csv=report(
            "results/power/power.csv",
            caption="../report/power.rst",
            category="Tables",
        ),
        figure=report(
            "results/power/power.png",
            caption="../report/power.rst",
            category="Figures",
        ),
        figure_pdf="results/power/power.pdf",
    log:
        "logs/power.log",
    benchmark:
        "benchmarks/power.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("power"),
        runtime=minutes("power"),
    params:
        settings=canonical(
            {
                "gate": config["gate"],
                "data": config["data"],
                "groups": config["data"]["splits"][config["evaluation"]["split"]],
                "seeds": SEEDS,
                "canaries": config["canaries"],
                "adversarial": config["prompts"]["adversarial"],
                "probe_layers": config["texts"]["probe_layers"],
                "labelled": config["lid"]["labelled"] is not None,
            }
        ),
        code=code_digest("power"),
    script:
        "../workflow_scripts/power.py"
