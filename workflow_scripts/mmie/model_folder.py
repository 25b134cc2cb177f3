"""A model on disk: a Hugging Face folder, and its manifest: the sha256 of every file, written last."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def install(made: Path, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """
    Move the files of ``made`` (on the same disk) to ``folder``, then write its manifest.json; the manifest.

    It holds ``about`` and, under ``files``, size and sha256 of every file. With it, the folder is complete. Files of
    an earlier model that this one does not have are removed.
    """
    files = {p.name: {"bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(made.iterdir())}
    manifest = {**about, "files": files}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for name in files:
        (made / name).chmod(0o644)
        os.replace(made / name, folder / name)
    (made / "manifest.json").write_text(text, encoding="utf-8")
    os.replace(made / "manifest.json", folder / "manifest.json")
    return manifest


def read_manifest(manifest: str | Path) -> dict[str, Any]:
    """
    What a manifest says, once every file it names is there with its size.

    Raises ValueError naming the file and the remedy.
    """
    try:
        found: dict[str, Any] = json.loads(Path(manifest).read_text(encoding="utf-8"))
        files = found["files"]
    except FileNotFoundError:
        raise ValueError(f"{manifest} is missing. Run `snakemake --cores 2 {manifest}` to make it.") from None
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{manifest} cannot be read ({error!r}): delete it, and Snakemake makes it again.") from None
    folder = Path(manifest).parent
    for name, facts in files.items():
        size = (folder / name).stat().st_size if (folder / name).exists() else None
        if size != facts["bytes"]:
            state = "missing" if size is None else f"{size} bytes"
            raise ValueError(
                f"{folder / name} is {state}, expected {facts['bytes']} bytes. "
                f"Delete {manifest}, and Snakemake makes the model again."
            )
    return found


def link(names: Iterable[str], source: Path, target: Path) -> None:
    """Hard links in ``target`` to files of ``source``; copies where the disk knows no links."""
    for name in names:
        try:
            os.link(source / name, target / name)
        except OSError:
            shutil.copyfile(source / name, target / name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
