"""Partial reruns: what changes reruns exactly what depends on it."""

import signal
import subprocess
import time

import pytest

pytestmark = pytest.mark.xdist_group("workflow")  # one worker, so that the finished project is made once

AUDITED = {"probe", "score_comprehension", "look_inside", "transfer_sae"}  # of edited models that nobody attacked
AFTER_ARM = {"generate", "score_lid", "score_texts"} | AUDITED
JUDGEMENT = {"metrics", "gate", "figures", "audit", "report"}


def test_nothing_to_do_after_a_run(finished):
    assert finished.planned() == {}


def test_touching_every_file_of_code_reruns_nothing(finished):
    for pattern in ("*.py", "*.smk", "Snakefile"):
        for path in finished.folder.rglob(pattern):
            path.touch()
    assert finished.planned() == {}


def test_a_comment_or_a_docstring_reruns_nothing(finished):
    finished.edit("workflow_scripts/mmie/likelihood.py", '"""', '# a comment\n"""Another docstring. ')
    finished.edit("workflow_scripts/mmie/arms/lora.py", "NEEDS", "# what it trains on\nNEEDS")
    assert finished.planned() == {}


def test_an_edit_of_one_arm_reruns_that_arm(finished):
    with (finished.folder / "workflow_scripts/mmie/arms/grun.py").open("a") as end:
        end.write("\n\nEXTRA = 1\n")
    planned = finished.planned()
    assert set(planned) == {"unlearn"} | AFTER_ARM | JUDGEMENT
    assert all(count == 1 for count in planned.values())
    per_arm = {
        path.split("/")[2] for path in finished.planned_outputs() if path.startswith(("results/ad", "results/ge"))
    }
    assert {"grun"} == per_arm - {"tests.parquet", "decision.json"}


def test_an_edit_of_a_shared_module_reruns_its_users(finished):
    finished.edit("workflow_scripts/mmie/probes.py", "FOLDS = 5", "FOLDS = 4")
    planned = finished.planned()
    assert planned["probe"] == 6
    assert not {"unlearn", "train_sae", "fetch_model", "generate"} & set(planned)


def test_a_gate_margin_reruns_gate_and_report_only(finished):
    (finished.folder / "tests/extra.yaml").write_text("gate: {margins: {english: 1.02}}\n")
    assert set(finished.planned()) == {"gate", "figures", "report"}
    before = finished.hashes()
    finished.snakemake()
    after = finished.hashes()
    changed = {path.split("/")[1] for path in before if before[path] != after[path]}
    assert "gate" in changed and changed <= {"gate", "figures", "tables", "report.html"}


def test_a_new_seed_runs_only_its_jobs(finished):
    (finished.folder / "tests/extra.yaml").write_text("seeds: [0, 1]\n")
    planned = finished.planned()
    seeded = 5  # lora, reft, grun, sae_gate, random_gate
    expected = {
        **dict.fromkeys(AFTER_ARM, seeded + 1),
        "unlearn": seeded,
        **dict.fromkeys(AUDITED, seeded),
        "attack": 1,
    }
    assert {rule: planned[rule] for rule in expected} == expected
    assert set(planned) == set(expected) | JUDGEMENT


def test_a_new_arm_runs_only_its_jobs(finished):
    (finished.folder / "tests/extra.yaml").write_text(
        "arms: {lora_npo: {method: lora, objective: npo, layers: [1], steps: 2}}\n"
    )
    planned = finished.planned()
    assert set(planned) == {"unlearn"} | AFTER_ARM | JUDGEMENT
    assert planned["unlearn"] == planned["generate"] == 1


def test_a_new_attack_runs_only_its_jobs(finished):
    (finished.folder / "tests/extra.yaml").write_text("attacks: {half: {attack: merge, arms: [lora, grun]}}\n")
    planned = finished.planned()
    assert set(planned) == {"attack", "generate", "score_lid", "score_texts"} | JUDGEMENT
    assert planned["attack"] == planned["generate"] == planned["score_texts"] == 2


def test_an_edit_of_one_attack_reruns_that_attack(finished):
    with (finished.folder / "workflow_scripts/mmie/attacks/rtn.py").open("a") as end:
        end.write("\n\nEXTRA = 1\n")
    planned = finished.planned()
    assert set(planned) == {"attack", "generate", "score_lid", "score_texts"} | JUDGEMENT
    assert planned["attack"] == 2


def test_an_edit_of_an_arm_reruns_its_attacks(finished):
    with (finished.folder / "workflow_scripts/mmie/arms/lora.py").open("a") as end:
        end.write("\n\nEXTRA = 1\n")
    planned = finished.planned()
    assert set(planned) == {"unlearn", "attack"} | AFTER_ARM | JUDGEMENT
    assert (planned["unlearn"], planned["attack"], planned["generate"]) == (1, 1, 2)


def test_replicas_rerun_nothing_and_give_the_same_bytes(finished, finished_once):
    (finished.folder / "tests/extra.yaml").write_text("resources: {replicas: 2}\n")
    assert finished.planned() == {}
    again = ["results/generations/lora/seed0/plain.parquet", "results/activations/index.parquet"]
    printed = finished.snakemake(*again, "--force")
    assert printed.count("replicas on cpu, cpu") == 2
    for folder in ("results/generations", "results/activations"):
        assert finished.hashes(folder) == finished_once.hashes(folder)


def test_prompt_settings_rerun_generation_not_training(finished):
    (finished.folder / "tests/extra.yaml").write_text("prompts: {share: 0.6}\n")
    planned = finished.planned()
    assert planned["generate"] == 8 and not {"unlearn", "train_sae", "score_texts", "cache_activations"} & set(planned)


def test_a_killed_run_resumes_and_gives_the_same_bytes(fresh, finished_once):
    targets = ["results/generations/lora/seed0/plain.parquet", "results/sae/site1/features.parquet"]
    process = subprocess.Popen(
        fresh.command(*targets),
        cwd=fresh.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    waiting = fresh.folder / "results/activations/index.parquet"
    deadline = time.monotonic() + 240
    while not waiting.exists():
        assert process.poll() is None and time.monotonic() < deadline, "the run ended before it could be killed"
        time.sleep(0.2)
    time.sleep(1)
    import os

    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    refused = fresh.snakemake(*targets, fails=True)
    assert "--unlock" in refused
    subprocess.run(fresh.command("--unlock"), cwd=fresh.folder, check=True, capture_output=True)
    fresh.snakemake(*targets)
    expected = finished_once.hashes()
    found = fresh.hashes()
    assert set(targets) <= set(found)
    assert {path: digest for path, digest in found.items() if expected.get(path) != digest} == {}
