"""Small text files and images: read with a remedy, written whole or not at all. And many tables of one kind as one."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from mmie import tables


def write(content: str | bytes, path: str | Path) -> None:
    """Write text (UTF-8) or bytes beside ``path`` and rename: what is there is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.replace(partial, path)


def read(path: str | Path) -> bytes:
    """
    The bytes of a file.

    Raises ValueError naming the file and the remedy when it is missing.
    """
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing. Run `snakemake --cores 2 {path}` to make it.") from None


def read_json(path: str | Path) -> Any:
    """
    What a JSON file says.

    Raises ValueError naming the file and the remedy when it is missing or truncated.
    """
    try:
        return json.loads(read(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, and Snakemake makes it again.") from None


def read_tables(paths: Sequence[str | Path], schema: pa.Schema) -> pd.DataFrame:
    """The rows of all these tables, in the order of ``paths``; an empty table when there are none."""
    parts = [tables.read(path, schema) for path in paths]
    filled = [part for part in parts if len(part)]
    if not filled:
        return schema.empty_table().to_pandas()
    return pd.concat(filled, ignore_index=True)[schema.names]
