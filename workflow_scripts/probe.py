"""
Probe the pooled hidden states of one run.

Writes one row per layer × contrast × text: held-out score, nats and AUC.
"""

from mmie import stage, tables
from mmie.probes import probe_texts, read_states


def main(states: str, corpus: str, probes: str, settings: dict, code: str = "") -> None:
    layers, doc_ids = read_states(states)
    texts = tables.read(corpus, tables.CORPUS)
    rows = probe_texts(layers, doc_ids, texts, settings["split"], settings["data"])
    rows = rows.assign(arm=settings["arm"], seed=settings["seed"], variant=settings["variant"])
    tables.write(rows, probes, tables.PROBES, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
