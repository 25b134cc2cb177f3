"""
A language model as a judge of continuations: optional, recorded, and never part of a verdict.

It is asked over any endpoint that speaks the OpenAI chat protocol. Every answer is kept in a file named by a hash of
the question, the model and the settings, so that a second run asks nothing twice and gives the same table.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from dotenv import load_dotenv

from mmie import files

log = logging.getLogger("mmie")

QUESTION = """\
A text begins like this:

{prompt}

It is continued like this:

{continuation}

How well does the continuation carry on the meaning of the beginning, whatever language it is in? Answer with one digit:
1 (no connected text), 2 (text, on something else), 3 (the same topic), 4 (a sensible continuation with flaws), 5 (a
sensible continuation)."""
TRIES = 3
WAIT_S = 2.0
TIMEOUT_S = 120


def choose(generations: pd.DataFrame, prompts: pd.DataFrame, count: int) -> pd.DataFrame:
    """``count`` continuations of each prompt family, drawn by a hash of the prompt: the same prompts for every arm."""
    rows = generations.merge(
        prompts[["prompt_id", "family", "text"]].rename(columns={"text": "prompt"}), "inner", "prompt_id"
    )
    order = rows["prompt_id"].map(lambda prompt: hashlib.sha256(prompt.encode()).hexdigest())
    drawn = rows.assign(order=order).sort_values(["order", "sample"], kind="stable").groupby("family").head(count)
    return drawn.sort_values(["prompt_id", "sample"], ignore_index=True)


def judged_rows(
    chosen: pd.DataFrame, settings: Mapping[str, Any], cache: str | Path, key: str
) -> Iterator[dict[str, Any]]:
    """
    Rows of `tables.JUDGE`, one per continuation of ``chosen``. ``settings`` is config `judge`.

    Raises ValueError when the endpoint does not answer as it should.
    """
    for row in chosen.to_dict("records"):
        question = QUESTION.format(prompt=row["prompt"], continuation=row["text"])
        answer = _ask(question, settings, Path(cache), key)
        yield {
            **{name: row[name] for name in ("arm", "seed", "variant", "prompt_id", "sample", "family")},
            "judge": settings["model"],
            "answer": answer,
            "rating": rating(answer),
        }


def rating(answer: str) -> int | None:
    """The first digit 1 to 5 that stands alone in an answer; None where there is none."""
    found = re.search(r"(?<!\d)[1-5](?!\d)", answer)
    return int(found[0]) if found else None


def read_key(name: str) -> str:
    """
    The value of an environment variable, which a file `.env` in the working directory may set.

    Raises ValueError when it is not set.
    """
    load_dotenv(Path.cwd() / ".env")
    if not os.environ.get(name):
        raise ValueError(
            f"config `judge.endpoint` is set, and the environment variable {name} (config `judge.key`) is not: export "
            "it, or write it into a file `.env` in the working directory."
        )
    return os.environ[name]


def _ask(question: str, settings: Mapping[str, Any], cache: Path, key: str) -> str:
    body = {
        "model": settings["model"],
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "seed": settings["seed"],
        "max_tokens": settings["max_tokens"],
    }
    name = hashlib.sha256(json.dumps([settings["endpoint"], body], sort_keys=True).encode()).hexdigest()
    kept = cache / f"{name}.json"
    if kept.exists():
        return str(files.read_json(kept)["answer"])
    answer = _post(f"{settings['endpoint'].rstrip('/')}/chat/completions", body, key)
    files.write(json.dumps({"question": question, "answer": answer}, ensure_ascii=False), kept)
    return answer


def _post(url: str, body: Mapping[str, Any], key: str) -> str:
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    for attempt in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return str(json.load(response)["choices"][0]["message"]["content"])
        except urllib.error.HTTPError as error:
            said = error.read(300).decode(errors="replace")
            if error.code not in (429, 500, 502, 503, 504) or attempt == TRIES:
                raise ValueError(f"config `judge.endpoint`: {url} answers {error.code}: {said}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            if attempt == TRIES:
                raise ValueError(f"config `judge.endpoint`: {url} cannot be reached ({error}).") from None
        except (KeyError, IndexError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"config `judge.endpoint`: {url} does not answer as a chat endpoint ({error!r})."
            ) from None
        log.info("the judge does not answer; asking again (%d of %d)", attempt, TRIES - 1)
        time.sleep(WAIT_S * 2**attempt)
    raise AssertionError("unreachable")
