"""Fixtures of the tests of arms."""

import pytest

import tiny
from mmie.model import load
from small_arms import make_given


@pytest.fixture(scope="session")
def loaded(tiny_model):
    """The tiny model and its tokenizer; who edits the model leaves it as it came."""
    return load(tiny_model, tiny.RUNTIME)


@pytest.fixture(scope="session")
def given(loaded, tmp_path_factory):
    """All that an arm is given (`small_arms.make_given`); nobody writes to its files."""
    return make_given(loaded, tmp_path_factory.mktemp("given"))
