"""
Names shared by every stage: the checked config, the wildcards, and the values they range over.
"""

import re
import sys

sys.path.insert(0, f"{workflow.basedir}/workflow_scripts")

from mmie.arms import check_arms, configurations, load_arm, sweeps
from mmie.attacks import check_attacks
from mmie.config import canonical, check_config, check_contrasts, project_path
from mmie import resources
from mmie.provenance import code_digest

config = check_config(config)

ARMS = check_arms(config["arms"])
SEEDS = config["seeds"]
LAYERS = config["layers"]["candidates"]
SITES = range(1, config["layers"]["count"] + 1)
ATTACKS = check_attacks(
    config["attacks"], list(ARMS), split=config["evaluation"]["split"]
)
PLAIN_RUNS = [
    {"arm": name, "seed": seed, "variant": "plain"}
    for name, arm in ARMS.items()
    for seed in (SEEDS if arm["seeded"] else SEEDS[:1])
]
RUNS = PLAIN_RUNS + [
    {**run, "variant": name}
    for run in PLAIN_RUNS
    for name, attack in ATTACKS.items()
    if run["arm"] in attack["arms"]
]
# What the durability gate reads of an attacked model: openings in the forget language, and what
# the attack did to the retain language. Everything else would be most of the work and judge nothing.
ATTACKED_FAMILIES = [
    f"forget_{script}"
    for script, language in config["data"]["forget"].items()
    if language
]
ATTACKED_LANGUAGES = [config["data"]["retain"]]
# Priorities, which decide what starts when cores are few: what everything waits for; then the chain of caching,
# autoencoders, training and attacks, whose end the last evaluations wait for; then the longest jobs that nothing waits
# for, so that a run ends with short ones and on all cores.
FIRST, CHAIN, LONGEST = 3, 2, 1
# What the config may switch off.
COMPREHENDED = bool(
    config["comprehension"]["items"] or config["comprehension"]["tasks"]
)
JUDGED = config["judge"]["endpoint"] is not None
LOOKED_INSIDE = bool(config["inside"]["prompts"])
TRANSFERRED = config["evaluation"]["sae_transfer"]

GPU = resources.gpus(config)
# Jobs of `resources.REPLICATED` run this many copies of the model, each on a GPU or a core of its own.
REPLICAS = config["resources"]["replicas"]
# Only there flash-attn can be installed; read with `--sdm conda` alone.
MODEL_ENV = "../envs/gpu.yaml" if GPU else "../envs/cpu.yaml"

CORPUS_FILE = project_path(config["data"]["corpus"])
# Further texts, with their files where the jobs find them.
TEXTS = {
    language: {**source, "files": [*map(project_path, source.get("files", []))]}
    for language, source in config["data"]["texts"].items()
}
MODEL_SOURCE = canonical(
    {
        "source": config["model"]["source"],
        "name": (
            project_path(config["model"]["name"])
            if config["model"]["source"] == "local"
            else config["model"]["name"]
        ),
        "revision": config["model"]["revision"],
        "trust_remote_code": config["model"]["trust_remote_code"],
    }
)
PROMPT_SETTINGS = canonical(
    {
        **config["prompts"],
        "split": config["evaluation"]["split"],
        "max_new_tokens": config["generation"]["max_new_tokens"],
        "data": config["data"],
    }
)

# Autoencoders of `sae.source: local`, where the jobs find them.
SAE_SETTINGS = canonical(
    {
        **config["sae"],
        "ids": {
            layer: project_path(name) if config["sae"]["source"] == "local" else name
            for layer, name in config["sae"]["ids"].items()
        },
        "candidates": LAYERS,
    }
)

# How a stage runs the model; the same for all of them.
RUNTIME = canonical(
    {
        key: value
        for key, value in config["model"].items()
        if key not in ("source", "name", "revision")
    }
)


def memory(stage):
    """Memory of a stage's jobs, more at each attempt."""

    def megabytes(wildcards, attempt):
        return resources.mem_mb(stage, config, attempt)

    return megabytes


def minutes(stage):
    """Time limit of a stage's jobs, more at each attempt."""

    def limit(wildcards, attempt):
        return resources.runtime(stage, config, attempt)

    return limit


def file_of(path):
    """The file of a config key that may be null, as a list for a rule's input."""
    return [] if path is None else [project_path(path)]


