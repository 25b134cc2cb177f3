"""Sixty jobs that nothing orders."""


rule all:
    input:
        expand("results/{i}.txt", i=range(60)),


rule one:
    output:
        "results/{i}.txt",
    shell:
        "echo {wildcards.i} > {output}"
