"""
Rank the candidate layers by how they hold the forget language.

Writes one row per layer: probe, CKA and Procrustes scores, rank, and how stable the choice is over resamples.
"""

from mmie import cache, stage, tables
from mmie.cached_texts import cached_texts, parallel_groups, tokens_of
from mmie.layers import Roles, parallel
from mmie.layers import ranking as ranked


def main(layers: list[str], index: str, corpus: str, ranking: str, settings: dict, code: str = "") -> None:
    roles = Roles.of(settings["data"])
    texts = parallel_groups(cached_texts(index, corpus), (*roles.forget, *roles.others))
    tokens = tokens_of(texts, index, corpus)
    states = {layer: parallel(found, tokens, roles) for layer, found in cache.reading(layers, index).items()}
    train = next(iter(states.values()))[1]
    table = ranked(
        {layer: part for layer, (part, _) in states.items()},
        train,
        roles,
        settings["count"],
        settings["resamples"],
        settings["data"]["seed"],
    )
    tables.write(table, ranking, tables.LAYERS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
