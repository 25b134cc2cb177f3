"""
What an artifact was made from: the code behind a rule, as one hash.

Snakemake does not see a change in a module that a script imports, and reruns everything when a script's mtime changes.
So every rule carries ``code=code_digest(...)`` as a param: comments, docstrings and layout do not count, meaning does.
"""

import ast
import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT.parent / "envs" / "requirements.txt"

# These load modules by name; the rules that use them name the module in their own digest.
BY_NAME = {ROOT / "mmie/arms/__init__.py", ROOT / "mmie/attacks/__init__.py"}


def code_digest(*modules: str) -> Callable[[Any], str]:
    """
    Params function: hash of the code a rule runs, so that changing it reruns the rule.

    ``modules`` are paths under workflow_scripts/ without ``.py``; ``{wildcards}`` are filled in. Modules they import
    from mmie are followed, transitively. The hash of the requirements file is part of the digest.

    Raises ValueError for an import it cannot follow, for then a change would go unnoticed.
    """

    def digest(wildcards: Any) -> str:
        return digest_of(tuple(module.format(**dict(wildcards)) for module in modules))

    return digest


@cache
def digest_of(modules: tuple[str, ...]) -> str:
    """Twelve hex digits over the meaning of ``modules``, of what they import, and of the pinned requirements."""
    files: set[Path] = set()
    for module in modules:
        _follow(ROOT / f"{module}.py", files)
    parts = [f"{path.relative_to(ROOT)}\n{_meaning(path)}" for path in sorted(files)]
    parts.append(_pins())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _follow(path: Path, files: set[Path]) -> None:
    if path in files:
        return
    if not path.exists():
        raise ValueError(f"code digest: {path.relative_to(ROOT)} does not exist under workflow_scripts/.")
    files.add(path)
    for imported in _imports(path):
        _follow(imported, files)


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """Files of mmie that ``path`` imports, packages' ``__init__`` included."""
    found: list[Path] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            if any(name.split(".")[0] == "mmie" for name in names):
                raise _unfollowable(path, node, "`import mmie...`: write `from mmie import ...`")
            if "importlib" in names and path not in BY_NAME:
                raise _unfollowable(path, node, "importlib loads modules that the digest cannot see")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            raise _unfollowable(path, node, "a relative import: write `from mmie...`")
        if node.module == "importlib" and path not in BY_NAME:
            raise _unfollowable(path, node, "importlib loads modules that the digest cannot see")
        if (node.module or "").split(".")[0] == "mmie":
            found += _modules(path, node)
    return tuple(found)


def _modules(path: Path, node: ast.ImportFrom) -> list[Path]:
    base = ROOT / str(node.module).replace(".", "/")
    if base.with_suffix(".py").exists():
        return [base.with_suffix(".py")]
    init = base / "__init__.py"
    if not init.exists():
        raise _unfollowable(path, node, f"module {node.module} does not exist")
    defined = _defined(init)
    found = [init]
    for alias in node.names:
        for candidate in (base / f"{alias.name}.py", base / alias.name / "__init__.py"):
            if candidate.exists():
                found.append(candidate)
                break
        else:
            if alias.name not in defined:
                raise _unfollowable(path, node, f"{node.module} has no {alias.name!r}")
    return found


def _defined(path: Path) -> set[str]:
    names: set[str] = set()
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name for a in node.names}
    return names


def _unfollowable(path: Path, node: ast.stmt, why: str) -> ValueError:
    return ValueError(f"code digest: {path.relative_to(ROOT)}, line {node.lineno}: {why}.")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _meaning(path: Path) -> str:
    """The code of ``path`` without comments, docstrings and layout."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [child for child in body if not _is_text(child)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_text(node: ast.AST) -> bool:
    """A docstring, or a string under a field or constant."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@cache
def _pins() -> str:
    """The pinned packages, without comments and layout."""
    lines = (line.split("#")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines())
    return "\n".join(sorted(line for line in lines if line))
