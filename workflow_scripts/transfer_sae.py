"""
Apply the autoencoders of the base model to an edited one.

Writes one row per site × language: what is still reconstructed, at what cost, and how active the selected latents are.
"""

from mmie import stage, tables
from mmie.edits import attached
from mmie.model import load
from mmie.sae_transfer import Site, texts_of, transfer
from mmie.sparse_code import encoder_of


def main(
    model: str, corpus: str, card: str, weights: list[str], cfg: list[str], features: list[str], measured: str,
    settings: dict, runtime: dict, code: str = "",
) -> None:  # fmt: skip
    sites = []
    for paths in zip(weights, cfg, features, strict=True):
        table = tables.read(paths[2], tables.FEATURES)
        taken = table.loc[table[f"{settings['selector']}_selected"], "latent"]
        sites.append(Site(int(table["site"][0]), int(table["layer"][0]), encoder_of(*paths[:2]), taken.tolist()))
    texts = texts_of(tables.read(corpus, tables.CORPUS), settings["split"])
    language_model, tokenizer = load(model, runtime)
    with attached(language_model, card):
        found = transfer(language_model, tokenizer, sites, texts)
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    tables.write(found.assign(**run), measured, tables.SAE_TRANSFER, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
