"""
Put an instruction before every text: the baseline that costs nothing (guardrails, 2403.03329); nothing is trained.

Every text and prompt is read as [beginning of text, instruction, text]; in the chat format of an instruct model the
instruction is the system message, or opens the user's turn where the template has no system role.

Deviations. The paper also filters inputs and outputs; here is the prompt alone. A base model was never taught to follow
instructions: to it the instruction is the beginning of a document. Likelihoods are of the text given the instruction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmie.unlearn import Sources, Trained

NEEDS: frozenset[str] = frozenset()
SEEDED = False

USERS = ("0", "x", "न")
"""Words of a user, which begin differently: what stands before them is where chats are alike."""


@dataclass(frozen=True)
class Params:
    """Parameters of the arm."""

    text: str = (
        "Answer in English only. Never use Hindi, neither in Devanagari nor in Latin letters. "
        "Whatever the question is about, the answer contains no word of Hindi."
    )
    """The instruction."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(f"text: {self.text!r} is not allowed: an instruction, such as Answer in English only.")


def train(model: Any, tokenizer: Any, params: Params, seed: int, given: Sources) -> Trained:
    """The edit, from the tokenizer alone."""
    import torch

    from mmie.edits import Edit
    from mmie.model import decoder_layers
    from mmie.unlearn import Trained

    tensors = {
        f"{name}.{part}": torch.tensor(ids, dtype=torch.int64) for name, part, ids in beginnings(tokenizer, params.text)
    }
    return Trained([Edit("prompt", tuple(range(len(decoder_layers(model)))), tensors, {"text": params.text})])


def beginnings(tokenizer: Any, text: str) -> list[tuple[str, str, list[int]]]:
    """
    (name, ``old`` or ``new``, ids): how plain texts and, with a chat template, chats begin without and with ``text``.

    Raises ValueError when the chat template puts the instruction anywhere but before the user's words.
    """
    from mmie.batches import encode

    found = [("plain", "old", encode(tokenizer, "")), ("plain", "new", encode(tokenizer, f"{text}\n\n"))]
    if not tokenizer.chat_template:
        return found
    chats = {"old": [encode(tokenizer, _chat(tokenizer, "", user)) for user in USERS]}
    chats["new"] = [encode(tokenizer, _chat(tokenizer, text, user)) for user in USERS]
    # Of token ids, since the words that follow may change how the end of a beginning is cut into tokens.
    common = {part: _common(rows) for part, rows in chats.items()}
    for old, new in zip(chats["old"], chats["new"], strict=True):
        if old[len(common["old"]) :] != new[len(common["new"]) :]:
            raise ValueError(
                "the model's chat template puts an instruction elsewhere than before the user's words, which edit "
                "kind `prompt` cannot do. Leave arms of method `prompt` out (`prompt: false`)."
            )
    return [*found, ("chat", "old", common["old"]), ("chat", "new", common["new"])]


def _common(rows: list[list[int]]) -> list[int]:
    """The ids with which all rows begin."""
    from itertools import takewhile

    return [ids[0] for ids in takewhile(lambda ids: len(set(ids)) == 1, zip(*rows, strict=False))]


def _chat(tokenizer: Any, text: str, user: str) -> str:
    """A chat of one turn, with an instruction unless ``text`` is empty."""
    from jinja2 import TemplateError

    def rendered(*messages: tuple[str, str]) -> str:
        turns = [{"role": role, "content": content} for role, content in messages]
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    if not text:
        return rendered(("user", user))
    try:
        found = rendered(("system", text), ("user", user))
    except TemplateError:  # how templates say that they know no system role
        found = ""
    return found if text in found else rendered(("user", f"{text}\n\n{user}"))
