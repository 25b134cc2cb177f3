"""
Unlearning arms, one module each.

Dropping ``arms/<name>.py`` here makes ``<name>`` a method that config `arms:` may name. A module declares ``NEEDS``
(which artifacts it trains on: ``activations``, ``sae``), ``SEEDED`` (whether runs with different seeds differ),
``Params`` (a frozen dataclass) and ``train``; it loads torch only inside ``train``, since this package is imported
whenever the Snakefile is read.
"""

from __future__ import annotations

import importlib
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
    The configured arms, ``base`` first: name → ``method``, ``params`` (those the config gives), ``needs``, ``seeded``.

    ``sweep: {lr: [1e-3, 2e-3]}`` makes one arm per value (per combination for several keys), named ``lora-lr0.001``
    and so on.

    Raises ValueError when an arm, a method or a parameter is unknown, a value is of another type or out of range, two
    arms get one name, or there is no ``base``.
    """
    if "base" not in arms:
        raise ValueError("config `arms`: `base: {}` is missing. Every arm is compared with it: add it.")
    found: dict[str, dict[str, Any]] = {}
    for name, method, params in _FOLDER.unique(dict(sorted(arms.items(), key=lambda item: item[0] != "base"))):
        if (name == "base") != (method == "base"):
            raise ValueError(
                f"config `arms.{name}`: method {method!r} is not allowed: the arm and the method `base` belong "
                "together."
            )
        make_params(method, params, f"arms.{name}")
        module = load_arm(method)
        found[name] = {"method": method, "params": params, "needs": sorted(module.NEEDS), "seeded": module.SEEDED}
    return found


def describe(method: str) -> list[dict[str, str]]:
    """The method's parameters: ``name``, ``type``, ``default`` and ``meaning`` (the docstring under the field)."""
    return plugins.describe(load_arm(method).Params)
