"""
Train one unlearning arm with one seed.

Writes the card with the edits' files beside it, one row per optimizer step, and how the gates do on held-out text.
"""

from mmie import stage, tables
from mmie.arms import load_arm, make_params
from mmie.edits import save_card
from mmie.gate_roc import gate_rows
from mmie.model import load
from mmie.unlearn import history_rows, sources


def main(
    model: str,
    corpus: str,
    canaries: str,
    activations: list[str],
    index: list[str],
    sae: list[str],
    features: list[str],
    card: str,
    training: str,
    gates: str,
    arm: str,
    seed: int,
    settings: dict,
    runtime: dict,
    code: str = "",
) -> None:
    given = sources(corpus, canaries, activations, index, sae, features, settings)
    params = make_params(settings["method"], settings["params"], f"arms.{arm}")
    lm, tokenizer = load(model, runtime)
    trained = load_arm(settings["method"]).train(lm, tokenizer, params, seed, given)
    tables.write(history_rows(trained.history, arm, seed), training, tables.TRAINING)
    tables.write(list(gate_rows(trained.edits, given, arm, seed)), gates, tables.GATES)
    save_card(card, trained.edits, arm, seed)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
