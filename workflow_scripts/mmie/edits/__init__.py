"""
Edits: what an arm did to the model, stored as plain tensors and attached as plain forward hooks.

A card (`arm.json`) lists the edits of one run in the order in which they are applied, each with the sha256 of the files
that hold its tensors. While edits are attached the model stays an ordinary PreTrainedModel, for `generate`, PEFT and
lm-eval; afterwards it is untouched. Nothing here imports peft, pyreft or sae_lens.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from mmie import tensors
from mmie.edits import hook, lora, neurons, prompt, sae_gate

KINDS: dict[str, Any] = {"hook": hook, "lora": lora, "neurons": neurons, "prompt": prompt, "sae_gate": sae_gate}


@dataclass(frozen=True)
class Edit:
    """One change of the model."""

    kind: str
    """Module of mmie/edits that knows how to attach it, one of `KINDS`."""
    layers: tuple[int, ...]
    """Decoder layers it acts on."""
    tensors: dict[str, torch.Tensor]
    """Its weights, by the names that the kind's docstring gives."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What else the kind needs, and what a reader of the card wants to know; JSON values."""


@contextmanager
def attached(model: PreTrainedModel, card: str | Path) -> Iterator[PreTrainedModel]:
    """
    Inside the block the model is edited as the card says; afterwards no hook is left.

    Raises ValueError when the card or a file it names is missing or changed, or does not fit the model.
    """
    with attached_edits(model, read_card(card)):
        yield model


@contextmanager
def attached_edits(model: PreTrainedModel, edits: Sequence[Edit]) -> Iterator[PreTrainedModel]:
    """
    As `attached`, with edits in memory. They act in their order. Raises ValueError when one does not fit the
    model.
    """
    with ExitStack() as undo:
        # What changes the input comes last: it runs the model when it is attached, and must find it edited.
        for edit in sorted(edits, key=_before_forward):
            for module, run in _kind(edit.kind).hooks(model, edit.tensors, edit.facts):
                undo.callback(_register(module, run, _before_forward(edit)).remove)
        yield model


def save_card(card: str | Path, edits: Sequence[Edit], arm: str, seed: int, variant: str = "plain") -> None:
    """
    Write the edits' files beside the card, then the card: with the card, the run is complete.

    The same edits give the same bytes. Edit number i of kind ``lora`` is a PEFT folder ``{i}-lora``, the others are
    files ``{i}-{kind}.safetensors``; a run's only LoRA is a folder ``lora``.
    """
    card = Path(card)
    entries = []
    for number, edit in enumerate(edits):
        stem = edit.kind if len(edits) == 1 else f"{number}-{edit.kind}"
        kind = _kind(edit.kind)
        files = kind.save(card.parent, stem, edit.tensors, edit.facts)
        entry = {
            "kind": edit.kind,
            "layers": list(edit.layers),
            "file": files[0],
            "sha256": tensors.sha256(card.parent / files[0]),
        }
        if len(files) > 1:
            entry["also"] = {name: tensors.sha256(card.parent / name) for name in files[1:]}
        entries.append({**edit.facts, **entry})
    card.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"arm": arm, "seed": seed, "variant": variant, "edits": entries}, indent=1, sort_keys=True)
    partial = card.with_name(card.name + ".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, card)


def read_card(card: str | Path) -> list[Edit]:
    """
    The edits of a card, in order, once every file it names has the sha256 it gives.

    Raises ValueError naming the file and the remedy.
    """
    card = Path(card)
    try:
        entries = json.loads(card.read_text(encoding="utf-8"))["edits"]
    except FileNotFoundError:
        raise ValueError(f"{card} is missing. Run `snakemake --cores 2 {card}` to make it.") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{card} is not a card ({error!r}): delete it, and Snakemake makes it again.") from None
    edits = []
    for entry in entries:
        for name, expected in {entry["file"]: entry["sha256"], **entry.get("also", {})}.items():
            _verify(card.parent / name, expected, card)
        kind = _kind(entry["kind"])
        facts = {k: v for k, v in entry.items() if k not in ("kind", "layers", "file", "sha256", "also")}
        edits.append(Edit(entry["kind"], tuple(entry["layers"]), kind.load(card.parent / entry["file"]), facts))
    return edits


def _kind(name: str) -> Any:
    if name not in KINDS:
        raise ValueError(f"edit kind {name!r} is unknown. Known kinds: {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def _before_forward(edit: Edit) -> bool:
    return getattr(_kind(edit.kind), "BEFORE_FORWARD", False)


def _register(module: torch.nn.Module, run: Callable[..., Any], before: bool) -> RemovableHandle:
    if before:
        return module.register_forward_pre_hook(run, with_kwargs=True)
    return module.register_forward_hook(run)


def _verify(path: Path, expected: str, card: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path}, which {card} names, is missing. Delete {card}, and Snakemake makes both again.")
    if tensors.sha256(path) != expected:
        raise ValueError(
            f"{path} is not the file that {card} names (its sha256 differs). Delete {card}, and Snakemake makes "
            "both again."
        )
