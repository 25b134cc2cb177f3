"""
Score held-out texts and canaries with the edited model.

Writes likelihood per text, the mean hidden state of every text at the probed layers, and membership scores per canary.
"""

from mmie import stage, tables, tensors
from mmie.edits import attached
from mmie.likelihood import choose_texts, kl_divergence, last_states, likelihood_rows, score
from mmie.membership import attack, choose_canaries, gradient_scores, membership_rows
from mmie.model import load


def main(
    model: str, corpus: str, canaries: str, reference: str, card: str, likelihood: str, states: str, membership: str,
    settings: dict, runtime: dict, code: str = "",
) -> None:  # fmt: skip
    texts = choose_texts(tables.read(corpus, tables.CORPUS), settings)
    compared = list(texts.text[texts.compared])
    documents = tables.read(canaries, tables.CANARIES)
    if not settings["canaries"]:
        documents = documents.iloc[:0]
    drawn = choose_canaries(documents, settings["gradnorm_canaries"])
    pretrained = tables.read(reference, tables.REFERENCE).set_index("canary_id")["loss"].to_dict()
    language_model, tokenizer = load(model, runtime)
    with attached(language_model, card):
        found = score(
            language_model,
            tokenizer,
            list(texts.text),
            nll=list(texts.scored),
            layers=settings["probe_layers"],
            batch_tokens=settings["batch_tokens"],
        )
        edited = last_states(language_model, tokenizer, compared)
        attacked = attack(language_model, tokenizer, list(documents.text), settings["batch_tokens"])
        norms = gradient_scores(language_model, tokenizer, list(drawn.text), settings["batch_tokens"])
    kl = kl_divergence(language_model, last_states(language_model, tokenizer, compared), edited)
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    tables.write(likelihood_rows(texts, found, kl, run), likelihood, tables.LIKELIHOOD, code=code)
    gradients = dict(zip(drawn.canary_id, norms, strict=True))
    rows = membership_rows(documents, attacked, gradients, pretrained, run)
    tables.write(rows, membership, tables.MEMBERSHIP, code=code)
    pooled = {f"layer{n}": state for n, state in found.states.items()}
    tensors.save(pooled, states, doc_ids=list(texts.doc_id), **run, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
