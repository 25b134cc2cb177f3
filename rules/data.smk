"""
Split the parallel corpus by group, derive the controls, write the canaries, and cut the prompts.

INPUTS

    the files of config `data.corpus`, `data.second_register`, `data.texts`, `canaries.grammar` and `prompts.templates`
    results/pretrained/manifest.json (its tokenizer: do all prompts fit the context?)

OUTPUTS

    results/data/corpus.parquet, results/data/checks.parquet
    results/data/canaries.parquet
    results/data/prompts.parquet
"""


rule corpus:
    """Check the corpus, split it by group and derive the controls."""
    input:
        source=CORPUS_FILE,
        register=file_of(config["data"]["second_register"]),
        texts=[path for source in TEXTS.values() for path in source["files"]],
    output:
        corpus="results/data/corpus.parquet",
        checks="results/data/checks.parquet",
    log:
        "logs/corpus.log",
    benchmark:
        "benchmarks/corpus.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("corpus"),
        runtime=minutes("corpus"),
    params:
        settings=canonical(
            {
                "data": {**config["data"], "texts": TEXTS},
                "fasttext": config["lid"]["fasttext"],
            }
        ),
        code=code_digest("corpus"),
    script:
        "../workflow_scripts/corpus.py"


rule canaries:
    """Write the canaries, and check that their surface gives no member away."""
    input:
        grammar=file_of(
            config["canaries"]["grammar"] if config["canaries"]["members"] else None
        ),
    output:
        canaries="results/data/canaries.parquet",
    log:
        "logs/canaries.log",
    benchmark:
        "benchmarks/canaries.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("canaries"),
        runtime=minutes("canaries"),
    params:
        settings=canonical(
            {
                "forget": config["data"]["forget"],
                **{
                    key: config["canaries"][key]
                    for key in ("members", "nonmembers", "seed")
                },
            }
        ),
        code=code_digest("canaries"),
    script:
        "../workflow_scripts/canaries.py"


rule prompts:
    """Cut and fill one prompt per held-out group and family."""
    input:
        templates=file_of(config["prompts"]["templates"]),
        corpus="results/data/corpus.parquet",
        model="results/pretrained/manifest.json",
    output:
        prompts="results/data/prompts.parquet",
    log:
        "logs/prompts.log",
    benchmark:
        "benchmarks/prompts.tsv"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=memory("prompts"),
        runtime=minutes("prompts"),
    params:
        settings=PROMPT_SETTINGS,
        code=code_digest("prompts"),
    script:
        "../workflow_scripts/prompts.py"
