"""Prompts: the opening words of held-out texts, for the model to continue; and what a chat template makes of them."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import regex

from mmie.labels import ASKING, families

log = logging.getLogger("mmie")

SHORTEST, LEFT = 3, 2
"""Least words of a prompt, and of what it leaves of its text."""
REQUEST = "Continue this text in its own language. Write only the continuation.\n\n{opening}"

Chat = Callable[[str, str], str]
"""Prompt in a model's chat format, from the user's turn and the beginning of the answer (empty: none)."""

# Scripts that put no space between words: their texts are cut between characters.
_SPACELESS = {"Hani", "Hans", "Hant", "Hira", "Kana", "Jpan", "Thai", "Laoo", "Khmr", "Mymr"}


@dataclass(frozen=True)
class PromptTokenizer:
    """What prompts need of a model: how long a text is, its chat template, its context."""

    count: Callable[[str], int]
    """Tokens of a prompt, the beginning-of-text token included."""
    chat: Chat | None
    """None without chat."""
    context: int | None
    """Positions of the model; None where its architecture has no limit."""


def opening_rows(corpus: pd.DataFrame, settings: Mapping[str, Any], chat: Chat | None) -> list[dict[str, str]]:
    """
    Rows of prompts.parquet: one opening per group of the split and language. Controls have no family.

    Raises ValueError when the split is empty or a text is too short to be cut.
    """
    family_of = {language: family for family, language in families(settings["data"]).items() if family not in ASKING}
    texts = corpus[(corpus["split"] == settings["split"]) & corpus["language"].isin(list(family_of))]
    if texts.empty:
        raise ValueError(
            f"config `evaluation.split: {settings['split']}` has no texts. Give it groups in config `data.splits`."
        )
    rows = []
    for row in texts.to_dict("records"):
        opening, family = cut(row["text"], settings["share"], row["script"], row["doc_id"]), family_of[row["language"]]
        rows.append(
            {
                "prompt_id": f"{family}:{row['group_id']}",
                "family": family,
                "attack": "",
                "language": row["language"],
                "script": row["script"],
                "doc_id": row["doc_id"],
                "group_id": row["group_id"],
                "text": chat(REQUEST.format(opening=opening), opening) if chat else opening,
            }
        )
    return rows


def in_order(rows: Sequence[dict[str, str]], data: Mapping[str, Any]) -> list[dict[str, str]]:
    """The prompts by family, in the order of the report, attack and group."""
    order = {family: i for i, family in enumerate(families(data))}
    return sorted(rows, key=lambda row: (order[row["family"]], row["attack"], row["group_id"]))


def cut(text: str, share: float, script: str, doc_id: str) -> str:
    """
    The opening of a text: ``share`` of its words, rounded, at least three and leaving at least two; no space after it.

    Words are what spaces separate; in scripts without spaces every character is one.
    Raises ValueError naming ``doc_id`` for a text of fewer than five words.
    """
    unit = r"\X" if script in _SPACELESS else r"\S+"
    ends = [match.end() for match in regex.finditer(unit, text)]
    if len(ends) < SHORTEST + LEFT:
        raise ValueError(
            f"text {doc_id} ({text[:40]!r}) has {len(ends)} words, and a prompt needs a text of at least "
            f"{SHORTEST + LEFT}. Write a longer one."
        )
    count = min(max(int(share * len(ends) + 0.5), SHORTEST), len(ends) - LEFT)
    return text[: ends[count - 1]].rstrip()


def check_length(rows: Sequence[Mapping[str, str]], tokenizer: PromptTokenizer, max_new_tokens: int) -> None:
    """Raises ValueError naming the first prompt that leaves no room for ``max_new_tokens`` in the model's context."""
    if tokenizer.context is None:
        log.info("the model's config names no context length: prompts are not checked against it")
        return
    for row in rows:
        tokens = tokenizer.count(row["text"])
        if tokens + max_new_tokens > tokenizer.context:
            raise ValueError(
                f"prompt {row['prompt_id']} has {tokens} tokens and is to be continued by {max_new_tokens} (config "
                f"`generation.max_new_tokens`), and the model's context holds {tokenizer.context}. Shorten the text "
                "or lower `prompts.share` or `generation.max_new_tokens`."
            )


def read_tokenizer(manifest: str | Path, chat: bool) -> PromptTokenizer:
    """
    The tokenizer beside a model's manifest; torch is not loaded for it unless ``chat`` asks for the chat template.

    Raises ValueError when a file is missing, or when ``chat`` is asked of a model without a chat template.
    """
    folder = Path(manifest).parent
    context = _context(folder / "config.json")
    if chat or not (folder / "tokenizer.json").exists():
        return _from_transformers(folder, context, chat)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return PromptTokenizer(count=lambda text: len(tokenizer.encode(text).ids), chat=None, context=context)


def _from_transformers(folder: Path, context: int | None, chat: bool) -> PromptTokenizer:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if chat and not tokenizer.chat_template:
        raise ValueError(f"config `prompts.chat: true`: the model in {folder} has no chat template. Set it to false.")

    def in_chat(user: str, begun: str) -> str:
        messages = [{"role": "user", "content": user}]
        if not begun:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        messages.append({"role": "assistant", "content": begun})
        return str(tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True))

    def count(text: str) -> int:
        # A chat template writes the beginning-of-text token itself.
        begun = bool(tokenizer.bos_token) and text.startswith(str(tokenizer.bos_token))
        return len(tokenizer(text, add_special_tokens=not begun)["input_ids"])

    return PromptTokenizer(count=count, chat=in_chat if chat else None, context=context)


def _context(path: Path) -> int | None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing. Delete {path.parent / 'manifest.json'}: Snakemake makes the model again."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}). Delete the folder: Snakemake makes the model again."
        ) from None
    for part in (config, config.get("text_config", {})):
        for key in ("max_position_embeddings", "n_positions"):
            if key in part:
                return int(part[key])
    return None
