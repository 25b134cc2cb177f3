"""The model inside lm-eval's harness: the project's own multiple-choice tasks, and others by name."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import pandas as pd
import yaml
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from mmie.labels import forget_name, language_name, sentence
from mmie.option_scores import option_scores

Answer = dict[str, Any]
BATCH_TOKENS = 1024
"""Padded tokens per forward pass; 512 takes a tenth longer on a CPU."""
METRICS = ("acc_norm", "acc")
"""What a task may score: log-probability of the options per character, or as it is."""


class Harness(HFLM):
    """
    lm-eval's own class for Hugging Face models, with a faster pass over multiple-choice requests.

    Requests with the same context (the options of a question) are scored together by `option_scores`; the numbers are
    those of the class it replaces, up to rounding, which a test compares.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        with _quiet():
            super().__init__(pretrained=model, tokenizer=tokenizer, backend="causal")
        self.batch_tokens = batch_tokens

    def _loglikelihood_tokens(
        self, requests: Sequence[Any], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation. The second value, whether it is the greedy one, no task here asks."""
        together: dict[tuple[int, ...], list[int]] = {}
        for i, (_, context, _) in enumerate(requests):
            together.setdefault(tuple(context), []).append(i)
        questions = [(context, [requests[i][2] for i in places]) for context, places in together.items()]
        found = option_scores(self.model, self.tokenizer, questions, self.batch_tokens)
        values = {
            i: value
            for places, scores in zip(together.values(), found, strict=True)
            for i, value in zip(places, scores, strict=True)
        }
        return [(values[i], False) for i in range(len(requests))]


def answer_items(
    harness: Harness, items: pd.DataFrame, templates: Mapping[str, Any], data: Mapping[str, Any]
) -> list[Answer]:
    """
    The option that the model takes for each row of ``items``, in their order: ``chosen``, and ``lead``.

    ``lead``: by how much the right option's score exceeds the best other one's, nats (per character for acc_norm);
    negative where the answer is wrong. Raises ValueError when ``templates`` (the file of config
    `comprehension.templates`) lack a task or name an unknown metric.
    """
    tasks: dict[str, ConfigurableTask] = {}
    places: dict[str, list[int]] = {}
    for (kind, language), rows in items.groupby(["task", "language"], sort=False):
        name = f"mmie_{kind}_{language}"
        tasks[name] = _task(name, rows, _template(templates, kind), language, data)
        places[name] = list(rows.index)
    found: dict[int, Answer] = {}
    for name, samples in _samples(harness, tasks).items():
        metric = tasks[name].config.metric_list[0]["metric"]
        for sample in samples:
            found[places[name][sample["doc_id"]]] = _answer(sample, metric)
    return [found[i] for i in items.index]


def named_tasks(harness: Harness, names: Sequence[str]) -> list[Answer]:
    """
    Tasks that lm-eval knows by name, which it fetches from the network: ``item_id``, ``task``, ``options``, ``gold``,
    ``chosen`` and ``lead`` of every question.

    Raises ValueError when a task is unknown or is not multiple choice.
    """
    if not names:
        return []
    found = TaskManager().load(list(names))["tasks"]
    for name, task in found.items():
        if task.OUTPUT_TYPE != "multiple_choice" or "acc" not in task._metric_fn_list:
            raise ValueError(f"config `comprehension.tasks`: {name} is not a multiple-choice task with accuracy.")
    rows = []
    for name, samples in _samples(harness, found).items():
        for sample in samples:
            gold = found[name].doc_to_target(sample["doc"])
            options = len(sample["resps"])
            rows.append(
                {"item_id": f"{name}:{sample['doc_id']}", "task": name, "options": options, "gold": int(gold)}
                | _answer(sample | {"target": gold}, "acc")
            )
    return rows


def read_templates(text: bytes) -> dict[str, Any]:
    """The tasks of the YAML file of config `comprehension.templates`; raises ValueError when it is none."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"config `comprehension.templates`: not a YAML file ({error}).") from None
    if not isinstance(found, dict):
        raise ValueError("config `comprehension.templates`: the file must have one key per task.")
    return found


def _template(templates: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if kind not in templates:
        raise ValueError(f"config `comprehension.templates`: the file lacks the task `{kind}`.")
    template: dict[str, Any] = templates[kind]
    named = [metric.get("metric") for metric in template.get("metric_list", [])]
    if not named or named[0] not in METRICS:
        raise ValueError(f"config `comprehension.templates`, task `{kind}`: its first metric must be one of {METRICS}.")
    return template


def _task(
    name: str, rows: pd.DataFrame, template: dict[str, Any], language: str, data: Mapping[str, Any]
) -> ConfigurableTask:
    about = {
        "name": sentence(language_name(language)),
        "retain": language_name(data["retain"]),
        "forget": forget_name(data),
    }
    documents = Dataset.from_list(
        [{"text": row.text, "options": list(row.options), "gold": row.gold, **about} for row in rows.itertuples()]
    )
    config = {
        "task": name,
        "custom_dataset": lambda: DatasetDict(test=documents),
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_choice": "options",
        "doc_to_target": "gold",
        **template,
    }
    with _quiet():
        return ConfigurableTask(config=config)


def _samples(harness: Any, tasks: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    with _quiet():
        found = evaluate(harness, {"tasks": dict(tasks)}, bootstrap_iters=0, log_samples=True)
    return found["samples"]


def _answer(sample: dict[str, Any], metric: str) -> Answer:
    scores = np.array([response[0][0] for response in sample["resps"]], float)
    if metric == "acc_norm":
        scores = scores / [len(arguments[1].removeprefix(" ")) for arguments in sample["arguments"]]
    gold = int(sample["target"])
    return {"chosen": int(scores.argmax()), "lead": float(scores[gold] - np.delete(scores, gold).max())}


@contextmanager
def _quiet() -> Iterator[None]:
    """
    lm-eval says on every call what this module does on purpose, and draws progress bars; `stage.track` tells progress,
    and errors are exceptions all the same.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm-eval")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
