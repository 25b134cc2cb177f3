"""
Write the questions of the comprehension tasks.

Writes one row per question, made from the evaluated split of the corpus and from the file of facts.
"""

from mmie import comprehension, stage, tables


def main(corpus: str, knowledge: str, questions: str, settings: dict, code: str = "") -> None:
    rows = []
    if settings["items"]:
        texts, facts = tables.read(corpus, tables.CORPUS), comprehension.read_knowledge(knowledge)
        rows = comprehension.make_items(texts, facts, settings["split"], settings["data"], settings["items"])
    tables.write(rows, questions, tables.ITEMS, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
