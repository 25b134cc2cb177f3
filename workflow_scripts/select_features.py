"""
Score every latent of a site's autoencoder, and select those of the forget language.

Writes one row per latent: its scores, whether each selector takes it, and why the configured one did or did not; and
the tokens on which the latents that it took are most active.
"""

from mmie import cache, stage, tables
from mmie.cached_texts import first_texts, sampled_tokens
from mmie.features import Languages, measure
from mmie.features import features as table
from mmie.influence import TEXTS, influence
from mmie.latent_tokens import top_tokens
from mmie.model import load
from mmie.sparse_code import encoder_of


def main(
    activations: list[str], index: str, corpus: str, ranking: str, weights: str, cfg: str, model: str,
    features: str, latent_tokens: str, site: int, settings: dict, runtime: dict, code: str = "",
) -> None:  # fmt: skip
    tokens = sampled_tokens(index, corpus)
    layer = cache.layer_of(tables.read(ranking, tables.LAYERS), site)
    states = cache.reading(activations, index)[layer]
    languages = Languages.of(tokens)
    sae = encoder_of(weights, cfg)
    lm, tokenizer = load(model, runtime)
    train, tune = (
        measure(
            sae, states, tokens, languages, split,
            influence(
                lm, tokenizer, sae, layer, first_texts(corpus, split, TEXTS), languages.spoken, settings["seed"]
            ),
        )
        for split in ("train", "tune")
    )  # fmt: skip
    found = table(train, tune, languages, settings["selector"], settings["count"], settings["seed"])
    taken = found.loc[found[f"{settings['selector']}_selected"], "latent"].tolist()
    shown = top_tokens(sae, taken, states, tokens[tokens["split"] == "train"], tokenizer)
    tables.write(shown.assign(site=site, layer=layer), latent_tokens, tables.LATENT_TOKENS, code=code)
    tables.write(found.assign(site=site, layer=layer), features, tables.FEATURES, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
