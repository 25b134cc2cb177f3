"""Sixty jobs that nothing orders."""


rule all:
    input:
        expand("results/{i}.txt", i=range(60)),


rule one:
    output:
        "results/{i}.txt",
    threads: 2  # a whole node
    shell:
        "echo {wildcards.i} > {output}"
