"""
One stage of the cache in a process of its own, on a corpus of any size: for tests that measure or kill it.

    python growing.py cache FOLDER MANIFEST SETTINGS [sleep]
    python growing.py sae FOLDER SETTINGS

prints, as JSON, the peak of its memory that is no file's (RssAnon, sampled) and of all of it (VmHWM), in MB.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "workflow_scripts"), str(Path(__file__).parent)]

import pandas as pd  # noqa: E402
import torch  # noqa: E402

from mmie import tables  # noqa: E402
from tiny import RUNTIME  # noqa: E402

LAYERS = [0, 1]
LANGUAGES = {"hi": "forget", "hi_latn": "forget", "en": "retain", "ur": "neighbour", "bn": "neighbour"}


def write_corpus(path: Path, groups: int, words: int) -> None:
    """One tune group for nine train groups; texts of ``words`` different words."""
    draw = torch.Generator().manual_seed(0)
    with tables.writing(path, tables.CORPUS) as append:
        for first in range(0, groups, 1000):
            rows = []
            for g in range(first, min(groups, first + 1000)):
                for language, role in LANGUAGES.items():
                    numbers = torch.randint(0, 10**6, (words,), generator=draw).tolist()
                    split = "tune" if g % 10 == 9 else "train"
                    text = " ".join(f"{language}{n}" for n in numbers)
                    rows.append((f"g{g}:{language}", f"g{g}", language, "Zyyy", split, role, "", "", text))
            append(pd.DataFrame(rows, columns=tables.CORPUS.names))


class Memory(threading.Thread):
    """Peak of RssAnon, in MB, while it runs: the kernel keeps a peak of the whole alone."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, status("RssAnon"))
            time.sleep(0.01)


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":")) // 1024


def cache(folder: Path, manifest: str, settings: dict, sleep: float = 0) -> None:
    import cache_activations
    from mmie import activations, caching

    activations.CHUNK_TEXTS = settings.pop("chunk_texts")
    if sleep:
        logged = caching.log.info

        def slowly(message, *arguments):
            logged(message, *arguments)
            time.sleep(sleep if message.startswith("chunk") else 0)

        caching.log.info = slowly
    layers = [str(folder / f"layer{n}.safetensors") for n in LAYERS]
    cache_activations.main(
        manifest, str(folder / "corpus.parquet"), layers, str(folder / "index.parquet"),
        str(folder / "storage.parquet"), str(folder / ".work/cache"), {**settings, "candidates": LAYERS}, RUNTIME,
    )  # fmt: skip


def sae(folder: Path, settings: dict) -> None:
    from mmie import cache as reader
    from mmie import cached_texts, features, sae
    from mmie.sae_quality import probing, reconstruction

    cached_texts.TOKENS = settings.pop("sample_tokens")
    index, corpus = folder / "index.parquet", folder / "corpus.parquet"
    texts = cached_texts.cached_texts(index, corpus)
    states = reader.reading([str(folder / f"layer{n}.safetensors") for n in LAYERS], index)[LAYERS[1]]
    rows = cached_texts.rows_of_split(texts, "train")
    # As many epochs whatever the size: every row is read.
    settings["steps"] = max(30, 2 * len(rows) // settings["batch_size"])
    code, _, _ = sae.train(states, rows, sae.Settings(**settings), sae.metadata("tiny", LAYERS[1]))
    tokens = cached_texts.tokens_of(cached_texts.sampled(texts), index, corpus)
    probing(code, states, tokens)
    reconstruction(code, states, tokens[tokens["split"] == "tune"])
    languages = features.Languages.of(tokens)
    features.measure(code, states, tokens, languages, "train", torch.zeros(5, code.b_enc.numel()).numpy())


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    memory = Memory()
    memory.start()
    stage, folder, *rest = sys.argv[1:]
    if stage == "cache":
        cache(Path(folder), rest[0], json.loads(rest[1]), float(rest[2]) if len(rest) > 2 else 0)
    else:
        sae(Path(folder), json.loads(rest[0]))
    print(json.dumps({"anonymous": memory.peak, "all": status("VmHWM")}))


if __name__ == "__main__":
    main()
