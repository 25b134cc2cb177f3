"""
Score the canaries with the pretrained model, in which none is planted.

Writes one row per canary: what the membership tests compare an edited model with.
"""

from mmie import stage, tables
from mmie.membership import attack, choose_canaries, gradient_scores, scored_rows
from mmie.model import load


def main(model: str, canaries: str, reference: str, settings: dict, runtime: dict, code: str = "") -> None:
    documents = tables.read(canaries, tables.CANARIES)
    rows = []
    if len(documents):
        drawn = choose_canaries(documents, settings["gradnorm_canaries"])
        language_model, tokenizer = load(model, runtime)
        found = attack(language_model, tokenizer, list(documents.text), settings["batch_tokens"])
        norms = gradient_scores(language_model, tokenizer, list(drawn.text), settings["batch_tokens"])
        rows = scored_rows(documents, found, dict(zip(drawn.canary_id, norms, strict=True)))
    tables.write(rows, reference, tables.REFERENCE, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
