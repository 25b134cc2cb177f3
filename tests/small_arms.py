"""What arms are trained on in tests: a corpus in seven languages, and all that an arm may need, from the tiny model."""

import pandas as pd
import torch

import tiny
from mmie import tables, tensors
from mmie.arms import load_arm, make_params
from mmie.brahmic import respell
from mmie.unlearn import Sources, Statistics

DATA = {
    "forget": {"native": "hi", "roman": "hi_latn"},
    "mixed": "hi_mixed",
    "retain": "en",
    "neighbours": ["ur", "bn"],
    "unseen": ["mr"],
    "scripts": {
        "en": "Latn",
        "hi": "Deva",
        "hi_latn": "Latn",
        "ur": "Arab",
        "bn": "Beng",
        "mr": "Deva",
        "hi_mixed": "Zyyy",
    },
}
ROLES = {"hi": "forget", "hi_latn": "forget", "en": "retain", "ur": "neighbour", "bn": "neighbour", "mr": "unseen"} | {
    "hi_shuffled": "control",
    "en_deva": "control",
    "bn_deva": "control",
}
SENTENCES = dict(zip(["en", "hi", "hi_latn", "ur", "pa", "bn", "mr"], tiny.SAMPLE, strict=True))
SENTENCES["en_deva"] = "द रेन स्टॉप्ट बिफ़ोर नून, ऐंड द चिल्ड्रन वेंट आउट टु प्ले इन द वेट गार्डन."
SENTENCES["bn_deva"] = respell(SENTENCES["bn"], "Beng")
SENTENCES["hi_shuffled"] = "रबशाि पदोरह ेस पेहल करु ईग रऔ बेच्च गीभे गेबीच मंे खलने िनलक ड़पे।"
SMALL = {
    "steps": 6,
    "forget_texts": 2,
    "retain_texts": 3,
    "max_tokens": 24,
    "label_tokens": 5,
    "warmup": 1,
    "retain_weight": 1.0,
}


def make_corpus(groups=6):
    rows = []
    for g in range(groups):
        for language, role in ROLES.items():
            words = SENTENCES[language].split()
            text = " ".join(words[g:] + words[:g])
            split = "train" if g < groups - 2 else ("tune" if g < groups - 1 else "test")
            rows.append(
                {"doc_id": f"g{g}:{language}", "group_id": f"g{g}", "language": language, "script": "Zyyy"}
                | {"split": split, "role": role, "text": text}
            )
    return pd.DataFrame(rows)


def make_given(loaded, folder):
    """Everything an arm may need, made from the tiny model: activations of layers 1 and 2, an autoencoder, its features."""
    model, tokenizer = loaded
    corpus = make_corpus()
    cached = corpus[(corpus["split"] != "test") & (corpus["role"] != "unseen")]
    states, rows = {1: [], 2: []}, []
    for text in cached.itertuples():
        ids = tokenizer(text.text)["input_ids"]
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        for layer in states:
            states[layer].append(hidden[layer + 1][0, 1:])
        rows += [{"doc_id": text.doc_id, "position": p, "token": t} for p, t in enumerate(ids) if p]
    tables.write(pd.DataFrame(rows).assign(row=range(len(rows))), folder / "index.parquet", tables.TOKENS)
    for layer, parts in states.items():
        tensors.save({f"layer{layer}": torch.cat(parts).bfloat16()}, folder / f"layer{layer}.safetensors")
    write_autoencoder(folder, torch.cat(states[2]))
    return Sources(
        corpus=corpus,
        data=DATA,
        activations={n: folder / f"layer{n}.safetensors" for n in states},
        index=folder / "index.parquet",
        saes=[folder / "sae_weights.safetensors"],
        features=[folder / "features.parquet"],
    )


def write_autoencoder(folder, states, d_sae=32):
    generator = torch.Generator().manual_seed(0)
    decoder = torch.nn.functional.normalize(torch.randn(d_sae, states.shape[1], generator=generator), dim=-1)
    parts = {"W_enc": decoder.T, "b_enc": torch.zeros(d_sae), "W_dec": decoder, "b_dec": states.mean(0)}
    tensors.save(parts | {"threshold": torch.full((d_sae,), 0.1)}, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(
        '{"architecture": "jumprelu", "normalize_activations": "none", "reshape_activations": "none", "apply_b_dec_to_input": true}'
    )
    neutral = {"int64": 0, "double": 0.0, "bool": False, "string": ""}
    features = pd.DataFrame({field.name: [neutral[str(field.type)]] * d_sae for field in tables.FEATURES})
    features = features.assign(site=1, layer=2, latent=range(d_sae), alive=[i % 8 != 7 for i in range(d_sae)])
    for name in ("semantic", "per_script", "fisher"):
        features[f"{name}_selected"] = features["latent"].isin([0, 1, 2, 3])
        features[name] = (3.0 - features["latent"]).clip(lower=0)
    tables.write(features, folder / "features.parquet", tables.FEATURES)


def train(loaded, given, method, seed=0, **settings):
    model, tokenizer = loaded
    if method in ("grun", "grun_sae"):
        settings = {"gate_steps": 20, "gate_batch": 64, **settings}
    return load_arm(method).train(model, tokenizer, make_params(method, settings), seed, given)


def hooks(model):
    """Number of hooks (transformers has some of its own)."""
    return sum(len(m._forward_hooks) for m in model.modules())


def logits(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens).logits


def seen(d_model=16):
    generator = torch.Generator().manual_seed(2)
    return Statistics(torch.randn(d_model, generator=generator), torch.rand(d_model, generator=generator) + 0.5, 50.0)
