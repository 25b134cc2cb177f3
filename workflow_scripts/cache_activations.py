"""
Cache what the candidate layers put into the residual stream, for the texts of the train and tune splits.

Writes one tensor per layer, [token, d_model] in bf16, and the index of its rows: text, position, token.
"""

from mmie import stage, tables
from mmie.activations import fill, index_of, tokenised, trainable
from mmie.cache import writing
from mmie.model import load


def main(model: str, corpus: str, layers: list[str], index: str, settings: dict, runtime: dict, code: str = "") -> None:
    network, tokenizer = load(model, runtime)
    texts = trainable(tables.read(corpus, tables.CORPUS))
    ids = tokenised(network, tokenizer, texts)
    rows = index_of(texts, ids)
    paths = dict(zip(settings["candidates"], layers, strict=True))
    with writing(paths, (len(rows), network.config.hidden_size)) as into:
        fill(network, tokenizer.pad_token_id, ids, into, settings["batch_tokens"])
    tables.write(rows, index, tables.TOKENS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
