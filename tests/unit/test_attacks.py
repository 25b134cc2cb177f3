"""Attacks: what the config may name, what each appends, and that nothing of the attacked arm or the model changes."""

import hashlib
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_edits import hook_edit, logits, lora_edit

import attack as script
import tiny
from mmie import metrics, tables
from mmie.attacking import Target, held_out
from mmie.attacks import available_attacks, check_attacks, describe, load_attack, make_params
from mmie.edits import attached, attached_edits, read_card, save_card
from mmie.model import load
from mmie.steering import steering, vectors
from small_arms import DATA, make_corpus

ROOT = Path(__file__).parents[2]
ALL = ["int8", "merge", "nf4", "noise", "relearn", "relearn_unrelated", "rtn", "steer"]
SMALL = {
    "relearn": {"texts": 2, "steps": 4, "batch": 2, "rank": 2},
    "relearn_unrelated": {"texts": 2, "steps": 4, "batch": 2, "rank": 2},
    "steer": {"texts": 4, "openings": 2, "scales": [1, 2]},
}
ARMS = ["base", "lora", "grun"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="module")
def corpus():
    found = make_corpus(10)
    # Two groups of test, three of tune, five of train.
    split = dict(zip(sorted(found["group_id"].unique()), ["train"] * 5 + ["tune"] * 3 + ["test"] * 2, strict=True))
    return found.assign(split=found["group_id"].map(split))


def edits_of(model):
    return [lora_edit(model), hook_edit(model.config.hidden_size, gate=True)]


@pytest.fixture(scope="module")
def target(loaded, corpus):
    return Target(edits_of(loaded[0]), corpus, DATA, (1, 2), "package", lambda: loaded)


def attacked(target, name, seed=0, **given):
    return load_attack(name).attack(target, make_params(name, {**SMALL.get(name, {}), **given}), seed)


@pytest.fixture(scope="module")
def files(tiny_model, corpus, tmp_path_factory):
    """What the rule gives the script: the paths of a run, and its settings."""
    folder = tmp_path_factory.mktemp("run")
    rows = corpus.assign(topic="", register="")
    tables.write(rows, folder / "corpus.parquet", tables.CORPUS)
    model, _ = load(tiny_model, tiny.RUNTIME)
    save_card(folder / "plain/arm.json", edits_of(model), "x", 3)
    settings = {"data": DATA, "candidates": [1, 2], "fasttext": "package"}
    paths = {"corpus": str(folder / "corpus.parquet"), "plain": str(folder / "plain/arm.json")}
    return folder, partial(script.main, model=str(tiny_model), seed=3, runtime=tiny.RUNTIME, **paths), settings


def digests(folder):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


# What the config may name


def test_every_module_of_the_folder_is_an_attack_and_every_parameter_has_a_meaning():
    assert available_attacks() == ALL
    for name in ALL:
        module = load_attack(name)
        assert isinstance(module.TUNES, bool) and isinstance(module.ON_BASE, bool)
        assert make_params(name, {}) == module.Params()
        for row in describe(name):
            assert row["meaning"].endswith("."), f"{name}.{row['name']}"


