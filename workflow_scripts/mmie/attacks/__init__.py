"""
Attacks on edited models, one module each: is the language gone, or only hidden?

Dropping ``attacks/<name>.py`` here makes ``<name>`` an attack that config `attacks:` may name. A module declares
``TUNES`` (whether it reads texts of the tune split), ``ON_BASE`` (whether it can be run on a model without an edit),
``Params`` (a frozen dataclass) and ``attack``, which returns the edits to append to those of the attacked model; it
loads torch only inside ``attack``, since this package is imported whenever the Snakefile is read.

Every arm is attacked. Recovery is measured between the arm and base as it is (definitions: "Recovery"); base under the
same attack is a control, which says what the attack does to a model that has forgotten nothing.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from mmie import plugins

_FOLDER = plugins.Folder("attacks", "attack", "attack", __path__)


def available_attacks() -> list[str]:
    """Names of all attacks, read from the folder without importing any of them."""
    return _FOLDER.available()


def load_attack(name: str) -> ModuleType:
    """Import one attack's module."""
    return importlib.import_module(f"{__name__}.{name}")


def make_params(attack: str, given: dict[str, Any], where: str = "") -> Any:
    """
    The attack's ``Params`` from what the config gives; lists become tuples, integers become floats where one is
    expected.

    Raises ValueError naming the parameter, its value and what is allowed.
    """
    return plugins.build(load_attack(attack).Params, given, where or f"attacks.{attack}", f"attack {attack}")


def check_attacks(attacks: dict[str, dict[str, Any] | None], arms: list[str], split: str) -> dict[str, dict[str, Any]]:
    """
    The configured attacks: name of the variant → ``attack`` (its module), ``params`` (those the config gives), ``arms``
    (those it is run on: all of ``arms``, base too where the attack can be run on it, or those that its `arms:` names).

    ``split`` is config `evaluation.split`. ``sweep: {texts: [10, 40]}`` makes one attack per value, as for arms.

    Raises ValueError when an attack, an arm or a parameter is unknown, a value is of another type or out of range, two
    attacks get one name, one is called ``plain``, or one would be tuned on the texts that it is then measured on.
    """
    found: dict[str, dict[str, Any]] = {}
    for _, name, attack, params in _FOLDER.unique(attacks):
        if name == "plain":
            raise ValueError(
                "config `attacks.plain` is not allowed: so the model is called that nobody attacked. Rename."
            )
        able = [arm for arm in arms if arm != "base" or load_attack(attack).ON_BASE]
        chosen = _chosen(params.pop("arms"), able, f"attacks.{name}.arms") if "arms" in params else able
        make_params(attack, params, f"attacks.{name}")
        if load_attack(attack).TUNES and split == "tune":
            raise ValueError(
                f"config `attacks.{name}`: attack {attack} reads texts of the tune split, and `evaluation.split: tune` "
                f"measures it on them. Write `{name}: false`, or evaluate the test split."
            )
        found[name] = {"attack": attack, "params": params, "arms": chosen}
    return found


def describe(attack: str) -> list[dict[str, str]]:
    """The attack's parameters: ``name``, ``type``, ``default`` and ``meaning`` (the docstring under the field)."""
    return plugins.describe(load_attack(attack).Params)


def _chosen(arms: Any, able: list[str], where: str) -> list[str]:
    if not isinstance(arms, list) or not arms:
        raise ValueError(f"config `{where}`: {arms!r} is not allowed: a list of arms ({', '.join(able)}).")
    for arm in arms:
        if arm not in able:
            raise ValueError(
                f"config `{where}`: {arm!r} is no arm that this attack can be run on.{plugins.near(str(arm), able)} "
                f"Those are {', '.join(able)}."
            )
    return arms
