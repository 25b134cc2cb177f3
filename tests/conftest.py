"""Fixtures shared by all tests."""

import shutil
from pathlib import Path

import pytest

from project import ROOT, Project, copy_project
from tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Manifest of a tiny random model; load it with `mmie.model.load(tiny_model, tiny.RUNTIME)`."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny model whose tokenizer knows the scripts of the corpus."""
    corpus = (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8")
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), texts=corpus.splitlines(), context=4096).parent


@pytest.fixture
def fresh(tmp_path, model_folder) -> Project:
    """A project in which nothing has run."""
    return copy_project(tmp_path, model_folder)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, model_folder) -> Project:
    """A project that has run to the end, once for all tests."""
    project = copy_project(tmp_path_factory.mktemp("finished"), model_folder)
    project.snakemake()
    return project


@pytest.fixture
def finished(finished_once, tmp_path) -> Project:
    """A copy of the finished project, times of files included, that a test may edit."""
    shutil.copytree(finished_once.folder, tmp_path, dirs_exist_ok=True)
    return Project(tmp_path)
