"""Making the cache: from where a killed job stopped, with the disk it needs, and with the memory of a small one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cache_activations
import growing
from mmie import activations, caching, tables
from mmie.caching import Work, make
from mmie.model import load
from tiny import RUNTIME, make_tiny_model

SETTINGS = {"batch_tokens": 256, "chunk_texts": 20}


@pytest.fixture(scope="module")
def given(tiny_model, tmp_path_factory):
    """A folder with a corpus of 30 groups, the model, and its tokenizer."""
    folder = tmp_path_factory.mktemp("given")
    growing.write_corpus(folder / "corpus.parquet", 30, 4)
    return folder, *load(tiny_model, RUNTIME)


def made(given, folder, storage="bf16", belongs=None):
    folder.mkdir(exist_ok=True)
    source, model, tokenizer = given
    paths = {n: str(folder / f"layer{n}.safetensors") for n in growing.LAYERS}
    work = Work(folder / ".work/cache", belongs or {"corpus": "a"})
    return make(
        model, tokenizer, source / "corpus.parquet", paths, folder / "index.parquet", work, 256, storage, code="c"
    )


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(activations, "CHUNK_TEXTS", 20)


class Killed(Exception):
    pass


def killed_after(monkeypatch, chunks):
    """The process ends in the middle of the chunk after these."""
    real, done = caching.fill, []

    def fill(model, pad, ids, into, batch_tokens, first=0, passes=None):
        if len(done) == chunks:
            real(model, pad, ids[: len(ids) // 2], into, batch_tokens, first)
            raise Killed
        done.append(True)
        real(model, pad, ids, into, batch_tokens, first, passes)

    monkeypatch.setattr(caching, "fill", fill)
    return real


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_a_cache_goes_on_from_its_last_whole_chunk(given, tmp_path, monkeypatch, caplog, small_chunks, storage):
    caplog.set_level(logging.INFO, "mmie")
    whole = made(given, tmp_path / "whole", storage)
    real = killed_after(monkeypatch, 3 + (storage == "int8"))  # 8 bits take one pass more, for their scales
    with pytest.raises(Killed):
        made(given, tmp_path / "again", storage)
    assert [path.name for path in (tmp_path / "again").iterdir()] == [".work"]
    ran = []
    monkeypatch.setattr(caching, "fill", lambda *a, **k: ran.append(a[5]) or real(*a, **k))
    caplog.clear()
    again = made(given, tmp_path / "again", storage)
    assert "going on after chunk 3: 60 of 150 texts" in caplog.text
    assert len(ran) == 5 and min(ran) > 0  # of eight chunks
    assert again.equals(whole)
    assert not (tmp_path / "again/.work").exists()
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


def test_the_beginning_of_another_cache_is_thrown_away(given, tmp_path, monkeypatch, caplog, small_chunks):
    caplog.set_level(logging.INFO, "mmie")
    real = killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        made(given, tmp_path, belongs={"corpus": "a", "settings": 1})
    ran = []
    monkeypatch.setattr(caching, "fill", lambda *a, **k: ran.append(True) or real(*a, **k))
    made(given, tmp_path, belongs={"corpus": "a", "settings": 2})
    assert "beginning of another cache (other settings): starting over" in caplog.text
    assert len(ran) == 8


def test_a_working_folder_that_lacks_a_file_is_thrown_away(given, tmp_path, monkeypatch, caplog, small_chunks):
    caplog.set_level(logging.INFO, "mmie")
    real = killed_after(monkeypatch, 3)
    with pytest.raises(Killed):
        made(given, tmp_path)
    monkeypatch.setattr(caching, "fill", real)
    (tmp_path / ".work/cache/layer1.safetensors").unlink()
    made(given, tmp_path)
    assert "lacks layer1.safetensors: starting over" in caplog.text
    assert (tmp_path / "layer1.safetensors").exists()


@pytest.mark.parametrize(("storage", "remedy"), [("bf16", r"storage: int8"), ("int8", r"layers\.candidates`\)\.")])
def test_too_little_disk_is_said_before_the_model_runs(given, tmp_path, monkeypatch, storage, remedy):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 4096, 4096))
    monkeypatch.setattr(caching, "fill", lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=rf"\.work.* needs .* MiB more .* tokens × 2 layers .* free there.*{remedy}"):
        made(given, tmp_path, storage)


def test_the_table_says_what_storing_has_cost(given, tmp_path):
    bf16, int8 = (made(given, tmp_path / storage, storage) for storage in ("bf16", "int8"))
    for table in (bf16, int8):
        tables.write(table, tmp_path / "storage.parquet", tables.STORAGE)
        assert table["layer"].tolist() == growing.LAYERS
    assert (bf16["relative_error"] < 2**-8).all() and (int8["relative_error"] < 0.02).all()
    assert (int8["variance_lost"] > bf16["variance_lost"]).all()
    for table, storage in ((bf16, "bf16"), (int8, "int8")):
        size = (tmp_path / storage / "layer1.safetensors").stat().st_size
        assert 0 < size - table["bytes"].iloc[1] < 400


def run(*arguments, **options):
    command = [sys.executable, str(Path(growing.__file__)), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def finished(process):
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1]), err


on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads its memory from Linux's /proc")


@on_linux
def test_a_killed_process_goes_on_and_gives_the_same_bytes(tiny_model, tmp_path):
    settings = json.dumps({**SETTINGS, "storage": "bf16"})
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        growing.write_corpus(tmp_path / name / "corpus.parquet", 30, 4)
    finished(run("cache", tmp_path / "whole", tiny_model, settings))
    process = run("cache", tmp_path / "killed", tiny_model, settings, 1)  # a second of rest after each chunk
    journal, deadline = tmp_path / "killed/.work/cache/journal.json", time.monotonic() + 60
    while not (journal.exists() and json.loads(journal.read_text())["chunks"] >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    chunks = json.loads(journal.read_text())["chunks"]
    assert 2 <= chunks < 8
    _, log = finished(run("cache", tmp_path / "killed", tiny_model, settings))
    assert f"going on after chunk {chunks}: {20 * chunks} of 150 texts" in log
    done = [line for line in log.splitlines() if line.startswith("chunk ")]
    assert len(done) == 8 - chunks and done[-1].startswith("chunk 8: 150 of 150")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("storage", ["bf16", "int8"])
def test_two_replicas_write_the_bytes_of_one(given, tiny_model, tmp_path, storage):
    settings = {"batch_tokens": 200, "storage": storage, "candidates": list(growing.LAYERS)}
    for replicas in (1, 2):
        folder = tmp_path / str(replicas)
        folder.mkdir()
        layers = [str(folder / f"layer{n}.safetensors") for n in growing.LAYERS]
        index, storage_table = str(folder / "index.parquet"), str(folder / "storage.parquet")
        work = str(tmp_path / f"work{replicas}")
        cache_activations.main(
            str(tiny_model),
            str(given[0] / "corpus.parquet"),
            layers,
            index,
            storage_table,
            work,
            settings,
            RUNTIME,
            replicas,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


@on_linux
def test_twenty_times_the_data_take_no_more_memory(tmp_path):
    """
    Peak memory of caching, and of training and measuring an autoencoder, on 20 times the data: at most 1.1 times.

    Chunk, buffer and samples are smaller than the smaller corpus, so that both sizes are beyond them. Activations of
    the larger one are 140 MB a layer, its index as a data frame 100 MB.
    """
    model = make_tiny_model(tmp_path / "model")
    settings = json.dumps({"batch_tokens": 2048, "chunk_texts": 100, "storage": "bf16"})
    training = {"architecture": "topk", "d_sae": 64, "k": 4, "matryoshka_widths": [64], "batch_size": 512, "lr": 1e-3}
    training |= {"steps": 0, "seed": 0, "buffer_tokens": 8192, "sample_tokens": 1000}
    peaks = {}
    for size in (1, 20):
        folder = tmp_path / f"times{size}"
        folder.mkdir()
        growing.write_corpus(folder / "corpus.parquet", 200 * size, 6)
        cached, _ = finished(run("cache", folder, model, settings))
        trained, _ = finished(run("sae", folder, json.dumps(training)))
        rows = tables.count(folder / "index.parquet", tables.TOKENS)
        peaks[size] = {"rows": rows, "cache": cached, "train": trained}
    print(json.dumps(peaks))
    assert peaks[20]["rows"] > 19 * peaks[1]["rows"]
    for stage in ("cache", "train"):
        for kind in ("anonymous", "all"):
            assert peaks[20][stage][kind] <= 1.1 * peaks[1][stage][kind], (stage, kind, peaks)
