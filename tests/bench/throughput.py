"""
Tokens per second of generation and likelihood, alternatives side by side in one run.

    OMP_NUM_THREADS=1 .venv/bin/python tests/bench/throughput.py results/model/manifest.json
    .venv/bin/python tests/bench/throughput.py results/model/manifest.json --prompts 64 --tokens 20

Compares dtypes, our decode loop with `model.generate`, and batch sizes. Needs the model of a run.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from mmie import generation, likelihood, model  # noqa: E402

RUNTIME = {"device": "cpu", "attention": "auto", "quantisation": "none", "trust_remote_code": False}


def rate(work: Callable[[], int]) -> float:
    """Tokens per second of ``work``, which returns how many it made."""
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def main() -> None:
    """Print one line per alternative."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=12)
    arguments = parser.parse_args()
    groups = [json.loads(line) for line in (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = [group[language] for group in groups for language in ("hi", "hi_latn", "en", "ur")][: arguments.prompts]
    prompts = [" ".join(text.split()[:8]) for text in texts]
    print(f"{torch.get_num_threads()} threads, {len(prompts)} prompts × {arguments.tokens} tokens")
    print(f"auto dtype on this CPU: {model.choose_dtype('auto', 'cpu')}")
    for dtype in ("bfloat16", "float32"):
        loaded, tokenizer = model.load(arguments.manifest, {**RUNTIME, "dtype": dtype})

        def ours(size: int, loaded=loaded, tokenizer=tokenizer) -> int:
            answers = generation.generate(loaded, tokenizer, prompts, arguments.tokens, size)
            return sum(answer.n_tokens for answer in answers)

        def theirs(loaded=loaded, tokenizer=tokenizer) -> int:
            batch = tokenizer(prompts, return_tensors="pt", padding=True)
            with torch.inference_mode():
                out = loaded.generate(**batch, max_new_tokens=arguments.tokens, do_sample=False)
            return int((out[:, batch.input_ids.shape[1] :] != tokenizer.pad_token_id).sum())

        def scored(loaded=loaded, tokenizer=tokenizer) -> int:
            return sum(likelihood.score(loaded, tokenizer, texts, [True] * len(texts)).n_tokens)

        for size in (16, len(prompts)):
            print(f"{dtype:9} generate, batch {size:3}: {rate(lambda size=size: ours(size)):7.1f} tokens/s", flush=True)
        print(f"{dtype:9} model.generate:      {rate(theirs):7.1f} tokens/s", flush=True)
        print(f"{dtype:9} likelihood:          {rate(scored):7.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