def test_attacks_are_run_on_every_arm_that_can_bear_them_or_on_those_that_are_named():
    found = check_attacks({"rtn8": {"attack": "rtn", "bits": 8}, "noise": {"arms": ["grun"]}}, ARMS, "test")
    assert found == {
        "rtn8": {"attack": "rtn", "params": {"bits": 8}, "arms": ["base", "lora", "grun"]},
        "noise": {"attack": "noise", "params": {}, "arms": ["grun"]},
    }
    swept = check_attacks({"relearn": {"sweep": {"texts": [10, 40]}}}, ARMS, "test")
    assert {name: entry["params"] for name, entry in swept.items()} == {
        "relearn-texts10": {"texts": 10},
        "relearn-texts40": {"texts": 40},
    }
    assert check_attacks({"merge": {}}, ARMS, "test")["merge"]["arms"] == ["lora", "grun"]
    assert check_attacks({}, ARMS, "test") == {}


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        ({"rtm": {}}, r"attacks\.rtm.*unknown attack 'rtm'.*Did you mean 'rtn'.*give it `attack:`"),
        ({"x": {"attack": "relern"}}, r"attacks\.x.*Did you mean 'relearn'"),
        ({"rtn": {"bit": 4}}, r"attacks\.rtn\.bit.*Did you mean 'bits'"),
        ({"rtn": {"bits": 3}}, r"attacks\.rtn\.bits: 3.*4 or 8"),
        ({"rtn": {"bits": "4"}}, r"attacks\.rtn\.bits.*'4'.*whole number"),
        ({"rtn": None}, r"attacks\.rtn` is empty"),
        ({"plain": {"attack": "rtn"}}, r"attacks\.plain.*not allowed"),
        ({"merge": {"arms": ["base"]}}, r"attacks\.merge\.arms.*'base' is no arm that this attack can be run on"),
        ({"rtn": {"arms": ["grn"]}}, r"attacks\.rtn\.arms.*Did you mean 'grun'"),
        ({"rtn": {"arms": "grun"}}, r"attacks\.rtn\.arms.*'grun' is not allowed: a list"),
        ({"merge": {"factor": 1}}, r"attacks\.merge\.factor: 1\.0"),
        ({"noise": {"scale": 0}}, r"attacks\.noise\.scale: 0\.0"),
        ({"relearn": {"script": "hindi"}}, r"attacks\.relearn\.script: 'hindi'.*native, roman"),
        ({"relearn": {"batch": 3}}, r"attacks\.relearn\.batch: 3.*even"),
        ({"steer": {"scales": []}}, r"attacks\.steer\.scales: \[\]"),
        ({"a": {"attack": "rtn", "sweep": {"bits": [4]}}, "a-bits4": {"attack": "rtn"}}, r"two attacks are called"),
    ],
)
def test_a_wrong_config_is_refused_with_key_value_and_remedy(attacks, says):
    with pytest.raises(ValueError, match=says):
        check_attacks(attacks, ARMS, "test")


@pytest.mark.parametrize("name", ALL)
def test_what_reads_the_tune_split_is_not_measured_on_it(name):
    if load_attack(name).TUNES:
        with pytest.raises(ValueError, match=rf"attacks\.{name}.*tune split"):
            check_attacks({name: {}}, ARMS, "tune")
    else:
        check_attacks({name: {}}, ARMS, "tune")