def one_of(names):
    """Wildcard constraint: exactly one of these names."""
    return "|".join(map(re.escape, names)) or "(?!)"


def runs(pattern):
    """``pattern`` for every run of every arm, attacked ones too."""
    return [pattern.format(**run) for run in RUNS]


def plain_runs(pattern):
    """``pattern`` for every run of every arm that nobody attacked."""
    return [pattern.format(**run) for run in PLAIN_RUNS]


def plain_runs_if(measured, pattern):
    """``pattern`` for every run that nobody attacked, where the config has it measured at all."""
    return plain_runs(pattern) if measured else []


def needs(what):
    """Condition for branch(): does the arm train on this artifact?"""

    def check(wildcards):
        return what in ARMS[wildcards.arm]["needs"]

    return check


def arm_settings(wildcards):
    """Settings of one arm, as one canonical param."""
    arm = ARMS[wildcards.arm]
    return canonical(
        {
            "method": arm["method"],
            "params": arm["params"],
            "data": config["data"],
            "candidates": LAYERS,
        }
    )


def arm_code(wildcards):
    """Code behind one arm: the training stage and the arm's own module, not the other arms'."""
    method = ARMS[wildcards.arm]["method"]
    return code_digest("unlearn", f"mmie/arms/{method}")(wildcards)


def attack_settings(wildcards):
    """Settings of one attack, as one canonical param."""
    attack = ATTACKS[wildcards.variant]
    return canonical(
        {
            "attack": attack["attack"],
            "params": attack["params"],
            "data": config["data"],
            "candidates": LAYERS,
            "fasttext": config["lid"]["fasttext"],
        }
    )


def attack_code(wildcards):
    """Code behind one attack: the stage and the attack's own module, not the other attacks'."""
    attack = ATTACKS[wildcards.variant]["attack"]
    return code_digest("attack", f"mmie/attacks/{attack}")(wildcards)


def run_of(wildcards):
    """Keys of a run, as its tables have them."""
    return {
        "arm": wildcards.arm,
        "seed": int(wildcards.seed),
        "variant": wildcards.variant,
    }


def summary_of(method):
    """What a method does, in the first line of its module."""
    return load_arm(method).__doc__.strip().splitlines()[0]


def generation_settings(wildcards):
    """Settings of generation for one run; ``families`` is null where every prompt is asked."""
    families = None if wildcards.variant == "plain" else ATTACKED_FAMILIES
    return canonical(
        {**config["generation"], "families": families, **run_of(wildcards)}
    )


def text_settings(wildcards):
    """Settings of scoring held-out texts for one run; ``languages`` is null where all are scored."""
    plain = {"languages": None, "canaries": True}
    attacked = {
        "languages": ATTACKED_LANGUAGES,
        "canaries": False,
        "kl_texts": 0,
        "gradnorm_canaries": 0,
        "probe_layers": [],
    }
    return canonical(
        {
            **config["texts"],
            **(plain if wildcards.variant == "plain" else attacked),
            "split": config["evaluation"]["split"],
            "data": config["data"],
            **run_of(wildcards),
        }
    )


def transfer_settings(wildcards):
    """Settings of base's autoencoders on one run that nobody attacked."""
    return canonical(
        {
            "split": config["evaluation"]["split"],
            "selector": config["features"]["selector"],
            "arm": wildcards.arm,
            "seed": int(wildcards.seed),
            "variant": "plain",
        }
    )


def comprehension_settings(wildcards):
    """Settings of the comprehension tasks of one run."""
    return canonical(
        {
            "tasks": config["comprehension"]["tasks"],
            "data": config["data"],
            **run_of(wildcards),
        }
    )


def inside_settings(wildcards):
    """Settings of the look inside the model of one run."""
    return canonical({**config["inside"], "data": config["data"], **run_of(wildcards)})


def probe_settings(wildcards):
    """Settings of the probes of one run."""
    return canonical(
        {
            "split": config["evaluation"]["split"],
            "data": config["data"],
            **run_of(wildcards),
        }
    )


wildcard_constraints:
    arm=one_of(ARMS),
    seed=r"\d+",
    variant=one_of(["plain", *ATTACKS]),
    site=one_of(map(str, SITES)),
