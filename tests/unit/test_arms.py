"""Arms as the config names them: what is accepted, what it expands to, and that reading it loads no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmie.arms import available_arms, check_arms, configurations, describe, load_arm, make_params, sweeps

ROOT = Path(__file__).parents[2]


def test_every_module_of_the_folder_is_an_arm():
    expected = ["base", "crisp", "diff_means", "dsg", "grun", "grun_sae", "lape", "leace", "lora", "prompt"]
    assert available_arms() == [*expected, "random_gate", "reft", "sae_gate", "unlearn_subspace"]
    for name in available_arms():
        arm = load_arm(name)
        assert {"activations", "sae"} >= arm.NEEDS
        assert isinstance(arm.SEEDED, bool)
        assert make_params(name, {}) == arm.Params()


def test_the_default_arms_are_accepted_with_base_first():
    found = check_arms({"lora": {}, "base": {}, "grun": {}, "sae_gate": {}})
    assert list(found) == ["base", "lora", "grun", "sae_gate"]
    assert found["base"] == {"entry": "base", "method": "base", "params": {}, "needs": [], "seeded": False}
    assert found["grun"]["needs"] == ["activations"]
    assert found["sae_gate"]["needs"] == ["activations", "sae"] and found["sae_gate"]["seeded"] is True


def test_params_hold_only_what_the_config_gives():
    found = check_arms({"base": {}, "gentle": {"method": "lora", "lr": 1e-4}})
    expected = {"entry": "gentle", "method": "lora", "params": {"lr": 1e-4}, "needs": [], "seeded": True}
    assert found["gentle"] == expected


def test_a_sweep_makes_one_arm_per_combination():
    found = check_arms({"base": {}, "lora": {"rank": 4, "sweep": {"lr": [0.001, 1e-5], "steps": [10]}}})
    assert list(found) == ["base", "lora-lr0.001-steps10", "lora-lr1e-05-steps10"]
    assert found["lora-lr0.001-steps10"]["params"] == {"rank": 4, "lr": 0.001, "steps": 10}
    assert found["lora-lr0.001-steps10"]["method"] == "lora"


def test_a_sweep_is_known_by_its_entry_and_counted_by_its_method():
    swept = {"rank": 4, "sweep": {"lr": [0.001, 0.002]}}
    found = check_arms({"base": {}, "lora": swept, "gentle": {"method": "lora"}, "reft": {}})
    assert sweeps(found) == {"lora": {"lora-lr0.001": "lr0.001", "lora-lr0.002": "lr0.002"}}
    assert configurations(found, {}) == {"lora": 3, "reft": 1}
    assert configurations(found, {"reft": 8, "lora": 2, "grun": 1}) == {"grun": 1, "lora": 3, "reft": 8}
    with pytest.raises(ValueError, match=r"tune.tried.loar.*Did you mean 'lora'"):
        configurations(found, {"loar": 2})


def test_lists_become_tuples_and_whole_numbers_floats():
    params = make_params("lora", {"layers": [1, 2], "lr": 1})
    assert params.layers == (1, 2)
    assert isinstance(params.lr, float)


@pytest.mark.parametrize(
    ("arms", "says"),
    [
        ({"lora": {}}, "`base: {}` is missing"),
        ({"base": {}, "lorra": {}}, r"arms.lorra.*Did you mean 'lora'"),
        ({"base": {}, "x": {"method": "gruns"}}, r"arms.x.*unknown method 'gruns'.*Did you mean 'grun'"),
        ({"base": {}, "lora": {"rnak": 4}}, r"arms.lora.rnak.*Did you mean 'rank'"),
        ({"base": {"lr": 1.0}}, r"arms.base.lr.*has no parameters"),
        ({"base": {}, "lora": {"rank": "4"}}, r"arms.lora.rank.*'4'.*whole number"),
        ({"base": {}, "lora": {"rank": 4.0}}, r"arms.lora.rank.*4.0.*whole number"),
        ({"base": {}, "lora": {"steps": True}}, r"arms.lora.steps.*True"),
        ({"base": {}, "lora": {"lr": "1e-3"}}, r"arms.lora.lr.*YAML reads 1e-3 as a word: write 0.001"),
        ({"base": {}, "lora": {"lr": 0}}, r"arms.lora.lr: 0.0.*above 0"),
        ({"base": {}, "lora": {"lr": float("nan")}}, r"arms.lora.lr: nan"),
        ({"base": {}, "lora": {"layers": [3, 1]}}, r"arms.lora.layers: \[3, 1\].*increasing"),
        ({"base": {}, "lora": {"layers": 3}}, r"arms.lora.layers.*a list of int"),
        ({"base": {}, "lora": {"layers": []}}, r"arms.lora.layers: \[\]"),
        ({"base": {}, "lora": {"modules": []}}, r"arms.lora.modules"),
        (
            {"base": {}, "lora": {"objective": "ascent"}},
            r"arms.lora.objective: 'ascent'.*redirect, graddiff, npo, simnpo, rmu",
        ),
        ({"base": {}, "crisp": {"objective": "redirect"}}, r"arms.crisp.objective: 'redirect'.*one of suppress"),
        ({"base": {}, "dsg": {"percentile": 100}}, r"arms.dsg.percentile: 100.0"),
        ({"base": {}, "grun_sae": {"selector": "best"}}, r"arms.grun_sae.selector: 'best'.*fisher"),
        ({"base": {}, "lora": {"retain": "none"}}, r"arms.lora.retain: 'none'.*kl, ce, states"),
        ({"base": {}, "lora": {"scripts": "latin"}}, r"arms.lora.scripts: 'latin'.*both, native, roman"),
        ({"base": {}, "lora": {"schedule": "step"}}, r"arms.lora.schedule: 'step'.*linear, constant, cosine"),
        ({"base": {}, "lora": {"patience": -1}}, r"arms.lora.patience: -1.*at least 0"),
        ({"base": {}, "reft": {"retain": "states", "state_layer": 6}}, r"arms.reft.state_layer: 6 lies below 9"),
        ({"base": {}, "lora": {"steps": 0}}, r"arms.lora.steps: 0.*at least 1"),
        ({"base": {}, "lora": None}, r"arms.lora` is empty"),
        ({"base": {}, "lora": 3}, r"arms.lora.*not a mapping"),
        ({"base": {}, "LoRA": {"method": "lora"}}, r"'LoRA'.*lower-case"),
        ({"base": {}, "other": {"method": "base"}}, r"belong together"),
        ({"base": {}, "lora": {"sweep": {"lr": 0.1}}}, r"arms.lora.sweep"),
        ({"base": {}, "lora": {"sweep": {"layers": [[1], [2]]}}}, r"arms.lora.sweep"),
        ({"base": {}, "lora": {"lr": 0.1, "sweep": {"lr": [0.1]}}}, r"lr is given and swept"),
        ({"base": {}, "lora": {"sweep": {"lr": [0.1]}}, "lora-lr0.1": {"method": "lora"}}, r"two arms"),
        ({"base": {}, "lora": {"sweep": {"lrr": [0.1]}}}, r"lrr.*Did you mean 'lr'"),
        ({"base": {}, "random_gate": {"selector": "best"}}, r"arms.random_gate.selector: 'best'"),
        ({"base": {}, "sae_gate": {"scale": float("inf")}}, r"arms.sae_gate.scale: inf"),
    ],
)
def test_a_wrong_config_is_refused_with_key_value_and_remedy(arms, says):
    with pytest.raises(ValueError, match=says):
        check_arms(arms)


def test_every_parameter_of_every_arm_has_a_meaning():
    for name in available_arms():
        for row in describe(name):
            assert row["meaning"].endswith("."), f"{name}.{row['name']}"


def test_checking_the_arms_loads_neither_torch_nor_pandas():
    code = (
        "import sys; from mmie.arms import check_arms;"
        "check_arms({n: {} for n in ['base', 'lora', 'reft', 'grun', 'sae_gate', 'random_gate']});"
        "print([m for m in ('torch', 'transformers', 'peft', 'pyreft', 'sae_lens', 'pandas', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow_scripts", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