def test_checking_the_attacks_loads_neither_torch_nor_pandas():
    code = (
        "import sys; from mmie.attacks import available_attacks, check_attacks;"
        "check_attacks({n: {} for n in available_attacks()}, ['base', 'lora'], 'test');"
        "print([m for m in ('torch', 'transformers', 'peft', 'bitsandbytes', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# All of them


@pytest.mark.parametrize("name", ALL)
def test_an_attack_changes_the_arm_and_nothing_else(loaded, files, name):
    """Same bytes twice, the plain folder as it was, the model as it was; in a fresh model the same logits."""
    folder, main, settings = files
    model, tokenizer = loaded
    tokens = torch.tensor([tokenizer(tiny.SAMPLE[1])["input_ids"][:20]])
    before, plain = logits(model, tokens), digests(folder / "plain")
    for where in ("one", "two"):
        card = folder / where / name / "arm.json"
        main(card=str(card), variant=name, settings={**settings, "attack": name, "params": SMALL.get(name, {})})
    assert digests(folder / "plain") == plain
    one, two = (digests(folder / where / name) for where in ("one", "two"))
    text = card.read_text()
    assert [*one.values()] == [*two.values()] and "/tmp" not in text
    content = json.loads(text)
    assert (content["arm"], content["seed"], content["variant"]) == ("x", 3, name)
    assert [entry["kind"] for entry in content["edits"]][:2] == ["lora", "hook"] and len(content["edits"]) == 3
    with attached(model, folder / "plain/arm.json"):
        unattacked = logits(model, tokens)
    with attached(model, card):
        changed = logits(model, tokens)
    assert not torch.allclose(changed, unattacked, atol=1e-4)
    assert torch.equal(logits(model, tokens), before)


def test_a_card_reloads_bitwise_in_a_fresh_process(loaded, files, tiny_model):
    folder, main, settings = files
    model, tokenizer = loaded
    tokens = torch.tensor([tokenizer(tiny.SAMPLE[1])["input_ids"][:20]])
    cards = []
    for name in ("relearn", "noise", "rtn"):
        cards.append(folder / "fresh" / name / "arm.json")
        main(card=str(cards[-1]), variant=name, settings={**settings, "attack": name, "params": SMALL.get(name, {})})
    here = []
    for card in cards:
        with attached(model, card):
            here.append(hashlib.sha256(logits(model, tokens).numpy().tobytes()).hexdigest())
    code = (
        "import sys, hashlib, torch, tiny; from mmie.edits import attached; from mmie.model import load\n"
        "model, tokenizer = load(sys.argv[1], tiny.RUNTIME)\n"
        "tokens = torch.tensor([tokenizer(tiny.SAMPLE[1])['input_ids'][:20]])\n"
        "for card in sys.argv[2:]:\n"
        "    with attached(model, card), torch.no_grad():\n"
        "        print(hashlib.sha256(model(input_ids=tokens).logits.numpy().tobytes()).hexdigest())"
    )
    path = f"{ROOT / 'workflow_scripts'}:{ROOT / 'tests'}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_model), *map(str, cards)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.split() == here


# One by one


def test_what_is_held_out_is_tune_text_and_fewer_are_the_first_of_more(target, corpus):
    tune = set(corpus.loc[(corpus["split"] == "tune") & (corpus["language"] == "hi"), "text"])
    three = held_out(target, "hi", 3, seed=1)
    assert set(three) == tune and held_out(target, "hi", 2, seed=1) == three[:2]
    assert {tuple(held_out(target, "hi", 3, seed)) for seed in range(8)} != {tuple(three)}
    with pytest.raises(ValueError, match=r"asks for 4 texts in hi, and the tune split has 3.*data\.splits\.tune"):
        held_out(target, "hi", 4, 0)


def test_relearning_makes_its_texts_likelier_and_trains_on_top_of_the_edits(loaded, target, corpus):
    model, tokenizer = loaded
    (edit,) = attacked(target, "relearn", texts=3, steps=12, lr=0.01)
    assert edit.kind == "lora" and edit.facts["language"] == "hi"
    assert edit.facts["last_nll"] < edit.facts["first_nll"] - 0.3
    assert edit.layers == (0, 1, 2, 3)
    nll = {}
    for name, edits in (("plain", target.edits), ("attacked", [*target.edits, edit])):
        with attached_edits(model, edits):
            losses = []
            for text in held_out(target, "hi", 3, 0):
                ids = torch.tensor([tokenizer(text)["input_ids"][:32]])
                losses.append(float(torch.nn.functional.cross_entropy(logits(model, ids)[0, :-1], ids[0, 1:])))
            nll[name] = np.mean(losses)
    assert nll["attacked"] < nll["plain"] - 0.3
    roman = attacked(target, "relearn", script="roman")[0].facts
    english = attacked(target, "relearn_unrelated")[0].facts
    assert (roman["language"], english["language"]) == ("hi_latn", "en")


def test_relearning_depends_on_the_seed_and_on_nothing_global(target):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, again, other = (attacked(target, "relearn", seed)[0].tensors for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_a_script_that_the_language_lacks_is_refused(target):
    bare = Target(target.edits, target.corpus, {**DATA, "forget": {"native": "hi"}}, (1, 2), "package", target.load)
    for name in ("relearn", "steer"):
        with pytest.raises(ValueError, match=r"script: roman.*data\.forget"):
            attacked(bare, name, script="roman")


def test_the_steering_vector_is_the_difference_of_means_and_is_added(loaded, target, corpus):
    model, tokenizer = loaded
    means = []
    for language in ("hi", "en"):
        rows = corpus[(corpus["split"] == "train") & (corpus["language"] == language)]
        states = []
        for text in rows["text"]:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            with torch.no_grad():
                hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
            states.append(hidden[2][0, 1:].float().mean(0))
        means.append(torch.stack(states).mean(0))
    found = vectors(target, "hi", 100)
    assert sorted(found) == [1, 2]
    assert torch.allclose(found[1], means[0] - means[1], atol=1e-4)
    seen = []
    with attached_edits(model, [steering(1, found[1], float("inf"))]):
        layer = model.get_decoder().layers[1]
        handle = layer.register_forward_hook(lambda m, a, out: seen.append(out if torch.is_tensor(out) else out[0]))
        logits(model, ids)
        handle.remove()
    assert torch.allclose(seen[0][0] - hidden[2][0], found[1].expand_as(hidden[2][0]), atol=1e-4)


def test_steering_takes_the_layer_and_scale_that_bring_back_most(target, monkeypatch):
    from mmie import steering as module

    tried = []

    def scores(text, language, detector, data):
        return {"les": int(len(tried) == 3), "target_share": 0.0}

    def generate(*args, label, **kwargs):
        tried.append(label)
        return real(*args, label=label, **kwargs)

    real = module.generate
    monkeypatch.setattr(module, "scores", scores)
    monkeypatch.setattr(module, "generate", generate)
    (edit,) = attacked(target, "steer")
    assert tried == ["layer 1, scale 1", "layer 2, scale 1", "layer 1, scale 2", "layer 2, scale 2"]
    assert edit.layers == (1,) and edit.facts["scale"] == 2 and edit.facts["tune_les"] == 1
    assert edit.tensors["layer1.b"] == pytest.approx(2 * float(vectors(target, "hi", 4)[1].norm()), rel=1e-4)


def test_noise_acts_at_the_edited_layers(target):
    (edit,) = attacked(target, "noise", seed=5, scale=0.2)
    assert edit.layers == (1, 2, 3) and set(edit.facts["max_norm"]) == {"1", "2", "3"}
    assert (edit.facts["scale"], edit.facts["seed"]) == (0.2, 5)
    bare = Target([], target.corpus, DATA, (1, 2), "package", target.load)
    assert attacked(bare, "noise")[0].layers == (1, 2)


def test_merging_needs_something_to_weaken(target):
    assert attacked(target, "merge", factor=0.9)[0].facts == {"factor": 0.9}
    bare = Target([], target.corpus, DATA, (1, 2), "package", target.load)
    with pytest.raises(ValueError, match=r"attack merge.*its edits: none.*`arms`"):
        attacked(bare, "merge")


# What is measured


def test_an_attacked_model_is_paired_on_what_it_is_measured_on_and_on_all_of_it():
    keys = {"metric": "les", "language": "hi", "script": "", "layer": -1}
    rows = [
        {"arm": arm, "seed": 0, "variant": variant, "family": family, "unit_id": f"{family}{i}", "group_id": f"g{i}"}
        | {**keys, "value": 0.0}
        for arm, variant, families in (
            ("base", "plain", ("forget_native", "retain_en")),
            ("lora", "plain", ("forget_native", "retain_en")),
            ("lora", "rtn4", ("forget_native",)),
        )
        for family in families
        for i in range(3)
    ]
    table = pd.DataFrame(rows)
    metrics.check_paired(table)
    with pytest.raises(ValueError, match="lora, seed 0, rtn4 lacks 1"):
        metrics.check_paired(table.iloc[:-1])
    with pytest.raises(ValueError, match="lora, seed 0, plain lacks 3"):
        metrics.check_paired(
            table[~((table["variant"] == "plain") & (table["arm"] == "lora") & (table["family"] == "retain_en"))]
        )
    more = pd.concat([table, table.iloc[-1:].assign(unit_id="other")])
    with pytest.raises(ValueError, match="rtn4 has 1 units that base lacks"):
        metrics.check_paired(more)


def test_the_card_of_an_attack_reads_back_in_order(files):
    folder, main, settings = files
    card = folder / "read/merge/arm.json"
    main(card=str(card), variant="merge", settings={**settings, "attack": "merge", "params": {}})
    assert [edit.kind for edit in read_card(card)] == ["lora", "hook", "scale"]
