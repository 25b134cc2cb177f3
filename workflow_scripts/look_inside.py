"""
Look inside one edited model: logit lens per layer, and base going on from its states.

Writes one row per measure, layer and prompt.
"""

from mmie import stage, tables
from mmie.edits import attached
from mmie.inside import (
    LENS,
    PATCHED,
    choose_prompts,
    edited_passes,
    inside_rows,
    lens_mass,
    patched_mass,
    tokens_in,
)  # fmt: skip
from mmie.model import load


def main(model: str, prompts: str, card: str, inside: str, settings: dict, runtime: dict, code: str = "") -> None:
    asked = choose_prompts(tables.read(prompts, tables.PROMPTS), settings["prompts"])
    data = settings["data"]
    language_model, tokenizer = load(model, runtime)
    script = tokens_in(tokenizer, data["scripts"][data["forget"]["native"]], language_model.config.vocab_size)
    with attached(language_model, card):
        batches, passes = edited_passes(language_model, tokenizer, list(asked.text))
        lens = [lens_mass(language_model, passed, script) for passed in passes]
    patched = [patched_mass(language_model, passed, script) for passed in passes]
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    tables.write(inside_rows(asked, batches, {LENS: lens, PATCHED: patched}, run), inside, tables.INSIDE, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
