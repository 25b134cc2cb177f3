"""Fixtures shared by all tests."""

from pathlib import Path

import pytest

from tiny import make_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """Manifest of a tiny random model; load it with `mmie.model.load(tiny_model, tiny.RUNTIME)`."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))
