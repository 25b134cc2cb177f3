"""
Templates of prompts that ask: fields in braces are filled from a held-out group and from groups of the train split.

``{hi}`` is the group's text in column hi, ``{hi:opening}`` its opening, ``{hi:start}`` its first three words,
``{hi:respelled}`` its opening with another spelling, ``{topic}`` its topic; ``{shot1.hi}`` the same of the first of
some train groups.
"""

from __future__ import annotations

import string
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SHOTS = 4
FORMS = ("opening", "start", "respelled")
WAYS = ("base", "chat", "begun")


@dataclass(frozen=True)
class Template:
    """One way to ask: for a base model, and as the user's turn (and the begun answer) for a chat model."""

    name: str
    """Where it stands in the file, for messages."""
    language: str
    """Column of the forget language in which it hopes for an answer."""
    base: str
    chat: str
    begun: str
    """How the chat model's answer begins; empty to let it begin."""


@dataclass(frozen=True)
class Templates:
    """The templates of a file."""

    request: tuple[Template, ...]
    adversarial: dict[str, tuple[Template, ...]]
    """Templates by attack; an attack with several uses them in turn."""


def read_templates(path: str | Path, data: Mapping[str, Any]) -> Templates:
    """
    The templates of a YAML file with the keys ``request`` (a list) and ``adversarial`` (lists by attack).

    Raises ValueError naming file, template and remedy for a file that is not there or broken, an unknown key or field,
    or an empty text.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"config `prompts.templates: {path}`: there is no such file. Give the path of yours."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {error}. Correct it.") from None
    if not isinstance(content, dict) or set(content) != {"request", "adversarial"}:
        raise ValueError(f"{path}: expected the keys request and adversarial.")
    if not isinstance(content["adversarial"], dict):
        raise ValueError(f"{path}: adversarial must hold one list of templates per attack.")
    return Templates(
        request=_listed(content["request"], f"{path}: request", data),
        adversarial={
            str(attack): _listed(items, f"{path}: adversarial.{attack}", data)
            for attack, items in content["adversarial"].items()
        },
    )


def filled(text: str, values: Mapping[str, Any]) -> str:
    """The template's text with its fields filled, and no space at its ends, after which a model stumbles."""
    return text.format(**values).strip()


def _listed(items: Any, where: str, data: Mapping[str, Any]) -> tuple[Template, ...]:
    if not isinstance(items, list) or not items:
        raise ValueError(f"{where}: expected a list of templates, found {items!r}.")
    return tuple(_template(item, f"{where}[{i}]", data) for i, item in enumerate(items))


def _template(item: Any, where: str, data: Mapping[str, Any]) -> Template:
    if not isinstance(item, dict) or not {"language", "base", "chat"} <= set(item) <= {"language", *WAYS}:
        raise ValueError(f"{where}: a template has the keys language, base, chat and, if wanted, begun.")
    if item["language"] not in data["forget"].values():
        raise ValueError(f"{where}: language is {item['language']!r}, expected a column of config `data.forget`.")
    for way in WAYS:
        text = item.get(way, "")
        if not isinstance(text, str) or (way != "begun" and not text.strip()):
            raise ValueError(f"{where}: {way} is {text!r}, expected text.")
        _check_fields(text, f"{where}.{way}", set(data["scripts"]))
    return Template(where, item["language"], item["base"], item["chat"], item.get("begun", ""))


def _check_fields(text: str, where: str, languages: Collection[str]) -> None:
    names = {"topic", *languages}
    try:
        fields = [(name, form) for _, name, form, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise ValueError(f"{where}: {error}. A brace that is text is written twice.") from None
    for name, form in fields:
        shot, dot, column = name.rpartition(".")
        known = column in names and (not dot or shot in {f"shot{i}" for i in range(1, SHOTS + 1)})
        if not known or (form and (form not in FORMS or column == "topic")):
            raise ValueError(
                f"{where}: unknown field {{{name}{':' + form if form else ''}}}. Known are {', '.join(sorted(names))}, "
                f"shot1.… to shot{SHOTS}.…, and the forms {', '.join(FORMS)} of a text."
            )
