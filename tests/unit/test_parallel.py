"""Replicas of the model side by side: the same results whatever their number, one clear error, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import torch

import tiny
from generate import main
from mmie import tables
from mmie.batches import by_length
from mmie.edits import Edit, save_card
from mmie.parallel import Replicas, devices_of
from mmie.parallel_generation import continuations

SETTINGS = {
    "temperature": 0.8, "top_k": 20, "draw_seed": 3, "max_new_tokens": 6, "batch_size": 3, "batch_tokens": 200,
    "families": None, "arm": "reft", "seed": 0, "variant": "plain",
}  # fmt: skip


@pytest.fixture
def card(tmp_path) -> Path:
    """A run whose edit changes what the model says."""
    direction = torch.nn.functional.normalize(torch.ones(1, 64), dim=-1)
    parts = {"R": direction, "W": direction.clone(), "b": torch.tensor([30.0]), "max_norm": torch.tensor([1e9])}
    save_card(tmp_path / "arm.json", [Edit("hook", (2,), {f"layer2.{k}": v for k, v in parts.items()})], "reft", 0)
    return tmp_path / "arm.json"


def test_two_replicas_write_the_bytes_of_one(tmp_path, tiny_model, card):
    texts = [text[: 10 + 7 * i] for i in range(4) for text in tiny.SAMPLE]
    prompts = [
        {"prompt_id": f"p{i}", "family": "forget_native", "language": "hi", "script": "Deva", "doc_id": f"d{i}",
         "group_id": f"g{i}", "attack": "", "text": text}
        for i, text in enumerate(texts)
    ]  # fmt: skip
    known = set(tables.PROMPTS.names)
    tables.write([{k: v for k, v in row.items() if k in known} for row in prompts], tmp_path / "p", tables.PROMPTS)
    written = []
    for replicas in (1, 2):
        out = tmp_path / f"{replicas}.parquet"
        main(str(tiny_model), str(tmp_path / "p"), str(card), str(out), SETTINGS, tiny.RUNTIME, replicas)
        written.append(out.read_bytes())
    assert written[0] == written[1]
    said = tables.read(tmp_path / "1.parquet", tables.GENERATIONS)
    assert list(said.prompt_id) == [f"p{i}" for i in range(len(texts))] and said.text.nunique() > 10


def test_batches_of_a_part_are_those_of_the_whole():
    """What a replica is given as one batch stays one when `generate` makes batches of it."""
    lengths = [3, 9, 9, 4, 30, 8, 8, 7, 2, 2, 5, 40, 6]
    for batch in by_length(lengths, 32, 4):
        assert by_length([lengths[i] for i in batch], 32, 4) == [list(range(len(batch)))]


def test_the_error_of_a_replica_is_the_only_one_and_ends_them_all(tiny_model, card):
    prompts = [*tiny.SAMPLE, tiny.SAMPLE[0] * 60]
    with pytest.raises(ValueError, match="exceed the model's context of 512"):
        continuations(tiny_model, tiny.RUNTIME, card, prompts, SETTINGS, replicas=2)
    assert not alive()


@contextmanager
def dealing(device):
    """A replica that does to itself what it is asked to; module level, so that its process can import it."""

    def work(item):
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "bug":
            raise KeyError("no such thing")
        if item == "wait":
            time.sleep(600)
        return os.getpid()

    yield work


def alive() -> list[psutil.Process]:
    """Replicas of this process that run; the tracker of shared resources is none."""
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


@pytest.mark.parametrize(
    ("item", "error", "says"),
    [("die", ValueError, "has ended .SIGKILL."), ("bug", RuntimeError, "no such thing")],
)
def test_a_replica_that_dies_or_has_a_bug_takes_the_others_with_it(item, error, says):
    started = time.monotonic()
    with pytest.raises(error, match=says), Replicas(["cpu", "cpu"], dealing) as replicas:
        list(replicas.map(["wait", item]))
    assert not alive() and time.monotonic() - started < 60


def test_every_item_is_done_once_and_by_all_and_again():
    with Replicas(["cpu", "cpu"], dealing) as replicas:
        first, second = dict(replicas.map(range(40))), dict(replicas.map("ab"))
    assert sorted(first) == list(range(40)) and sorted(second) == [0, 1]
    assert set(second.values()) <= set(first.values()) and not alive()


def test_no_replica_outlives_a_job_that_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from test_parallel import dealing\n"
        "from mmie.parallel import Replicas\n"
        "if __name__ == '__main__':\n"
        "    with Replicas(['cpu', 'cpu'], dealing) as replicas:\n"
        "        list(replicas.map(['start', 'start']))\n"
        "        print('started', flush=True)\n"
        "        list(replicas.map(['wait', 'wait']))\n"
    )
    job = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None and job.stdout.readline() == "started\n"
    replicas = [p for p in psutil.Process(job.pid).children() if "spawn_main" in " ".join(p.cmdline())]
    assert len(replicas) == 2
    job.kill()
    job.wait()
    assert not psutil.wait_procs(replicas, timeout=30)[1]


def test_devices():
    assert devices_of("cpu", 1) == ["cpu"] and devices_of("cpu", 3) == ["cpu"] * 3
    if torch.cuda.device_count() < 9:
        with pytest.raises(ValueError, match=r"needs as many CUDA devices|torch sees no CUDA device"):
            devices_of("cuda", 9)
