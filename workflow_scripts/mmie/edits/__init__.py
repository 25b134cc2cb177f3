"""
Edits: what an arm did to the model, stored as plain tensors and attached as plain forward hooks.

A card (`arm.json`) lists the edits of one run in the order in which they are applied, each with the sha256 of the files
that hold its tensors. While edits are attached the model stays an ordinary PreTrainedModel, for `generate`, PEFT and
lm-eval; afterwards it is untouched. Nothing here imports peft, pyreft or sae_lens.

Order: edits of weights (``quantise``) come first wherever the card has them, since hooks are laid on the modules that
hold the weights; then hooks in the order of the card, so that two on one module act one after the other. A ``scale``
weakens the hooks before it and none after it.
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
from mmie.edits import dsg, hook, lora, neurons, noise, prompt, quantise, sae_gate, scale

HOOKS: dict[str, Any] = {
    "dsg": dsg,
    "hook": hook,
    "lora": lora,
    "neurons": neurons,
    "noise": noise,
    "prompt": prompt,
    "sae_gate": sae_gate,
}
KINDS: dict[str, Any] = {**HOOKS, "quantise": quantise, "scale": scale}


@dataclass(frozen=True)
class Edit:
    """One change of the model."""

    kind: str
    """Module of mmie/edits that knows how to attach it, a key of ``KINDS``."""
    layers: tuple[int, ...]
    """Decoder layers it acts on."""
    tensors: dict[str, torch.Tensor]
    """Its weights, by the names that the kind's docstring gives; empty for kinds that have none, and then no file."""
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
    strengths = scale.strengths([edit.facts.get("factor", 1.0) if edit.kind == "scale" else 1.0 for edit in edits])
    merged: set[int] = set()
    with ExitStack() as undo:
        for number, edit in enumerate(edits):
            _kind(edit.kind)
            if edit.kind == "quantise":
                folded = [i for i in range(number) if edit.facts["merge_lora"] and edits[i].kind == "lora"]
                merged.update(folded)
                updates = [lora.updates(edits[i].tensors, edits[i].facts, strengths[i]) for i in folded]
                undo.enter_context(quantise.quantised(model, edit.facts, updates))
        # What changes the input comes last: it runs the model when it is attached, and must find it edited.
        for number, edit in sorted(enumerate(edits), key=lambda item: _before_forward(item[1])):
            if edit.kind not in HOOKS or number in merged:
                continue
            for module, run in HOOKS[edit.kind].hooks(model, edit.tensors, edit.facts):
                undo.callback(_register(module, run, edit, strengths[number]).remove)
        yield model


def save_card(card: str | Path, edits: Sequence[Edit], arm: str, seed: int, variant: str = "plain") -> None:
    """
    Write the edits' files beside the card, then the card: with the card, the run is complete.

    The same edits give the same bytes. Edit number i of kind ``lora`` is a PEFT folder ``{i}-lora``, the others are
    files ``{i}-{kind}.safetensors``; a run's only LoRA is a folder ``lora``.
    """
    card = Path(card)
    stems = [edit.kind if len(edits) == 1 else f"{number}-{edit.kind}" for number, edit in enumerate(edits)]
    entries = [_saved(card.parent, stem, edit) for stem, edit in zip(stems, edits, strict=True)]
    _write(card, {"arm": arm, "seed": seed, "variant": variant, "edits": entries})


def extend_card(card: str | Path, plain: str | Path, edits: Sequence[Edit], variant: str) -> None:
    """
    Write a card of the same run with the edits of card ``plain`` and then ``edits``.

    The files of ``plain`` stay where they are and as they are: the new card names them by a path relative to itself,
    with the same sha256. Raises ValueError as `read_card` does.
    """
    card, plain = Path(card), Path(plain)
    content = _content(plain)
    _check_files(plain, content["edits"])
    way = Path(os.path.relpath(plain.parent, card.parent))
    entries = [_moved(entry, way) for entry in content["edits"]]
    entries += [_saved(card.parent, f"{number}-{edit.kind}", edit) for number, edit in enumerate(edits, len(entries))]
    _write(card, {**content, "variant": variant, "edits": entries})


