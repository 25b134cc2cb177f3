"""The code digest changes when the meaning of the code does, and only then."""

import pytest

from mmie import provenance


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A small code base: stage.py imports mmie.helper, which imports mmie.deep."""
    root = tmp_path / "workflow_scripts"
    (root / "mmie").mkdir(parents=True)
    files = {
        "stage_a.py": "from mmie import helper\n\n\ndef main():\n    return helper.f()\n",
        "mmie/__init__.py": '"""Library."""\n',
        "mmie/helper.py": "from mmie.deep import g\n\n\ndef f():\n    return g() + 1\n",
        "mmie/deep.py": "def g():\n    return 1\n",
        "mmie/unused.py": "x = 1\n",
    }
    for name, text in files.items():
        (root / name).write_text(text)
    pins = tmp_path / "requirements.txt"
    pins.write_text("numpy==2.3.5\n")
    monkeypatch.setattr(provenance, "ROOT", root)
    monkeypatch.setattr(provenance, "REQUIREMENTS", pins)
    monkeypatch.setattr(provenance, "BY_NAME", set())
    return root


def digest() -> str:
    for function in (
        provenance.digest_of,
        provenance._imports,
        provenance._tree,
        provenance._meaning,
        provenance._pins,
    ):
        function.cache_clear()
    return provenance.digest_of(("stage_a",))


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_comments_docstrings_and_layout_do_not_count(code):
    before = digest()
    edit(code / "mmie/deep.py", "    return 1", '    """Say one."""\n\n    # why not\n    return (\n        1\n    )')
    edit(code / "mmie/__init__.py", "Library", "Another docstring")
    assert digest() == before


@pytest.mark.parametrize("file", ["stage_a.py", "mmie/helper.py", "mmie/deep.py"])
def test_an_edit_anywhere_below_counts(code, file):
    before = digest()
    with (code / file).open("a") as end:
        end.write("\n\nEXTRA = 1\n")
    assert digest() != before


def test_a_module_nobody_imports_does_not_count(code):
    before = digest()
    edit(code / "mmie/unused.py", "1", "2")
    assert digest() == before


def test_requirements_count_but_their_comments_do_not(code):
    before = digest()
    provenance.REQUIREMENTS.write_text("# pinned\nnumpy==2.3.5  # fast\n")
    assert digest() == before
    provenance.REQUIREMENTS.write_text("numpy==2.3.6\n")
    assert digest() != before


@pytest.mark.parametrize(
    "line",
    [
        "import mmie.deep",
        "from . import deep",
        "import importlib",
        "from importlib import import_module",
        "from mmie import absent",
        "from mmie.absent import x",
    ],
)
def test_an_import_it_cannot_follow_is_refused(code, line):
    edit(code / "mmie/deep.py", "def g", f"{line}\n\n\ndef g")
    with pytest.raises(ValueError, match=r"mmie/deep\.py, line 1"):
        digest()


def test_every_rule_of_the_workflow_has_a_digest():
    scripts = sorted(p.stem for p in provenance.ROOT.glob("*.py"))
    assert len({provenance.digest_of((name,)) for name in scripts}) == len(scripts) > 10
