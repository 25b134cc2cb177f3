"""
Train the sparse autoencoder of one site, or take one that is trained already, and measure it on the tune split.

Writes a SAELens folder (cfg.json, sae_weights.safetensors), one row per ten steps, and its quality per language.
"""

from mmie import cache, files, sae, stage, tables
from mmie.cached_texts import cached_texts, first_texts, rows_of_split, sampled, tokens_of
from mmie.model import choose_device, choose_dtype, load
from mmie.sae_quality import TEXTS, behaviour, probing, reconstruction
from mmie.sae_sources import adopt


def main(
    activations: list[str], index: str, corpus: str, ranking: str, model: str,
    weights: str, cfg: str, training: str, quality: str,
    site: int, settings: dict, runtime: dict, code: str = "",
) -> None:  # fmt: skip
    texts = cached_texts(index, corpus)
    layer = cache.layer_of(tables.read(ranking, tables.LAYERS), site)
    states = cache.reading(activations, index)[layer]
    if settings["source"] == "train":
        train, device = rows_of_split(texts, "train"), choose_device(runtime["device"])
        about = sae.metadata(files.read_json(model)["name"], layer)
        dtype = choose_dtype(runtime["dtype"], device)
        found, described, steps = sae.train(states, train, sae.Settings.of(settings), about, device, dtype)
    else:
        found, described, steps = adopt(settings, layer, states.shape[1])
    tokens = tokens_of(sampled(texts), index, corpus)
    held_out = first_texts(corpus, "tune", TEXTS)
    measured = reconstruction(found, states, tokens[tokens["split"] == "tune"])
    for more in (probing(found, states, tokens), behaviour(*load(model, runtime), found, layer, held_out)):
        measured = measured.merge(more, on="language", validate="1:1")
    tables.write(steps.assign(site=site, layer=layer), training, tables.SAE_TRAINING, code=code)
    tables.write(measured.assign(site=site, layer=layer), quality, tables.SAE_QUALITY, code=code)
    sae.save(found, described, weights, cfg, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
