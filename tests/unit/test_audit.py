"""What the audit says has known answers: weak tasks, depths, privleak, flows; its files are always the same bytes."""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pytest

import audit as script
from metrics_tables import COLLAPSED, PERFECT
from mmie import audit, audit_tables, tables
from results_folder import DATA, write_results

ARMS = ["base", "lora", "broken"]
OUT = (
    "comprehension_figure", "comprehension_pdf", "inside_figure", "inside_pdf", "flow", "flow_pdf", "comprehension_csv",
    "membership_csv", "found",
)  # fmt: skip
IN = ("metrics", "reference", "prompts", "comprehension", "inside", "probes", "lid")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("results"), {"lora": PERFECT, "broken": COLLAPSED}, n=12, seeds=(0, 1))


def write_audit(inputs, folder):
    out = {name: str(folder / name) for name in OUT}
    script.main(**{name: inputs[name] for name in IN}, judge=[], **out, settings={"arms": ARMS, "data": DATA})
    return {name: Path(path) for name, path in out.items()}


def answers(arm, right, n=40, task="meaning", language="hi", options=4):
    return pd.DataFrame(
        {
            "arm": arm, "seed": 0, "variant": "plain", "task": task, "language": language, "options": options,
            "correct": [int(i < right) for i in range(n)],
        }
    )  # fmt: skip


def test_the_same_results_give_the_same_files(inputs, tmp_path):
    one, two = ({n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in write_audit(inputs, tmp_path / d).items()}
                for d in "ab")  # fmt: skip
    assert one == two
    captions = [table["caption"] for table in json.loads((tmp_path / "a" / "found").read_text(encoding="utf-8"))]
    assert len(captions) == 4 and captions[0].startswith("Comprehension")


def test_what_was_switched_off_leaves_a_figure_that_says_so(inputs, tmp_path):
    off = {**inputs, "comprehension": [], "inside": []}
    found = json.loads(write_audit(off, tmp_path)["found"].read_text(encoding="utf-8"))
    assert not any(table["caption"].startswith(("Comprehension", "Inside")) for table in found)


def test_a_task_on_which_base_guesses_says_nothing():
    parts = [answers("base", 36), answers("lora", 12), answers("base", 14, language="hi_latn"),
             answers("lora", 30, language="hi_latn"), answers("base", 17, task="cloze", language="mr")]  # fmt: skip
    found = audit.comprehension(pd.concat(parts)).set_index(["arm", "task", "language"])
    assert not found.loc[("lora", "meaning", "hi"), "weak"] and found.loc[("lora", "meaning", "hi"), "value"] == 0.3
    assert found.loc[("lora", "meaning", "hi_latn"), "weak"], "base finds 35 % of the meanings"
    assert not found.loc[("base", "cloze", "mr"), "weak"], "42 % of 40 is surely more than guessing"
    table = audit_tables.comprehension(found.reset_index(), ["base", "lora"], DATA)
    assert [row[-1] for row in table["rows"]] == ["yes", "too weak to tell", "yes"]
    assert table["rows"][2][2] == "–"


def test_depth_is_the_layer_after_the_last_that_brings_it_back():
    def masses(arm, values):
        return pd.DataFrame(
            {"arm": arm, "seed": 0, "variant": "plain", "measure": "patched", "layer": range(5), "mass": values}
        )

    parts = [
        masses("base", [0.8] * 5),
        masses("gone", [0.8, 0.8, 0.1, 0.1, 0.0]),
        masses("never", [0.8, 0.1, 0.8, 0.8, 0.5]),
    ]
    parts += [masses("at_once", [0.1] * 5)]
    assert audit.depths(pd.concat(parts)) == {"at_once": 0, "base": None, "gone": 2, "never": None}


def test_privleak_is_nought_for_a_model_that_never_saw_the_canaries(inputs):
    metrics, reference = (
        tables.read(inputs["metrics"], tables.METRICS),
        tables.read(inputs["reference"], tables.REFERENCE),
    )
    found = audit.membership(metrics, reference, ARMS).set_index(["arm", "seed", "attack"])
    assert found.loc[("base", 0, "loss"), "privleak"] == pytest.approx(
        found.loc[("base", 0, "loss"), "auc"] / 0.5 - 1, abs=0.05
    )
    assert abs(found.loc[("lora", 0, "loss"), "privleak"]) < 0.2 < found.loc[("base", 0, "loss"), "privleak"]
    assert pd.isna(found.loc[("base", 0, "reference"), "privleak"])
    assert (found["low"] <= found["auc"]).all() and (found["auc"] <= found["high"]).all()


def test_flows_pair_an_arm_with_base_prompt_by_prompt():
    lid = pd.DataFrame(
        [
            {"arm": arm, "seed": 0, "variant": "plain", "prompt_id": f"p{i}", "sample": 0, "language": language}
            for arm, spoken in (("base", ["hi", "hi", "en", "hi"]), ("lora", ["en", "hi", "en", "mr"]))
            for i, language in enumerate(spoken)
        ]
    )
    prompts = pd.DataFrame({"prompt_id": ["p0", "p1", "p2", "p3"], "family": ["forget_native"] * 3 + ["mixed"]})
    found = audit.flows(lid, prompts, ["forget_native"])
    lora = found[found["arm"] == "lora"].set_index(["before", "after"])["share"].to_dict()
    assert lora == pytest.approx({("hi", "en"): 1 / 3, ("hi", "hi"): 1 / 3, ("en", "en"): 1 / 3})
