"""
Unlearning arms, one module each.

Dropping ``arms/<name>.py`` here makes ``<name>`` a method that config `arms:` may name. A module declares ``NEEDS``
(which artifacts it trains on: ``activations``, ``sae``), ``SEEDED`` (whether runs with different seeds differ),
``Params`` (a frozen dataclass) and ``train``; it loads torch only inside ``train``, since this package is imported
whenever the Snakefile is read.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
import typing
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9_.-]*")


def available_arms() -> list[str]:
    """Names of all methods, read from the folder without importing any of them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load_arm(name: str) -> ModuleType:
    """Import one method's module."""
    return importlib.import_module(f"{__name__}.{name}")


def make_params(method: str, given: dict[str, Any], where: str = "") -> Any:
    """
    The method's ``Params`` from what the config gives; lists become tuples, integers become floats where one is
    expected.

    Raises ValueError naming the parameter, its value and what is allowed.
    """
    where = where or f"arms.{method}"
    kind = load_arm(method).Params
    types = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    values = {}
    for name, value in given.items():
        if name not in names:
            known = f"Its parameters: {', '.join(names)}." if names else "It has no parameters."
            raise ValueError(
                f"config `{where}.{name}`: method {method} has no such parameter.{_near(name, names)} {known}"
            )
        values[name] = _converted(value, types[name], f"{where}.{name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"config `{where}.{error}") from None


def check_arms(arms: dict[str, dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    """
    The configured arms, ``base`` first: name → ``method``, ``params`` (those the config gives), ``needs``, ``seeded``,
    and ``entry``, the key of config `arms` that it stands under.

    ``sweep: {lr: [1e-3, 2e-3]}`` makes one arm per value (per combination for several keys), named ``lora-lr0.001``
    and so on.

    Raises ValueError when an arm, a method or a parameter is unknown, a value is of another type or out of range, two
    arms get one name, or there is no ``base``.
    """
    if "base" not in arms:
        raise ValueError("config `arms`: `base: {}` is missing. Every arm is compared with it: add it.")
    found: dict[str, dict[str, Any]] = {}
    for name, settings in sorted(arms.items(), key=lambda item: item[0] != "base"):
        for expanded, method, params in _expand(name, settings):
            if expanded in found:
                raise ValueError(
                    f"config `arms`: two arms are called {expanded!r} (a sweep makes names of its own). Rename one."
                )
            make_params(method, params, f"arms.{expanded}")
            module = load_arm(method)
            found[expanded] = {
                "entry": name,
                "method": method,
                "params": params,
                "needs": sorted(module.NEEDS),
                "seeded": module.SEEDED,
            }
    return found


def sweeps(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Entry of the config → its arms and what tells them apart, ``{"lora-lr0.001": "lr0.001"}``; swept entries only."""
    found: dict[str, dict[str, str]] = {}
    for name, arm in arms.items():
        found.setdefault(arm["entry"], {})[name] = name.removeprefix(f"{arm['entry']}-")
    return {entry: swept for entry, swept in found.items() if len(swept) > 1}


def configurations(arms: Mapping[str, Mapping[str, Any]], before: Mapping[str, int]) -> dict[str, int]:
    """
    Configurations tried per method: those of this run, or as many as config `tune.tried` says were tried before it,
    whichever are more (a run that judges the chosen ones repeats them).

    Raises ValueError when a method is unknown.
    """
    unknown = sorted(set(before) - set(available_arms()))
    if unknown:
        raise ValueError(f"config `tune.tried.{unknown[0]}`: no such method.{_near(unknown[0], available_arms())}")
    counts = Counter(arm["method"] for arm in arms.values() if arm["method"] != "base")
    return {method: max(counts[method], before.get(method, 0)) for method in sorted({*counts, *before})}


def describe(method: str) -> list[dict[str, str]]:
    """The method's parameters: ``name``, ``type``, ``default`` and ``meaning`` (the docstring under the field)."""
    kind = load_arm(method).Params
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


def _expand(name: str, settings: dict[str, Any] | None) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, method, params) of each arm that one entry of the config stands for."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"config `arms`: {name!r} is not allowed: a name is lower-case letters, digits, `.`, `_` and `-`, a "
            "letter first."
        )
    if settings is None:
        raise ValueError(f"config `arms.{name}` is empty: write `{name}: {{}}` for the defaults.")
    if not isinstance(settings, dict):
        raise ValueError(f"config `arms.{name}`: {settings!r} is not a mapping of parameters.")
    params = dict(settings)
    method, sweep = params.pop("method", name), params.pop("sweep", {})
    if method not in available_arms():
        what = "arm" if "method" not in settings else "method"
        hint = "" if what == "method" else " To name an arm freely, give it a `method:`."
        raise ValueError(
            f"config `arms.{name}`: unknown {what} {method!r}.{_near(str(method), available_arms())} "
            f"Available: {', '.join(available_arms())}.{hint}"
        )
    if (name == "base") != (method == "base"):
        raise ValueError(
            f"config `arms.{name}`: method {method!r} is not allowed: the arm and the method `base` belong together."
        )
    if not sweep:
        return [(name, method, params)]
    if not isinstance(sweep, dict) or not all(isinstance(v, list) and v for v in sweep.values()):
        raise ValueError(
            f"config `arms.{name}.sweep`: {sweep!r} is not allowed: a parameter with a list of values, as "
            f"{{lr: [0.001, 0.002]}}."
        )
    both = sorted(set(sweep) & set(params))
    if both:
        raise ValueError(f"config `arms.{name}`: {both[0]} is given and swept. Keep one.")
    expanded = []
    for values in itertools.product(*sweep.values()):
        chosen = dict(zip(sweep, values, strict=True))
        full = "-".join([name, *(f"{key}{value}" for key, value in chosen.items())])
        if not NAME.fullmatch(full):
            raise ValueError(
                f"config `arms.{name}.sweep` makes the name {full!r}, which is not allowed: sweep numbers or "
                "lower-case words."
            )
        expanded.append((full, method, {**params, **chosen}))
    return expanded


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


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