def read_card(card: str | Path) -> list[Edit]:
    """
    The edits of a card, in order, once every file it names has the sha256 it gives.

    Raises ValueError naming the file and the remedy.
    """
    card = Path(card)
    entries = _content(card)["edits"]
    _check_files(card, entries)
    edits = []
    for entry in entries:
        kind = _kind(entry["kind"])
        facts = {k: v for k, v in entry.items() if k not in ("kind", "layers", "file", "sha256", "also")}
        tensors_ = kind.load(card.parent / entry["file"]) if "file" in entry else {}
        edits.append(Edit(entry["kind"], tuple(entry["layers"]), tensors_, facts))
    return edits


def _saved(folder: Path, stem: str, edit: Edit) -> dict[str, Any]:
    """The card's entry of an edit, once its files are written."""
    entry = {**edit.facts, "kind": edit.kind, "layers": list(edit.layers)}
    files = _kind(edit.kind).save(folder, stem, edit.tensors, edit.facts) if edit.tensors else []
    if files:
        entry |= {"file": files[0], "sha256": tensors.sha256(folder / files[0])}
    if len(files) > 1:
        entry["also"] = {name: tensors.sha256(folder / name) for name in files[1:]}
    return entry


def _moved(entry: dict[str, Any], way: Path) -> dict[str, Any]:
    """An entry as a card sees it that reaches its files by ``way``."""
    moved = dict(entry)
    if "file" in entry:
        moved["file"] = (way / entry["file"]).as_posix()
    if "also" in entry:
        moved["also"] = {(way / name).as_posix(): digest for name, digest in entry["also"].items()}
    return moved


def _write(card: Path, content: dict[str, Any]) -> None:
    card.parent.mkdir(parents=True, exist_ok=True)
    partial = card.with_name(card.name + ".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, card)


def _content(card: Path) -> dict[str, Any]:
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
        return {**content, "edits": list(content["edits"])}
    except FileNotFoundError:
        raise ValueError(f"{card} is missing. Run `snakemake --cores 2 {card}` to make it.") from None
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{card} is not a card ({error!r}): delete it, and Snakemake makes it again.") from None


def _check_files(card: Path, entries: Sequence[dict[str, Any]]) -> None:
    for entry in entries:
        named = {entry["file"]: entry["sha256"]} if "file" in entry else {}
        for name, expected in {**named, **entry.get("also", {})}.items():
            _verify(card.parent / name, expected, card)


def _kind(name: str) -> Any:
    if name not in KINDS:
        raise ValueError(f"edit kind {name!r} is unknown. Known kinds: {', '.join(sorted(KINDS))}.")
    return KINDS[name]


def _before_forward(edit: Edit) -> bool:
    return getattr(_kind(edit.kind), "BEFORE_FORWARD", False)


def _register(module: torch.nn.Module, run: Callable[..., Any], edit: Edit, strength: float) -> RemovableHandle:
    if not _before_forward(edit):
        keywords = getattr(_kind(edit.kind), "WITH_KEYWORDS", False)
        return module.register_forward_hook(scale.weakened(run, strength), with_kwargs=keywords)
    if strength != 1:
        raise ValueError("an instruction (edit kind `prompt`) is there or not: config `attacks` cannot weaken it.")
    return module.register_forward_pre_hook(run, with_kwargs=True)


def _verify(path: Path, expected: str, card: Path) -> None:
    if not path.exists():
        raise ValueError(f"{path}, which {card} names, is missing. Delete {card}, and Snakemake makes both again.")
    if tensors.sha256(path) != expected:
        raise ValueError(
            f"{path} is not the file that {card} names (its sha256 differs). Delete {card}, and Snakemake makes "
            "both again."
        )
