"""
The reference pages, written from the code: `python workflow_scripts/mmie/reference.py` renews docs/.

The data dictionary comes from tables.py, the config reference from config.schema.json and the Params of arms and
attacks.
"""

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from mmie import arms, attacks, tables
from mmie.config import PROJECT, SCHEMA

PAGES = {
    "docs/data-dictionary.md": "data_dictionary",
    "docs/config.md": "config_reference",
    "docs/arms.md": "arm_reference",
}


def data_dictionary() -> str:
    """Every table and every column, as Markdown."""
    lines = ["# Data dictionary", "", "Every Parquet file of a run, written from `workflow_scripts/mmie/tables.py`."]
    for schema in tables.SCHEMAS.values():
        facts = {key.decode(): value.decode() for key, value in schema.metadata.items()}
        lines += ["", f"## {facts['table']}", "", f"`{facts['path']}`", "", facts["meaning"], ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        for field in schema:
            kind = f"{field.type}, may be null" if field.nullable else str(field.type)
            lines.append(f"| `{field.name}` | {kind} | {_cell(field.metadata[b'meaning'].decode())} |")
    return "\n".join(lines) + "\n"


def config_reference() -> str:
    """Every key of the config and every parameter of every attack, as Markdown."""
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    lines = [
        "# Config reference",
        "",
        "Written from `config.schema.json` and from the `Params` of attacks; those of arms are in [arms.md](arms.md).",
        "",
    ]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for key, value in _keys(schema, ""):
        default = json.dumps(value["default"], ensure_ascii=False) if "default" in value else ""
        allowed = f" One of {', '.join(f'`{v}`' for v in value['enum'])}." if "enum" in value else ""
        lines.append(
            f"| `{key}` | {_cell(f'`{default}`' if default else '')} | {_cell(value['description'] + allowed)} |"
        )
    lines += [
        "",
        "# Attacks",
        "",
        "`attacks: {name: {attack: rtn, bits: 8}}`; `attack` is the module, by default the name.",
    ]
    for attack in attacks.available_attacks():
        lines += _module(attack, attacks.load_attack(attack), attacks.describe(attack))
    return "\n".join(lines) + "\n"


def arm_reference() -> str:
    """Every arm: what it does and where it departs from its paper, what it needs, and its parameters; as Markdown."""
    lines = [
        "# Arms",
        "",
        "Written from the modules of `workflow_scripts/mmie/arms/`. `arms: {name: {method: lora, rank: 4}}`; `method` "
        "is the module, by default the name.",
        "",
        "| method | what it does | trained on | other with another seed |",
        "|---|---|---|---|",
    ]
    loaded = {method: arms.load_arm(method) for method in arms.available_arms()}
    for method, module in loaded.items():
        first = inspect.cleandoc(module.__doc__ or "").splitlines()[0].rstrip(".:")
        needs = ", ".join(["texts", *sorted(module.NEEDS)])
        lines.append(f"| [`{method}`](#{method}) | {_cell(first)} | {needs} | {'yes' if module.SEEDED else 'no'} |")
    for method, module in loaded.items():
        lines += _module(method, module, arms.describe(method))
    return "\n".join(lines) + "\n"


def _module(name: str, module: ModuleType, params: list[dict[str, str]]) -> list[str]:
    about = inspect.cleandoc(module.__doc__ or "")
    rows = [f"| `{p['name']}` | {p['type']} | `{_cell(p['default'])}` | {_cell(p['meaning'])} |" for p in params]
    table = ["", "| parameter | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []
    return ["", f"## {name}", "", about, *table]


def _keys(schema: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in schema["properties"].items():
        if "properties" in value and "default" not in value:
            yield f"{prefix}{name}", value
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    for page, function in PAGES.items():
        (PROJECT / page).write_text(globals()[function](), encoding="utf-8")
