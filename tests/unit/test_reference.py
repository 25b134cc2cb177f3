"""The reference pages say what the code says."""

import pytest

from mmie import reference
from mmie.config import PROJECT


@pytest.mark.parametrize("page, function", reference.PAGES.items())
def test_pages_are_up_to_date(page, function):
    written = (PROJECT / page).read_text(encoding="utf-8")
    assert written == getattr(reference, function)(), "run `make docs`"


def test_every_arm_parameter_is_documented():
    for line in [*reference.config_reference().splitlines(), *reference.arm_reference().splitlines()]:
        if line.startswith("| `"):
            assert not line.endswith("|  |"), line
