"""
Cut the held-out texts into openings for the model to continue.

Writes one row per prompt, and only if every prompt and its continuation fit the model's context.
"""

from mmie import stage, tables
from mmie.prompting import check_length, prompt_rows, read_tokenizer


def main(corpus: str, model: str, prompts: str, settings: dict, code: str = "") -> None:
    tokenizer = read_tokenizer(model, chat=settings["chat"])
    rows = prompt_rows(tables.read(corpus, tables.CORPUS), settings, tokenizer)
    check_length(rows, tokenizer, settings["max_new_tokens"])
    tables.write(rows, prompts, tables.PROMPTS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
