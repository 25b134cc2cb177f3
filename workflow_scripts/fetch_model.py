"""
Make the base model into a Hugging Face folder.

Writes config, weights (safetensors, bf16) and tokenizer beside the manifest, which holds the sha256 of each.
"""

from pathlib import Path

from mmie import stage
from mmie.model import materialise


def main(manifest: str, settings: dict, code: str = "") -> None:
    materialise(settings, Path(manifest).parent)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
