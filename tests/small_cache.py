"""A small corpus in the project's languages and its activation cache from the tiny model, for tests that need either."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mmie import tables
from tiny import RUNTIME

DATA = {
    "seed": 0,
    "forget": {"native": "hi", "roman": "hi_latn"},
    "retain": "en",
    "neighbours": ["ur", "pa", "bn"],
}
ROLES = {
    "en": "retain",
    "hi": "forget",
    "hi_latn": "forget",
    "ur": "neighbour",
    "pa": "neighbour",
    "bn": "neighbour",
    "mr": "unseen",
    "hi_mixed": "mixed",
    "hi_shuffled": "control",
    "en_deva": "control",
    "pa_deva": "control",
    "bn_deva": "control",
    "latin_shuffled": "control",
}
WORDS = {
    "en": "rain market garden letter",
    "hi": "बारिश बाज़ार बगीचा चिट्ठी",
    "hi_latn": "baarish bazaar bageecha chitthi",
    "ur": "بارش بازار باغ خط",
    "pa": "ਮੀਂਹ ਬਾਜ਼ਾਰ ਬਾਗ਼ ਚਿੱਠੀ",
    "bn": "বৃষ্টি বাজার বাগান চিঠি",
    "mr": "पाऊस बाजार बाग पत्र",
    "hi_mixed": "rain बाज़ार garden चिट्ठी",
    "hi_shuffled": "रिशबा जारबा चागीब ठीचि",
    "en_deva": "रेन मार्केट गार्डन लेटर",
    "pa_deva": "मींह बाज़ार बाग़ चिट्ठी",
    "bn_deva": "बृष्टि बाजार बागान चिठि",
    "latin_shuffled": "hsiraab raazab ahceegab ihttihc",
}
LAYERS = [1, 3]


def small_corpus(groups: int = 6) -> pd.DataFrame:
    """Texts of different lengths; the first half of the groups is train, then tune, the last group is test."""
    rows = []
    for n in range(groups):
        split = "test" if n == groups - 1 else "train" if n < groups // 2 else "tune"
        for language, role in ROLES.items():
            words = WORDS[language].split()
            text = " ".join(words[(n + i) % 4] for i in range(3 + n))
            rows.append((f"g{n}:{language}", f"g{n}", language, "Zyyy", split, role, "", "", text))
    return pd.DataFrame(rows, columns=tables.CORPUS.names)


def write_cache(folder: Path, model: Path, batch_tokens: int = 64, storage: str = "bf16") -> dict[str, object]:
    """Run the stage; its inputs and outputs by name."""
    from cache_activations import main

    corpus, index = folder / "corpus.parquet", folder / "index.parquet"
    tables.write(small_corpus(), corpus, tables.CORPUS)
    layers = [str(folder / f"layer{n}.safetensors") for n in LAYERS]
    settings = {"candidates": LAYERS, "batch_tokens": batch_tokens, "storage": storage}
    main(
        str(model), str(corpus), layers, str(index), str(folder / "storage.parquet"),
        str(folder / ".work"), settings, RUNTIME,
    )  # fmt: skip
    return {"model": str(model), "corpus": str(corpus), "layers": layers, "index": str(index)}
