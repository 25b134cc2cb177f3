"""Bad input ends a run at once, with one clear error, and loses nothing."""

import shutil
import subprocess
import time

import pytest

pytestmark = pytest.mark.xdist_group("workflow")  # one worker, so that the finished project is made once


@pytest.mark.parametrize(
    "overlay, message",
    [
        ("arms: {lroa: {}}", "Did you mean 'lora'"),
        ("arms: {lora: {rnak: 4}}", "rnak"),
        ("arms: {lora: {rank: many}}", "arms.lora"),
        ("arms: {lora: null}", "`arms.lora` is empty"),
        ("attacks: {rtm: {}}", "Did you mean 'rtn'"),
        ("attacks: {rtn: {bits: 3}}", "attacks.rtn.bits"),
        ("attacks: {rtn4: null}", "`attacks.rtn4` is empty"),
        ("gate: {alhpa: 0.1}", "Did you mean `alpha`"),
        ("data: {corpus: absent.jsonl}", "no such file"),
        ("model: {name: absent}", "no model folder"),
    ],
)
def test_a_bad_config_is_refused_while_parsing(fresh, overlay, message):
    (fresh.folder / "tests/extra.yaml").write_text(overlay + "\n")
    printed = fresh.snakemake("--dry-run", fails=True)
    assert message in printed and "Traceback" not in printed


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda lines: [], "empty"),
        (lambda lines: [lines[0], *lines], "group_id"),
        (lambda lines: [lines[0].replace('"pa": "', '"pa": "", "x_pa": "'), *lines[1:]], "pa"),
        (lambda lines: [lines[0][:-30], *lines[1:]], "line 1"),
    ],
    ids=["empty", "duplicate id", "missing language", "broken line"],
)
def test_a_bad_corpus_is_refused_by_the_first_rule(fresh, spoil, message):
    corpus = fresh.folder / "data/corpus.jsonl"
    corpus.write_text("\n".join(spoil(corpus.read_text(encoding="utf-8").splitlines())) + "\n", encoding="utf-8")
    printed = fresh.snakemake("results/data/corpus.parquet", fails=True)
    assert "corpus.jsonl" in printed and message in printed
    assert not (fresh.folder / "results/data/corpus.parquet").exists()


def test_a_corpus_that_is_not_utf8_is_refused(fresh):
    corpus = fresh.folder / "data/corpus.jsonl"
    corpus.write_bytes(corpus.read_bytes()[:2000] + b"\xff\xfe" + corpus.read_bytes()[2000:])
    printed = fresh.snakemake("results/data/corpus.parquet", fails=True)
    assert "UTF-8" in printed and "corpus.jsonl" in printed


def test_a_prompt_longer_than_the_context_is_refused_before_any_model_runs(fresh):
    (fresh.folder / "tests/extra.yaml").write_text("generation: {max_new_tokens: 5000}\n")
    printed = fresh.snakemake("results/data/prompts.parquet", fails=True)
    assert "context" in printed and "max_new_tokens" in printed


@pytest.mark.parametrize("path", ["results/data/prompts.parquet", "results/model/model.safetensors"])
def test_a_truncated_artifact_is_named(finished, path):
    """The next job that reads it says which file is broken; what existed stays."""
    broken = finished.folder / path
    broken.write_bytes(broken.read_bytes()[:-100])
    target = "results/generations/base/seed0/plain.parquet"
    printed = finished.snakemake(target, "--forcerun", "generate", "--rerun-triggers", "params", fails=True)
    assert broken.name in printed and "elete" in printed


def test_a_missing_artifact_is_made_again(finished):
    (finished.folder / "results/metrics.parquet").unlink()
    assert "metrics" in finished.planned("results/metrics.parquet")


def test_two_runs_in_one_directory_are_refused(fresh):
    first = subprocess.Popen(
        fresh.command(), cwd=fresh.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        locks = fresh.folder / ".snakemake/locks"
        deadline = time.monotonic() + 120
        while not (locks.exists() and any(locks.iterdir())):
            assert first.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        assert "cannot be locked" in fresh.snakemake(fails=True)
    finally:
        first.terminate()
        first.wait()


def test_no_space_left_is_said(monkeypatch):
    from mmie import stage

    error = OSError(28, "No space left on device", "results/x.parquet")
    assert "no space left" in stage._readable(error) and "results/x.parquet" in stage._readable(error)
    assert shutil.disk_usage("/").free > 0
