"""What an arm is given, made from the tiny model and the small corpus."""

from pathlib import Path

from mmie import tables
from mmie.unlearn import Sources
from small_cache import DATA, LAYERS, write_cache

SCRIPTS = {
    "en": "Latn", "hi": "Deva", "hi_latn": "Latn", "ur": "Arab", "pa": "Guru", "bn": "Beng", "mr": "Deva",
    "hi_mixed": "Zyyy",
}  # fmt: skip


def small_sources(folder: Path, model: Path) -> Sources:
    """Corpus and activations of layers 1 and 3."""
    made = write_cache(folder, model)
    return Sources(
        corpus=tables.read(made["corpus"], tables.CORPUS),
        data={**DATA, "scripts": SCRIPTS, "mixed": "hi_mixed", "unseen": ["mr"]},
        activations=dict(zip(LAYERS, map(Path, made["layers"]), strict=True)),
        index=Path(made["index"]),
    )
