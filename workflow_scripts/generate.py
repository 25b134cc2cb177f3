"""
Continue every prompt with the edited model.

Writes one row per prompt × sample: the continuation, its length, and how it ended.
"""

from mmie import stage, tables
from mmie.parallel_generation import continuations


def main(
    model: str,
    prompts: str,
    card: str,
    generations: str,
    settings: dict,
    runtime: dict,
    replicas: int = 1,
    code: str = "",
) -> None:
    asked = tables.read(prompts, tables.PROMPTS)
    if settings["families"] is not None:
        asked = asked[asked.family.isin(settings["families"])]
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    answers = continuations(model, runtime, card, list(asked.text), settings, replicas)
    rows = [
        {**run, "prompt_id": prompt, "sample": 0, "text": a.text, "n_tokens": a.n_tokens, "finish": a.finish}
        for prompt, a in zip(asked.prompt_id, answers, strict=True)
    ]
    tables.write(rows, generations, tables.GENERATIONS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
