"""The config is refused with the key, the value and the remedy, before anything starts."""

import copy
import json

import pytest
import yaml

from mmie.config import PROJECT, SCHEMA, canonical, check_config

DEFAULT = yaml.safe_load((PROJECT / "config.yaml").read_text())


def changed(path: str, value):
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    section = config
    for key in parents:
        section = section[key]
    section[last] = value
    return config


@pytest.mark.parametrize(
    ("sae", "says"),
    [
        ({"source": "pretrained", "ids": {"6": "a", "9": "b", "12": "c", "15": "d"}}, r"sae\.release: None"),
        ({"release": "gemma-scope-2-270m-pt-res"}, r"sae\.release: gemma.*others none"),
        ({"ids": {"12": "x"}}, r"`sae\.ids` names autoencoders"),
        ({"source": "pretrained", "release": "r", "ids": {"12": "x"}}, r"`sae\.ids\.6` is missing"),
        ({"source": "local", "ids": {"6": "nowhere"}}, r"`sae\.ids\.6: nowhere`: no SAELens folder"),
        ({"architecture": "gated"}, r"sae\.architecture.*'gated' is not one of"),
    ],
)
def test_autoencoders_that_cannot_be_had_are_refused(sae, says):
    config = copy.deepcopy(DEFAULT)
    config["sae"] |= sae
    with pytest.raises(ValueError, match=says):
        check_config(config)


def test_the_default_config_is_valid_and_agrees_with_the_schema_defaults():
    check_config(copy.deepcopy(DEFAULT))

    def walk(schema, config, where):
        if schema.get("additionalProperties") is False and "default" not in schema:
            assert set(schema["properties"]) == set(config), where
            for key, sub in schema["properties"].items():
                assert sub.get("description"), f"{where}.{key} has no description"
                walk(sub, config[key], f"{where}.{key}")
        else:
            assert schema["default"] == config, where

    walk(json.loads(SCHEMA.read_text()), DEFAULT, "config")


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("gate.alhpa", 0.05, r"unknown key `gate\.alhpa`.*Did you mean `alpha`"),
        ("mdoel", {}, r"unknown key `mdoel`.*Did you mean `model`"),
        ("seeds", "0", r"`seeds`"),
        ("seeds", [0, 0], r"`seeds`"),
        ("seeds", [-1], r"`seeds\.0`"),
        ("model.dtype", "fp8", r"`model\.dtype`.*fp8"),
        ("model.device", "tpu", r"`model\.device`.*tpu"),
        ("gate.alpha", 2, r"`gate\.alpha`"),
        ("gate.margins.english", 0.9, r"`gate\.margins\.english`"),
        ("arms.lora", None, r"`arms\.lora` is empty.*defaults.*leave it out"),
        ("sae", None, r"`sae` is empty"),
        ("data.corpus", "absent.jsonl", r"`data\.corpus: absent\.jsonl`: no such file"),
        ("data.retain", "fr", r"`data\.retain`.*'fr' is not a language"),
        ("data.unseen", ["ur"], r"'ur' has two roles"),
        ("layers.count", 9, r"`layers\.count: 9` is more"),
        ("generation.max_new_tokens", 4, r"max_new_tokens"),
        ("model.device_map", "balanced", r"`model\.device_map: balanced`.*`model\.device: cuda`.*`resources\.gpus`"),
        ("resources.gpus", 4, r"`resources\.gpus: 4`: without `model\.device_map`"),
        ("resources.replicas", 0, r"`resources\.replicas`"),
    ],
)
def test_a_bad_value_is_refused(path, value, message):
    with pytest.raises(ValueError, match=message):
        check_config(changed(path, value))


def test_unknown_model_folder_is_refused():
    config = changed("model.source", "local")
    config["model"]["name"] = "absent"
    with pytest.raises(ValueError, match=r"model\.name: absent.*no model folder"):
        check_config(config)


def test_a_hub_model_needs_a_revision():
    with pytest.raises(ValueError, match=r"model\.revision"):
        check_config(changed("model.source", "hub"))


def test_replicas_and_a_spread_model_exclude_each_other():
    config = changed("model", {**DEFAULT["model"], "device": "cuda", "device_map": "balanced"})
    config["resources"] |= {"gpus": 4}
    check_config(config)
    config["resources"]["replicas"] = 2
    with pytest.raises(ValueError, match=r"choose one of them"):
        check_config(config)
    config["model"] |= {"device_map": "none", "device": "cuda:1"}
    config["resources"]["gpus"] = 1
    with pytest.raises(ValueError, match=r"need a GPU each"):
        check_config(config)
    config["model"]["device"] = "cuda"
    check_config(config)


def test_all_errors_come_at_once():
    config = changed("seeds", "0")
    config["gate"]["alpha"] = 7
    with pytest.raises(ValueError, match=r"(?s)gate\.alpha.*seeds"):
        check_config(config)


def test_false_leaves_an_arm_out():
    assert "grun" not in check_config(changed("arms.grun", False))["arms"]


def test_canonical_ignores_order_and_keeps_values():
    assert canonical({"b": 1, "a": [1, 2]}) == canonical({"a": [1, 2], "b": 1}) != canonical({"a": [2, 1], "b": 1})
