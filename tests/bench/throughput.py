"""
Tokens per second of generation and likelihood, alternatives side by side in one run.

    OMP_NUM_THREADS=1 .venv/bin/python tests/bench/throughput.py results/model/manifest.json
    OMP_NUM_THREADS=1 .venv/bin/python tests/bench/throughput.py results/model/manifest.json --only likelihood head

Compares dtypes, our decode loop with `model.generate`, batch sizes, and tiles of the head. Needs the model of a run. With
one thread, a second is one of this process's CPU: what other processes do meanwhile costs memory bandwidth, not time.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from mmie import generation, head, likelihood, membership, model  # noqa: E402

RUNTIME = {
    "device": "cpu", "device_map": "none", "attention": "auto", "quantisation": "none", "trust_remote_code": False
}  # fmt: skip
BATCHES = (32, 64, 128, 256)
"""Prompts of a batch."""
TOKENS = (256, 512, 1024, 2048)
"""Padded tokens of a batch of texts."""
TILES = ((256, 4096), (512, 2048), (512, 4096), (512, 8192), (512, 262144), (1024, 4096))
"""Rows and columns of a tile of the head."""


def report(what: str, work: Callable[[], int]) -> None:
    """Print the tokens per CPU second of ``work``, which returns how many it made."""
    start = time.process_time()
    done = work()
    print(f"{what:32} {done / (time.process_time() - start):8.1f} tokens/s", flush=True)


def prompts_and_texts(count: int) -> tuple[list[str], list[str]]:
    """Openings and whole texts in eight languages, ``count`` each."""
    groups = [json.loads(line) for line in (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    languages = ("hi", "hi_latn", "en", "ur", "pa", "bn", "mr", "hi_mixed")
    texts = [group[language] for group in groups for language in languages][:count]
    return [" ".join(text.split()[: len(text.split()) // 2]) for text in texts], texts


def generating(loaded: Any, tokenizer: Any, prompts: list[str], tokens: int) -> None:
    """Our loop at several batch sizes, and transformers' at the largest."""

    def ours(size: int) -> int:
        return sum(a.n_tokens for a in generation.generate(loaded, tokenizer, prompts, tokens, size))

    def theirs() -> int:
        batch = tokenizer(prompts, return_tensors="pt", padding=True)
        with torch.inference_mode():
            out = loaded.generate(**batch, max_new_tokens=tokens, do_sample=False)
        return int((out[:, batch.input_ids.shape[1] :] != tokenizer.pad_token_id).sum())

    for size in BATCHES:
        report(f"generate, batch {size}", lambda size=size: ours(size))
    report("model.generate, one batch", theirs)


def scoring(loaded: Any, tokenizer: Any, texts: list[str]) -> None:
    """Likelihood and membership scores at several batch sizes."""
    for size in TOKENS:

        def likely(size: int = size) -> int:
            return sum(likelihood.score(loaded, tokenizer, texts, [True] * len(texts), batch_tokens=size).n_tokens)

        report(f"likelihood, {size} tokens", likely)
    report(
        "membership, 512 tokens",
        lambda: sum(int(row["n_tokens"]) for row in membership.attack(loaded, tokenizer, texts)),
    )


def tiling(loaded: Any) -> None:
    """The head's log-probabilities from several tiles; the last alternative but one is the whole vocabulary at once."""
    states = torch.randn(1024, loaded.config.hidden_size).to(loaded.dtype)
    labels = torch.randint(0, loaded.config.vocab_size, (len(states),))
    for rows, columns in TILES:
        head.ROWS, head.COLUMNS = rows, columns
        with torch.inference_mode():
            report(
                f"head, {rows} × {columns}",
                lambda: len(head.log_probabilities(loaded, states, labels)),
            )


def main() -> None:
    """Print one line per alternative."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--only", nargs="+", default=["generate", "likelihood", "head"])
    arguments = parser.parse_args()
    prompts, texts = prompts_and_texts(arguments.prompts)
    print(f"{torch.get_num_threads()} threads, {len(prompts)} prompts × {arguments.tokens} tokens")
    print(f"auto dtype on this CPU: {model.choose_dtype('auto', 'cpu')}")
    for dtype in arguments.dtypes:
        print(dtype)
        loaded, tokenizer = model.load(arguments.manifest, {**RUNTIME, "dtype": dtype})
        if "generate" in arguments.only:
            generating(loaded, tokenizer, prompts, arguments.tokens)
        if "likelihood" in arguments.only:
            scoring(loaded, tokenizer, texts)
        if "head" in arguments.only:
            tiling(loaded)


if __name__ == "__main__":
    main()
