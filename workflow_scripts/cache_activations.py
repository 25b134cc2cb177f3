"""
Cache what the candidate layers put into the residual stream, for the texts of the train and tune splits.

Writes one tensor per layer, [token, d_model], the index of its rows (text, position, token), and what storing it costs.
A job that was killed goes on from its last whole chunk, in the folder `work`.
"""

from mmie import stage, tables, tensors
from mmie.caching import Work, make
from mmie.model import choose_device, choose_dtype
from mmie.parallel_activations import running
from mmie.provenance import digest_of


def main(
    model: str, corpus: str, layers: list[str], index: str, storage: str,
    work: str, settings: dict, runtime: dict, replicas: int = 1, code: str = "",
) -> None:  # fmt: skip
    device = choose_device(runtime["device"])
    belongs = {
        "model": tensors.sha256(model),
        "corpus": tensors.sha256(corpus),
        "settings": settings,
        "runtime": {**runtime, "device": device, "dtype": str(choose_dtype(runtime["dtype"], device))},
        "code": code or digest_of(("cache_activations",)),
    }
    folder = Work(work, belongs)
    paths = dict(zip(settings["candidates"], layers, strict=True))
    with running(model, runtime, sorted(paths), replicas) as (network, tokenizer, passes):
        how = (settings["batch_tokens"], settings["storage"], code, passes)
        cost = make(network, tokenizer, corpus, paths, index, folder, *how)
    tables.write(cost, storage, tables.STORAGE, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
