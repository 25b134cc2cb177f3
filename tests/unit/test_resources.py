"""What jobs ask a scheduler for."""

import copy
import re
from pathlib import Path

import pytest
import yaml

from mmie import resources

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def default():
    return yaml.safe_load((ROOT / "config.yaml").read_text())


@pytest.fixture(scope="module")
def qwen(default):
    config = copy.deepcopy(default)
    for key, value in yaml.safe_load((ROOT / "configs/qwen2.5-1.5b.yaml").read_text()).items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    return config


def test_every_rule_asks_for_its_own_stage():
    asked = set()
    for path in (ROOT / "rules").glob("*.smk"):
        for body in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            rule = body.split(":")[0]
            assert f'mem_mb=memory("{rule}"),' in body and f'runtime=minutes("{rule}"),' in body, rule
            assert ("gpu=GPU" in body) == (rule in resources.LARGE and rule != "fetch_model"), rule
            asked.add(rule)
    assert asked == set(resources.SMALL) | set(resources.LARGE)


def test_a_gpu_is_asked_for_only_when_one_is_configured(default, qwen):
    assert resources.gpus(default) == 0 and resources.gpus(qwen) == 1


def test_replicas_have_a_gpu_and_memory_each_and_a_spread_model_has_several(qwen):
    several = {**qwen, "resources": {**qwen["resources"], "replicas": 4}}
    # 4 × 10676, and the process that gives out the work
    assert resources.mem_mb("generate", several) == 44500
    assert resources.mem_mb("unlearn", several) == resources.mem_mb("unlearn", qwen)
    assert resources.gpus(several) == 1, "the rules that run replicas ask for a GPU for each"
    assert resources.gpus({**qwen, "resources": {**qwen["resources"], "gpus": 4}}) == 4
    for path in (ROOT / "rules").glob("*.smk"):
        for body in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            replicated = body.split(":")[0] in resources.REPLICATED
            assert ("replicas=REPLICAS," in body) == ("gpu=GPU * REPLICAS," in body) == replicated


def test_the_arithmetic_of_memory(default, qwen):
    # 1500 + 14 × 268 = 5252, to the next 500
    assert resources.mem_mb("generate", default) == 5500
    # 1500 + 3000 + 4 × 1544 = 10676
    assert resources.mem_mb("generate", qwen) == 11000
    # and 2 × 24576 × 1536 weights of 16 bytes, 4096 × 24576 of 24, and a buffer of 2^18 × 1536 of 4: 1208 + 2415 + 1610
    assert resources.mem_mb("train_sae", qwen) == 16000
    assert resources.mem_mb("corpus", default) == resources.mem_mb("corpus", qwen) == 1000


def test_what_was_measured_fits(default):
    """Peaks of the default model on a CPU, MB, and seconds with 60 held-out groups."""
    for stage, peak, seconds in [
        ("fetch_model", 1101, 44),
        ("plant_canaries", 3508, 112),
        ("cache_activations", 1652, 28),
        ("train_sae", 2951, 24),
        ("unlearn", 2023, 38),
        ("generate", 3772, 94 / 60 * 200),
        ("score_texts", 3074, 85 / 60 * 200),
    ]:
        assert resources.mem_mb(stage, default) > peak
        assert resources.runtime(stage, default) * 60 > 4 * seconds


@pytest.mark.parametrize("stage", [*resources.SMALL, *resources.LARGE])
def test_the_next_attempt_asks_for_as_much_again(default, stage):
    for asked in (resources.mem_mb, resources.runtime):
        assert asked(stage, default, 2) == 2 * asked(stage, default, 1)
        assert asked(stage, default, 3) == 3 * asked(stage, default, 1)


def test_the_gates_memory_grows_with_its_table(default):
    """Measured: 2500 MB for 10 arms × 10 seeds × 2000 groups, 31 million rows (tests/bench/gate.py)."""
    arms = {"base": None, "lora": {"sweep": {"lr": [1e-3, 1e-4, 1e-5], "steps": [1, 2, 3]}}}
    splits = {**default["data"]["splits"], "test": 2000}
    large = {**default, "arms": arms, "seeds": list(range(10)), "data": {**default["data"], "splits": splits}}
    assert resources.mem_mb("gate", default) == 2500
    # 2000 + 100 × 10 × 10 × 2000 × 180 / 10⁶ = 5600, to the next 500
    assert resources.mem_mb("gate", large) == 6000
    assert resources.mem_mb("gate", {**large, "attacks": {name: {} for name in "abcd"}}) == 9500


def test_more_work_gets_more_time(default):
    larger = {**default, "resources": {**default["resources"], "parameters_million": 2680}}
    longer = {**default, "data": {**default["data"], "splits": {"train": 240, "tune": 40, "test": 2000}}}
    assert resources.runtime("unlearn", larger) > 5 * resources.runtime("unlearn", default)
    assert resources.runtime("generate", longer) > 5 * resources.runtime("generate", default)
    assert resources.runtime("unlearn", longer) == resources.runtime("unlearn", default)
