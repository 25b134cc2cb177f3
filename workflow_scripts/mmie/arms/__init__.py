"""
Unlearning arms, one module each.

Dropping ``arms/<name>.py`` here makes ``<name>`` a method that config `arms:` may name. A module declares ``NEEDS``
(which artifacts it trains on: ``activations``, ``sae``), ``SEEDED`` (whether runs with different seeds differ),
``Params`` (a frozen dataclass) and ``train``; it loads torch only inside ``train``, since this package is imported
whenever the Snakefile is read.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from mmie import plugins

_FOLDER = plugins.Folder("arms", "arm", "method", __path__)


def available_arms() -> list[str]:
    """Names of all methods, read from the folder without importing any of them."""
    return _FOLDER.available()


def load_arm(name: str) -> ModuleType:
    """Import one method's module."""
    return importlib.import_module(f"{__name__}.{name}")


def make_params(method: str, given: dict[str, Any], where: str = "") -> Any:
    """
    The method's ``Params`` from what the config gives; lists become tuples, integers become floats where one is
    expected.

    Raises ValueError naming the parameter, its value and what is allowed.
    """
    return plugins.build(load_arm(method).Params, given, where or f"arms.{method}", f"method {method}")


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
    ordered = dict(sorted(arms.items(), key=lambda item: item[0] != "base"))
    for entry, name, method, params in _FOLDER.unique(ordered):
        if (name == "base") != (method == "base"):
            raise ValueError(
                f"config `arms.{name}`: method {method!r} is not allowed: the arm and the method `base` belong "
                "together."
            )
        make_params(method, params, f"arms.{name}")
        module = load_arm(method)
        found[name] = {
            "entry": entry,
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
        near = plugins.near(unknown[0], available_arms())
        raise ValueError(f"config `tune.tried.{unknown[0]}`: no such method.{near}")
    counts = Counter(arm["method"] for arm in arms.values() if arm["method"] != "base")
    return {method: max(counts[method], before.get(method, 0)) for method in sorted({*counts, *before})}


def describe(method: str) -> list[dict[str, str]]:
    """The method's parameters: ``name``, ``type``, ``default`` and ``meaning`` (the docstring under the field)."""
    return plugins.describe(load_arm(method).Params)
