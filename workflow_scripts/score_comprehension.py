"""
Ask the edited model the questions of the comprehension tasks, inside lm-eval.

Writes one row per question: which answer the model prefers, and whether it is the right one.
"""

from mmie import comprehension, files, stage, tables
from mmie.edits import attached
from mmie.harness import Harness, answer_items, named_tasks, read_templates
from mmie.model import load


def main(
    model: str, questions: str, templates: str, card: str, scores: str, settings: dict, runtime: dict, code: str = ""
) -> None:
    asked, wording = tables.read(questions, tables.ITEMS), read_templates(files.read(templates))
    language_model, tokenizer = load(model, runtime)
    # Before the edits are attached: lm-eval ties the weights of a model that it is given.
    harness = Harness(language_model, tokenizer)
    run = {key: settings[key] for key in ("arm", "seed", "variant")}
    with attached(language_model, card):
        answers = answer_items(harness, asked, wording, settings["data"])
        named = named_tasks(harness, settings["tasks"])
    rows = comprehension.rows_of(asked, answers, run) + comprehension.rows_of_named(named, run)
    tables.write(rows, scores, tables.COMPREHENSION, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
