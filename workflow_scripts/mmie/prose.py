"""The sentences of the report: what was done, what came out, and what it does not say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from mmie.labels import GATES, forget_name, language_name, listed, script_name, sentence

ENOUGH_GROUPS = 200
"""Groups per family from which a good arm usually passes every gate."""


def lead(
    settings: Mapping[str, Any], decision: Mapping[str, Any], prompts: pd.DataFrame, corpus: pd.DataFrame
) -> list[str]:
    """What was done: two paragraphs."""
    data, forget = settings["data"], forget_name(settings["data"])
    scripts = script_name(data["scripts"][data["forget"]["native"]])
    if data["forget"].get("roman"):
        scripts += " and romanised"
    kept = [language_name(code) for code in (data["retain"], *data["neighbours"])]
    unseen = listed(language_name(code) for code in data["unseen"])
    groups = corpus.drop_duplicates("group_id")["split"].value_counts()
    per_family = prompts.groupby("family").size()
    each = (
        str(per_family.min()) if per_family.min() == per_family.max() else f"{per_family.min()} to {per_family.max()}"
    )
    methods = len(decision["arms"])
    trained = f"{groups['train']} groups of parallel texts" if "train" in groups else "parallel texts"
    tested = (
        f" {sentence(unseen)}, related and never trained on, shows whether the edit knows where to stop."
        if unseen
        else ""
    )
    return [
        f"A pretrained language model ({model_name(settings['model'])}) was edited so that it no longer uses {forget}, "
        f"in {scripts}, while {listed(kept)} stay as they were. {counted(methods, 'method').capitalize()} "
        f"(“arms”) did this with {trained}.{tested}",
        f"Every edited model, and the untouched one (“base”), then continued the same {len(prompts)} held-out openings "
        f"({each} in each of {len(per_family)} prompt families) and was scored on the same held-out texts. Each gate "
        "below is a statistical test that an arm passes only if the data rule out failure: “not shown” is not “shown "
        "to fail”.",
    ]


def headline(decision: Mapping[str, Any], arms: Sequence[str]) -> list[str]:
    """Who may proceed, who must stop; over all core gates, and over the tested ones when some are missing."""
    groups: dict[str, list[str]] = {}
    for arm in arms:
        groups.setdefault(decision["arms"][arm]["verdict"], []).append(arm)
    said = [
        f"{verdict}: {listed(groups[verdict])}"
        for verdict in ("PROCEED", "CANNOT CERTIFY", "STOP")
        if verdict in groups
    ]
    lines = ["; ".join(said) + "."] if said else ["No arm was judged: the config lists only base."]
    good = [arm for arm in arms if decision["arms"][arm]["verdict_g1_g5"].startswith("PROCEED")]
    if not decision["complete"] and good:
        lines.append(f"Over the gates that were tested (G1–G5), {listed(good)} would proceed.")
    if decision["label"]:
        lines.append(f"{sentence(decision['label'])}.")
    return lines


def captions(data: Mapping[str, Any], decision: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Title and one-sentence caption of every figure."""
    forget, retain = forget_name(data), language_name(data["retain"])
    seeds = (
        "" if decision["scope"] == "this checkpoint" else "; points are means over seeds, and intervals reach over all"
    )
    return {
        "tradeoff": (
            f"Forgetting {forget} against damage elsewhere",
            f"A good arm is at the bottom (it no longer continues in {forget}) and near 1 (its perplexity is base's), "
            f"inside the shaded margins; bars are 95 % intervals{seeds}.",
        ),
        "les": (
            f"How often an arm still writes {forget}",
            f"Share of continuations that the detector calls {forget}, by the language of the prompt, with 95 % Wilson "
            "intervals; the gates compare with base prompt by prompt, so that a gate may pass although an interval "
            "crosses its line.",
        ),
        "perplexity": (
            "What it cost in every language",
            f"Perplexity on held-out texts relative to base, with 95 % intervals: {retain}, the neighbours and the "
            f"unseen language should stay near 1, and {forget} should rise.",
        ),
        "layer_scores": (
            f"Where the model keeps {forget}",
            "Scores of the candidate layers: filled points are the layers chosen for the autoencoders, and stability "
            "is how often resampled texts would have chosen them.",
        ),
        "training_curves": (
            "How the arms were trained",
            "Loss of every optimizer step, forget and retain part; arms that are built and not trained have no curve.",
        ),
        "languages": (
            "What an arm writes instead",
            "Detected languages of the continuations, by the language of the prompt: a good arm differs from base only "
            f"on {forget} prompts.",
        ),
        "frontier": (
            "What a stronger dose would cost",
            f"Every configuration of a sweep: continuations still in {forget} against the largest perplexity ratio, as "
            "a share of its margin. Only the tune split may choose among them.",
        ),
        "attacks": (
            "Does it come back when it is asked for",
            f"Share of continuations that the detector calls {forget}, by the way in which an adversarial prompt asks "
            "for it, with 95 % Wilson intervals.",
        ),
        "recovery": (
            "Is it gone, or only hidden",
            f"Recovery of {forget} after each attack on the edited model: 0 is the arm as it was, 1 is base again, "
            f"with 95 % intervals of the attacked model's rate. On the right what the attack left of {retain}: a model "
            "that it destroys brings nothing back either. Base, attacked too, is the control: how much of its own rate "
            "is left.",
        ),
        "flow": (
            f"What it says instead of {forget}",
            f"Continuations of {forget} prompts, prompt by prompt: on the left the languages that base answers "
            "in, on the right those of the arm.",
        ),
        "comprehension": (
            "Does it still understand what it no longer writes",
            f"Sentences in {forget} whose meaning each arm finds among four in {retain}, against the share of its "
            f"continuations still in {forget}, with 95 % Wilson intervals; an arm at the top left no longer writes the "
            "language and understands it all the same.",
        ),
        "inside": (
            "Where in the model it is gone",
            f"Layer by arm: how much better or worse than base's a probe finds {forget}; the probability of its script "
            "when a layer is read as if it were the last (logit lens); and that probability when base goes on from the "
            f"arm's states, with a mark at the layer from which on {forget} no longer comes back.",
        ),
        "membership": (
            "Does it still remember the planted documents",
            "AUC of each membership attack, planted documents against documents of the same grammar that no model has "
            "seen, with 95 % intervals: 0.5 is no better than guessing, and far below 0.5 gives them away as well.",
        ),
        "corpus": (
            "What it was tested on",
            "The parallel corpus: groups per topic and split, words per text, and the share of texts in which the "
            "detector finds the language of the column; the code-mixed column is in two.",
        ),
    }


