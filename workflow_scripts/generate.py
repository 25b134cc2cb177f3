"""
Continue every prompt with the edited model.

Writes one row per prompt × sample: the continuation, its length, and how it ended.
"""

from mmie import stage, tables
from mmie.edits import attached
from mmie.generation import Sampling, generate
from mmie.model import load


def main(model: str, prompts: str, card: str, generations: str, settings: dict, runtime: dict, code: str = "") -> None:
    asked = tables.read(prompts, tables.PROMPTS)
    if settings["families"] is not None:
        asked = asked[asked.family.isin(settings["families"])]
    language_model, tokenizer = load(model, runtime)
    sampling = Sampling(settings["temperature"], settings["top_k"], settings["draw_seed"])
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    with attached(language_model, card):
        answers = generate(
            language_model,
            tokenizer,
            list(asked.text),
            settings["max_new_tokens"],
            settings["batch_size"],
            sampling,
            batch_tokens=settings["batch_tokens"],
        )
    rows = [
        {**run, "prompt_id": prompt, "sample": 0, "text": a.text, "n_tokens": a.n_tokens, "finish": a.finish}
        for prompt, a in zip(asked.prompt_id, answers, strict=True)
    ]
    tables.write(rows, generations, tables.GENERATIONS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
