"""
What arms and attacks have in common: folders of modules that the config names, each with a ``Params`` dataclass.

Adding one is dropping a file in. Nothing here imports torch, since the Snakefile reads the config with it.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import pkgutil
import re
import textwrap
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_.-]*")


@dataclass(frozen=True)
class Folder:
    """A section of the config, and the modules it may name."""

    section: str
    """Key of the config, for example ``arms``."""
    noun: str
    """What an entry of the section is called: ``arm``."""
    key: str
    """Key of an entry that names its module, where that is not the entry's name: ``method``."""
    path: Sequence[str]
    """``__path__`` of the package."""

    def available(self) -> list[str]:
        """Names of all modules, read from the folder without importing any of them."""
        return sorted(m.name for m in pkgutil.iter_modules(self.path) if not m.name.startswith("_"))

    def expand(self, name: str, settings: Any) -> list[tuple[str, str, dict[str, Any]]]:
        """
        (name, module, params) of everything that one entry of the section stands for: several with ``sweep``.

        Raises ValueError when a name is not allowed, the module is unknown, or a sweep is not a list of values.
        """
        where = f"{self.section}.{name}"
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(
                f"config `{self.section}`: {name!r} is not allowed: a name is lower-case letters, digits, `.`, `_` and "
                "`-`, a letter first."
            )
        if settings is None:
            raise ValueError(f"config `{where}` is empty: write `{name}: {{}}` for the defaults.")
        if not isinstance(settings, dict):
            raise ValueError(f"config `{where}`: {settings!r} is not a mapping of parameters.")
        params = dict(settings)
        module, sweep = params.pop(self.key, name), params.pop("sweep", {})
        if module not in self.available():
            what = self.key if self.key in settings else self.noun
            hint = "" if self.key in settings else f" To name an {self.noun} freely, give it `{self.key}:`."
            raise ValueError(
                f"config `{where}`: unknown {what} {module!r}.{near(str(module), self.available())} "
                f"Available: {', '.join(self.available())}.{hint}"
            )
        return [(full, module, {**params, **chosen}) for full, chosen in self._swept(name, params, sweep)]

    def unique(self, entries: dict[str, Any]) -> list[tuple[str, str, str, dict[str, Any]]]:
        """
        (entry, name, module, params) of everything that the entries stand for, in their order.

        Raises ValueError when two get one name.
        """
        found = [(entry, *expanded) for entry, settings in entries.items() for expanded in self.expand(entry, settings)]
        names = [name for _, name, _, _ in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"config `{self.section}`: two {self.section} are called {name!r} (a sweep makes names of its "
                    "own). Rename one."
                )
        return found

    def _swept(self, name: str, params: dict[str, Any], sweep: Any) -> list[tuple[str, dict[str, Any]]]:
        if not sweep:
            return [(name, {})]
        where = f"{self.section}.{name}"
        if not isinstance(sweep, dict) or not all(isinstance(v, list) and v for v in sweep.values()):
            raise ValueError(
                f"config `{where}.sweep`: {sweep!r} is not allowed: a parameter with a list of values, as "
                f"{{lr: [0.001, 0.002]}}."
            )
        both = sorted(set(sweep) & set(params))
        if both:
            raise ValueError(f"config `{where}`: {both[0]} is given and swept. Keep one.")
        found = []
        for values in itertools.product(*sweep.values()):
            chosen = dict(zip(sweep, values, strict=True))
            full = "-".join([name, *(f"{key}{value}" for key, value in chosen.items())])
            if not NAME.fullmatch(full):
                raise ValueError(
                    f"config `{where}.sweep` makes the name {full!r}, which is not allowed: sweep numbers or "
                    "lower-case words."
                )
            found.append((full, chosen))
        return found


def build(kind: type, given: dict[str, Any], where: str, owner: str) -> Any:
    """
    A ``Params`` of class ``kind`` from what the config gives at ``where``; lists become tuples, integers become floats
    where one is expected. ``owner`` is what has the parameters, for example ``method lora``.

    Raises ValueError naming the parameter, its value and what is allowed.
    """
    types = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for name, value in given.items():
        if name not in names:
            known = f"Its parameters: {', '.join(names)}." if names else "It has no parameters."
            raise ValueError(f"config `{where}.{name}`: {owner} has no such parameter.{near(name, names)} {known}")
        values[name] = _converted(value, types[name], f"{where}.{name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"config `{where}.{error}") from None


def describe(kind: type) -> list[dict[str, str]]:
    """The parameters: ``name``, ``type``, ``default`` and ``meaning`` (the docstring under the field)."""
    meanings: dict[str, str] = {}
    for owner in reversed([c for c in kind.__mro__ if "__dataclass_fields__" in vars(c)]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in itertools.pairwise(tree.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                meanings[ast.unparse(field.target)] = inspect.cleandoc(str(text.value.value))
    return [
        {"name": f.name, "type": str(f.type), "default": repr(f.default), "meaning": meanings.get(f.name, "")}
        for f in dataclasses.fields(kind)
    ]


def near(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'lora'?``, or nothing."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def _converted(value: Any, kind: Any, where: str) -> Any:
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if not isinstance(value, list | tuple):
            raise ValueError(f"config `{where}`: {value!r} is not allowed: a list of {item.__name__}.")
        return tuple(_converted(v, item, where) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"config `{where}`: {value!r} is not allowed: {_TYPES[kind]}.{_number(value, kind)}")
    return value


_TYPES = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}


def _number(value: Any, kind: type) -> str:
    """YAML reads `1e-3` as a word: the remedy, where it is that."""
    if kind is float and isinstance(value, str):
        try:
            return f" YAML reads {value} as a word: write {float(value)!r}."
        except ValueError:
            return ""
    return ""