def limits(
    settings: Mapping[str, Any], decision: Mapping[str, Any], prompts: pd.DataFrame, generations: pd.DataFrame
) -> list[tuple[str, str]]:
    """What the verdicts do not say: a heading and a sentence or two each."""
    data, forget = settings["data"], forget_name(settings["data"])
    fewest, tokens = int(prompts.groupby("family").size().min()), int(generations["n_tokens"].max())
    scope, *explained = decision["scope_note"].split(". ", 1)
    found = [(f"{scope.rstrip('.')}.", *explained) if explained else (decision["scope"], decision["scope_note"])]
    for gate, reason in decision["missing"].items():
        found.append(
            (f"{gate} ({GATES[gate].lower()}) is missing.", f"{sentence(reason)}. No arm can PROCEED without it.")
        )
    size = f"Every prompt family has {fewest} independent prompts."
    if fewest < ENOUGH_GROUPS:
        size += (
            f" About {ENOUGH_GROUPS} are needed before a good arm usually passes every gate; with fewer, CANNOT "
            "CERTIFY says more about the data than about the arm, and the tables say how many would do."
        )
    found.append(("The sample is small." if fewest < ENOUGH_GROUPS else "The sample.", size))
    found += [
        (
            "Not writing it is not the same as not knowing it.",
            f"The gates ask whether the model still writes {forget} when it is led there, and whether linear probes "
            "find it more easily than before. "
            + (
                "Whether it still understands the language is described (comprehension) and judged by no gate, and "
                "knowledge learnt through the language is not tested."
                if settings["understood"]
                else "Understanding, translation, and knowledge learnt through the language are not tested."
            ),
        ),
        (
            "One short continuation, from one corpus.",
            f"One continuation of at most {tokens} tokens per prompt, on the project's own parallel texts; longer or "
            "repeated output, and other registers, may behave differently.",
        ),
        (
            "A detector decides what language a text is in.",
            f"It errs on short and mixed texts; that is why undetermined output in the script of {forget} is counted "
            f"once as {forget} and once not, and both must pass.",
        ),
    ]
    if all(arm["gates"].get("G9", {}).get("outcome", "missing") == "missing" for arm in decision["arms"].values()):
        text = "Quantisation, fine-tuning or steering may bring the language back; no gate could ask here."
        found.append(("Nobody attacked the edit.", text))
    if data["neighbours"]:
        seen = listed(language_name(code) for code in data["neighbours"])
        unseen = listed(language_name(code) for code in data["unseen"])
        rest = f"; only {unseen} shows what happens to a language that was not." if unseen else "."
        found.append(("The neighbours were trained on.", f"{seen} were among the texts to keep{rest}"))
    return found


def model_name(model: Mapping[str, Any]) -> str:
    """The model as the report calls it, from config ``model``."""
    # A local folder's path says something about a machine, its name about the model.
    name = PurePath(model["name"]).name if model["source"] == "local" else model["name"]
    revision = f", revision {model['revision']}" if model.get("revision") else ""
    return f"{name}{revision}"


def counted(n: int, noun: str) -> str:
    """``one method``, ``two methods``, ``12 methods``."""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    return f"{words[n] if n < len(words) else n} {noun}{'' if n == 1 else 's'}"
