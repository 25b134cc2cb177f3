"""Make a language model forget one language, and say with statistics whether it worked."""

from snakemake.utils import min_version

min_version("9.11")


configfile: f"{workflow.basedir}/config.yaml"


include: "rules/common.smk"
# stages, in data-flow order
include: "rules/power.smk"
include: "rules/model.smk"
include: "rules/data.smk"
include: "rules/activations.smk"
include: "rules/sae.smk"
include: "rules/unlearn.smk"
include: "rules/attack.smk"
include: "rules/generate.smk"
include: "rules/lid.smk"
include: "rules/judge.smk"
include: "rules/texts.smk"
include: "rules/transfer.smk"
include: "rules/comprehension.smk"
include: "rules/inside.smk"
include: "rules/metrics.smk"
include: "rules/gate.smk"
include: "rules/tune.smk"
include: "rules/audit.smk"
include: "rules/report.smk"


rule all:
    input:
        "results/gate/decision.json",
        "results/report.html",
