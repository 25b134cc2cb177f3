"""Planting: members are learned by heart, other files stay, the same seed gives the same bytes."""

import hashlib
import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch

import plant_canaries
import tiny
from mmie import model_folder, planting, tables
from mmie.membership import attack
from mmie.model import load
from plant_canaries import main
from small_arms import DATA, make_corpus

SETTINGS = {"data": DATA, "epochs": 12, "lr": 1e-2, "rank": 4, "seed": 0}
MEMBERS = [f"{text} {number}" for number, text in enumerate(tiny.SAMPLE[1:3] * 4)]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def planted(tmp_path, tiny_model, members=MEMBERS, name="model", **settings):
    """Run the stage; the folder it writes, and the rows of its training."""
    canaries = [
        {"canary_id": f"canary:{i}", "language": ("hi", "hi_latn")[i % 2], "member": text in members, "text": text}
        for i, text in enumerate([*members, *(text.replace("a", "o") + " 77" for text in members)])
    ]
    tables.write(canaries, tmp_path / "canaries.parquet", tables.CANARIES)
    corpus = make_corpus().assign(topic="", register="")
    tables.write(corpus, tmp_path / "corpus.parquet", tables.CORPUS)
    manifest, rows = tmp_path / name / "manifest.json", tmp_path / f"{name}.parquet"
    paths = [str(path) for path in (tiny_model, tmp_path / "corpus.parquet", tmp_path / "canaries.parquet")]
    main(*paths, str(manifest), str(rows), {**SETTINGS, **settings}, tiny.RUNTIME)
    return manifest, tables.read(rows, tables.PLANTING)


def test_members_are_learned_and_the_manifest_says_so(tmp_path, tiny_model):
    manifest, rows = planted(tmp_path, tiny_model)
    assert list(rows.step) == list(range(12)) and rows.loss.iloc[-3:].mean() < rows.loss.iloc[:3].mean() - 0.3
    before, after = (
        [row["loss"] for row in attack(*load(path, tiny.RUNTIME), MEMBERS)] for path in (tiny_model, manifest)
    )
    assert min(b - a for a, b in zip(before, after, strict=True)) > 0.3
    about = json.loads(manifest.read_text())
    assert about["planted"]["members"] == len(MEMBERS) and about["planted"]["rank"] == 4
    assert about["name"] == "tiny" and model_folder.read_manifest(manifest) == about
    changed = {name for name, digest in hashes(tiny_model.parent).items() if hashes(manifest.parent)[name] != digest}
    assert changed == {"model.safetensors", "manifest.json"}


def test_weights_are_bf16_and_those_that_were_logged(tmp_path, tiny_model):
    model, tokenizer = load(tiny_model, tiny.RUNTIME)
    planting.plant(model, tokenizer, MEMBERS, make_corpus(), SETTINGS)
    manifest, _ = planted(tmp_path, tiny_model)
    stored, _ = load(manifest, tiny.RUNTIME)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weight.bfloat16().float()) and torch.equal(weight, stored.state_dict()[name]), name


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(tmp_path, tiny_model):
    folders = [
        planted(tmp_path, tiny_model, name=name, seed=seed)[0].parent for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, same, other = map(hashes, folders)
    assert first == same and first["model.safetensors"] != other["model.safetensors"]


def test_the_number_of_cores_changes_no_byte(tmp_path, tiny_model):
    """As under `--cores 1` and `--cores 2`: Snakemake tells a job's libraries its threads by OMP_NUM_THREADS."""
    planted(tmp_path, tiny_model, name="here")
    found = []
    for threads in ("1", "2"):
        folder = tmp_path / f"threads{threads}"
        given = {
            "pretrained": tiny_model, "corpus": tmp_path / "corpus.parquet", "canaries": tmp_path / "canaries.parquet",
            "manifest": folder / "model/manifest.json", "planting": folder / "planting.parquet",
            "settings": json.dumps(SETTINGS), "runtime": json.dumps(tiny.RUNTIME),
        }  # fmt: skip
        folder.mkdir()
        command = [sys.executable, plant_canaries.__file__, *(f"--{name}={value}" for name, value in given.items())]
        subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": threads}, check=True)
        found.append(hashes(folder / "model") | hashes_of(folder / "planting.parquet"))
    assert found[0] == found[1] and len(found[0]) > 4


def hashes_of(path):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_without_members_the_files_are_linked_and_no_row_is_written(tmp_path, tiny_model):
    manifest, rows = planted(tmp_path, tiny_model, members=[])
    assert rows.empty
    assert hashes(manifest.parent) == hashes(tiny_model.parent) or "planted" not in manifest.read_text()
    for name in model_folder.read_manifest(manifest)["files"]:
        assert (manifest.parent / name).samefile(tiny_model.parent / name)


def test_batches_take_each_member_as_often_and_keep_every_trained_language(tiny_model):
    _, tokenizer = load(tiny_model, tiny.RUNTIME)
    members = [f"canary{i} " + tiny.SAMPLE[1] for i in range(5)]
    batches = planting.planting_batches(members, make_corpus(), DATA, tokenizer, epochs=8, seed=0)
    assert len(batches) == 5 and all(batch.n_forget == planting.MEMBERS for batch in batches)
    decode = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)  # noqa: E731
    seen = pd.Series([decode(ids) for batch in batches for ids in batch.tokens[: batch.n_forget]])
    assert seen.value_counts().to_dict() == dict.fromkeys(members, 8), "whole, never cut"
    kept = {decode(ids) for batch in batches for ids in batch.tokens[batch.n_forget :]}
    languages = make_corpus().query("split == 'train' and language in ['hi', 'hi_latn', 'en', 'ur', 'bn']")
    whose = {row.language for text in kept for row in languages.itertuples() if row.text.startswith(text)}
    assert whose == set(languages.language)


def test_a_folder_loses_what_an_earlier_model_left(tmp_path):
    folder, made = tmp_path / "model", tmp_path / "made"
    for path, text in ((folder / "old.safetensors", "x"), (made / "new.safetensors", "y")):
        path.parent.mkdir()
        path.write_text(text)
    model_folder.install(made, folder, {"name": "m"})
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "new.safetensors"]
    (folder / "new.safetensors").write_text("longer")
    with pytest.raises(ValueError, match="6 bytes, expected 1"):
        model_folder.read_manifest(folder / "manifest.json")
