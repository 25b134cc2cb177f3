"""
Let a language model rate continuations, if the config names one. No gate reads it.

Writes one row per rated continuation, and keeps every answer in the cache folder.
"""

from mmie import stage, tables
from mmie.judge import choose, judged_rows, read_key


def main(generations: str, prompts: str, ratings: str, settings: dict, code: str = "") -> None:
    key = read_key(settings["key"])
    texts = tables.read(generations, tables.GENERATIONS)
    chosen = choose(texts, tables.read(prompts, tables.PROMPTS), settings["prompts"])
    rows = stage.track(judged_rows(chosen, settings, "results/judge/cache", key), len(chosen), "ratings")
    tables.write(list(rows), ratings, tables.JUDGE, code=code)


if __name__ == "__main__":
    stage.run(main, globals().get("snakemake"))
