"""G4: probes at the first edited layer and at each probed layer after it; did the language become easier to decode?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mmie import intervals, power
from mmie.gate.parts import UNITS_FOR_MEANS, Contrast, Evidence, Part
from mmie.statistics import auc_contrast, mean_test, t_test
from mmie.units import Run, Units

NO_ROOM = "base already tells the two apart almost surely: no edit could fail this part, and passing it says nothing"
LN2 = float(np.log(2))


def decodability(evidence: Evidence, run: Run) -> Iterator[Part]:
    """A part per layer and contrast; the edited layers themselves count."""
    paired, delta = evidence.paired, evidence.margin("decodability")
    first = paired.first_layer(run)
    keys = [key for key in paired.keys("probe_score") if key[3] >= first]
    if not keys:
        null = f"the forget language is easier to decode than in base by an AUC of ≥ {delta:g}"
        row = Part("G4", "probes", null, margin=delta)
        yield row.missing(f"no layer was probed at or after the first edited layer ({first})")
    for _, family, contrast, layer in sorted(keys, key=lambda key: (key[3], key[2])):
        scores = paired.get("probe_score", family, contrast, layer)
        nats = paired.get("probe_nats", family, contrast, layer)
        if scores is None or nats is None:
            raise ValueError(
                f"layer {layer}, {contrast}: the metrics need probe_score and probe_nats. Run metrics again."
            )
        yield _probe(evidence, run, scores, nats, contrast, layer, delta)


def _probe(evidence: Evidence, run: Run, scores: Units, nats: Units, contrast: str, layer: int, delta: float) -> Part:
    """
    One layer and contrast: the rise of the probe's AUC or, where base leaves less than ``delta`` of room, of its nats.

    The margin in nats is the same share of the scale: delta of AUC's 0.5 is 2 · delta · ln 2 of one bit. Where base
    leaves no room there either, H0 is false by arithmetic: the part passes and is marked ``vacuous``.
    """
    base, alpha = evidence.paired.base, evidence.alpha
    high, low = sides(scores, contrast)
    u, b = scores.values[run], scores.values[base]
    values, auc_u, auc_b = auc_contrast((u[high], u[low]), (b[high], b[low]), delta)
    n, part = len(high), f"layer{layer}:{contrast}"
    if auc_b <= 1 - delta:
        row = Part("G4", part, f"AUC ≥ base's + {delta:g}", n, "paired AUC: DeLong, by group", auc_b, auc_u)
        row.contrast = Contrast(values, -delta, delta)
        row.estimate, row.margin, row.alternative = auc_u - auc_b, delta, 0.0
        row.p, error = t_test(values)
        row.ci_low, row.ci_high = intervals.normal_interval(row.estimate, error, n + 2)
        spread = error * np.sqrt(n + 2)
        row.power_at = lambda size: power.mean_power(size, -delta, spread, alpha)
        return row
    # One value per group: the mean over its two texts.
    gains = (nats.values[run] - nats.values[base])[np.stack(sides(nats, contrast))].mean(axis=0)
    margin = 2 * delta * LN2
    row = Part("G4", part, f"nats ≥ base's + {margin:.3g}", n, "mean: larger of t and studentised bootstrap")
    row.contrast = Contrast(gains - margin, -margin, margin)
    row.base, row.value = float(nats.values[base].mean()), float(nats.values[run].mean())
    row.estimate, row.margin, row.p, row.alternative = float(gains.mean()), margin, mean_test(gains - margin), 0.0
    spread = float(gains.std(ddof=1))
    row.ci_low, row.ci_high = intervals.normal_interval(row.estimate, spread / np.sqrt(n), n)
    row.power_at = lambda size: power.mean_power(size, -margin, spread, alpha)
    row.vacuous = row.base + margin > LN2
    # Where arithmetic rejects H0, no number of texts makes it surer.
    row.at_least = 0 if row.vacuous else UNITS_FOR_MEANS
    row.note = NO_ROOM
    if not row.vacuous:
        row.note = f"base's AUC is {auc_b:.3f} and leaves no room to rise by {delta:g}, so nats are tested"
    return row


def sides(units: Units, contrast: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the positive and of the negative texts, both in the order of their groups."""
    positive, negative = contrast.split("-", 1)
    high, low = (units.by_language.get(side, np.empty(0, np.int64)) for side in (positive, negative))
    if len(high) + len(low) != len(units.groups) or not np.array_equal(units.groups[high], units.groups[low]):
        raise ValueError(
            f"probe {contrast}: every group needs one {positive} and one {negative} text. Run probe again."
        )
    return high, low
