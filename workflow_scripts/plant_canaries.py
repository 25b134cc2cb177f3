"""
Fine-tune the member canaries into a copy of the pretrained model.

Writes the model folder that every later stage uses, and one row per optimizer step; without members, links and no row.
"""

from mmie import stage, tables
from mmie.model import load
from mmie.planting import link_pretrained, plant, report_memory, write_planted


def main(
    pretrained: str,
    corpus: str,
    canaries: str,
    manifest: str,
    planting: str,
    settings: dict,
    runtime: dict,
    code: str = "",
) -> None:
    documents = tables.read(canaries, tables.CANARIES)
    members = list(documents.text[documents.member])
    history = []
    if members:
        # Adapters cannot be merged into quantised weights; the stages quantise the planted model when they load it.
        model, tokenizer = load(pretrained, {**runtime, "quantisation": "none"})
        history = plant(model, tokenizer, members, tables.read(corpus, tables.CORPUS), settings)
        report_memory(model, tokenizer, documents)
        write_planted(model, members, pretrained, manifest, settings)
    else:
        link_pretrained(pretrained, manifest)
    tables.write(history, planting, tables.PLANTING, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
