"""Generation with one replica of the edited model, or with several side by side."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from mmie import stage
from mmie.batches import by_length, encode
from mmie.edits import attached
from mmie.generation import Generation, Sampling, generate
from mmie.model import Runtime, load, tokenizer_of
from mmie.parallel import Replicas, devices_of

log = logging.getLogger("mmie")

Ask = Callable[[Sequence[str]], list[Generation]]


def continuations(
    manifest: str | Path,
    runtime: Runtime,
    card: str | Path,
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    replicas: int = 1,
) -> list[Generation]:
    """
    What the model of ``manifest``, edited as ``card`` says, answers to each prompt, in their order.

    ``settings`` is config `generation`. Several ``replicas`` continue the same batches as one, and so give the same.
    Raises ValueError as `generate`, `mmie.model.load` and `mmie.parallel.Replicas` do.
    """
    start = partial(edited, manifest, runtime, card, settings)
    devices = devices_of(runtime["device"], replicas)
    if replicas == 1:
        with start(devices[0]) as ask:
            return ask(prompts)
    tokenizer = tokenizer_of(manifest, runtime["trust_remote_code"])
    lengths = [len(encode(tokenizer, prompt)) for prompt in prompts]
    # The longest first: whoever comes last then has the least to do.
    batches = by_length(lengths, settings["batch_tokens"], settings["batch_size"])[::-1]
    log.info("%d batches for replicas on %s", len(batches), ", ".join(devices))
    answers: dict[int, Generation] = {}
    with Replicas(devices, start) as running:
        found = running.map([[prompts[i] for i in batch] for batch in batches])
        for number, part in stage.track(found, len(batches), "generate, batches"):
            answers |= dict(zip(batches[number], part, strict=True))
    return [answers[i] for i in range(len(prompts))]


@contextmanager
def edited(
    manifest: str | Path, runtime: Runtime, card: str | Path, settings: Mapping[str, Any], device: str
) -> Iterator[Ask]:
    """Inside the block, one replica on ``device``: prompts to their continuations."""
    model, tokenizer = load(manifest, {**runtime, "device": device})
    sampling = Sampling(settings["temperature"], settings["top_k"], settings["draw_seed"])
    limits = {"batch_size": settings["batch_size"], "batch_tokens": settings["batch_tokens"]}
    with attached(model, card):
        yield lambda prompts: generate(
            model, tokenizer, prompts, settings["max_new_tokens"], sampling=sampling, **limits
        )
