"""
Prompts: openings of held-out texts for the model to continue, and templates that ask for the forget language.

Writes one row per prompt, and only if every prompt and its continuation fit the model's context.
"""

from mmie import stage, tables
from mmie.asking import asking_rows
from mmie.prompting import check_length, in_order, opening_rows, read_tokenizer
from mmie.templates import read_templates


def main(corpus: str, model: str, templates: list[str], prompts: str, settings: dict, code: str = "") -> None:
    tokenizer = read_tokenizer(model, chat=settings["chat"])
    texts = tables.read(corpus, tables.CORPUS)
    rows = opening_rows(texts, settings, tokenizer.chat)
    for path in templates:
        rows += asking_rows(texts, settings, read_templates(path, settings["data"]), tokenizer.chat)
    rows = in_order(rows, settings["data"])
    check_length(rows, tokenizer, settings["max_new_tokens"])
    tables.write(rows, prompts, tables.PROMPTS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
