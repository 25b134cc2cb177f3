"""G6: do membership attacks still tell the canaries that were planted, and then forgotten, from those never seen?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmie import intervals
from mmie.equivalence import Area, Stratum, area, equivalence_power, true_positives
from mmie.gate.parts import Evidence, Part
from mmie.labels import language_name
from mmie.units import Paired, Run

ATTACKS = {name: f"mia_{name}" for name in ("loss", "zlib", "min_k", "min_k_plus", "reference", "gradnorm")}
"""Part, and metric of the scores; larger says member."""
REMEMBERED = 0.8
"""AUC that base's loss must surely reach: what was never remembered cannot be shown to be forgotten."""
NOT_PLANTED = "no canaries were planted"


def membership(evidence: Evidence, run: Run) -> Iterator[Part]:
    """
    A part per attack: H0 is that its AUC, averaged over the scripts, is the margin or more away from one half.

    Too low an AUC fails as well: it gives members away as surely. Within a script members are compared with
    non-members; the average must not hide one script's distance in the other's, so a script whose own AUC is beyond the
    margin keeps the part from passing.
    """
    margin, paired = evidence.margin("membership"), evidence.paired
    null = f"an attack's AUC on canaries is ≥ {margin:g} away from 0.5"
    if not any(paired.keys(metric) for metric in ATTACKS.values()):
        yield Part("G6", "membership", null, margin=margin).missing(NOT_PLANTED)
        return
    weak = _assay(paired)
    for part, metric in ATTACKS.items():
        if part == "gradnorm" and not _on_every_canary(paired, metric):
            continue
        row = Part("G6", part, null, margin=margin, unit="members")
        strata = strata_of(paired, run, metric)
        if not strata:
            yield row.missing(f"no `{metric}` was measured on members and non-members of every script")
            continue
        yield _attack(row, strata, strata_of(paired, paired.base, metric), evidence.alpha, margin, weak)


def _on_every_canary(paired: Paired, metric: str) -> bool:
    """Whether an attack that the config may run on some canaries, to save time, was run on all."""
    counted = [
        sum(len(units.unit_ids) for key in paired.keys(name) if (units := paired.get(*key)))
        for name in (metric, ATTACKS["loss"])
    ]
    return counted[0] == counted[1]


def strata_of(paired: Paired, run: Run, metric: str) -> dict[str, Stratum]:
    """Scores of members and of non-members of every script, by language; empty where a script lacks some."""
    planted = {language for one in ATTACKS.values() for _, _, language, _ in paired.keys(one)}
    found: dict[str, Stratum] = {}
    for language in sorted(planted):
        members, others = (paired.get(metric, family, language) for family in ("member", "nonmember"))
        if members is None or others is None or min(len(members.unit_ids), len(others.unit_ids)) < 2:
            return {}
        found[language] = members.values[run], others.values[run]
    return found


def _attack(
    row: Part, strata: dict[str, Stratum], base: dict[str, Stratum], alpha: float, margin: float, weak: str
) -> Part:
    found, scripts = area(list(strata.values())), len(strata)
    members, others = (sum(len(np.asarray(stratum[side])) for stratum in strata.values()) for side in (0, 1))
    row.n, row.test = members, "AUC near 0.5: two one-sided tests, DeLong by script"
    row.base, row.value = area(list(base.values())).auc, found.auc
    row.estimate, row.alternative = abs(found.auc - 0.5), 0.0
    row.ci_low, row.ci_high = _distance(found)
    row.p = found.p(margin)
    row.power_at = lambda size: equivalence_power(size, size * others / members, scripts, margin, alpha)
    row.weak = weak or (_one_sided(found, list(strata), margin) if row.p <= alpha else "")
    row.note = _note(found, strata)
    return row


def _assay(paired: Paired) -> str:
    """Why base does not show that it remembers the canaries; empty when it does."""
    strata = strata_of(paired, paired.base, ATTACKS["loss"])
    if not strata:
        return "the assay is weak: base's loss on the canaries was not measured"
    found = area(list(strata.values()))
    low, _ = found.interval
    if low > REMEMBERED:
        return ""
    return (
        f"base does not surely remember the canaries: AUC of its loss {found.auc:.2f} "
        f"(lower 95 % bound {low:.2f}, needs > {REMEMBERED:g})"
    )


def _one_sided(found: Area, languages: Sequence[str], margin: float) -> str:
    """Which script is beyond the margin although the average of all is not."""
    beyond = [
        f"{language_name(language)} {auc:.2f}"
        for language, auc in zip(languages, found.strata, strict=True)
        if abs(auc - 0.5) >= margin > abs(found.auc - 0.5)
    ]
    return f"the scripts' average hides that one is beyond the margin: AUC on {', '.join(beyond)}" if beyond else ""


def _distance(found: Area) -> tuple[float, float]:
    """95 % interval of |AUC − 0.5|."""
    ends = [end - 0.5 for end in found.interval]
    low = 0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends))
    return low, max(map(abs, ends))


def _note(found: Area, strata: dict[str, Stratum]) -> str:
    """AUC per script; and how many members an attacker would find at 1 % false alarms, which no gate judges."""
    aucs = ", ".join(f"{language_name(name)} {auc:.3f}" for name, auc in zip(strata, found.strata, strict=True))
    hits, members = true_positives(list(strata.values()))
    low, high = intervals.proportion_interval(hits, members)
    return (
        f"AUC by script: {aucs}; true positives at 1 % false positives {hits} of {members} "
        f"({low:.3f} to {high:.3f}), not judged"
    )
