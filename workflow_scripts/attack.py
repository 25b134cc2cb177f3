"""
Attack one edited model.

Writes a card with its edits, whose files stay where they are, and the attack's own.
"""

from functools import cache, partial

from mmie import stage, tables
from mmie.attacking import Target
from mmie.attacks import load_attack, make_params
from mmie.edits import extend_card, read_card
from mmie.model import load


def main(
    model: str,
    corpus: str,
    plain: str,
    card: str,
    seed: int,
    variant: str,
    settings: dict,
    runtime: dict,
    code: str = "",
) -> None:
    target = Target(
        edits=read_card(plain),
        corpus=tables.read(corpus, tables.CORPUS),
        data=settings["data"],
        candidates=tuple(settings["candidates"]),
        fasttext=settings["fasttext"],
        load=cache(partial(load, model, runtime)),
    )
    params = make_params(settings["attack"], settings["params"], f"attacks.{variant}")
    extend_card(card, plain, load_attack(settings["attack"]).attack(target, params, seed), variant)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
