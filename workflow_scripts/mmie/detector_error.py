"""
What a language detector's own errors do to a rate that it measured.

The detector calls a share q of the continuations the forget language; with its sensitivity se and specificity sp the
true share is (q + sp − 1) / (se + sp − 1) (Rogan and Gladen 1978, Am. J. Epidemiol. 107:71–76).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmie.intervals import proportion_interval

LEVEL_Z = 1.959963984540054
CLASS, HALF, KIND = "forget", "measure", "text"
"""The row of ``tables.LID_QUALITY`` that LES rests on: on texts that no rule of the detector was made by looking at."""


@dataclass(frozen=True)
class Quality:
    """Counts on labelled texts: ``hits`` of ``positives`` found, ``false_alarms`` of ``negatives`` wrongly found."""

    positives: int
    hits: int
    negatives: int
    false_alarms: int

    @property
    def youden(self) -> float:
        """Youden's J: sensitivity + specificity − 1, the share of a true rise that the detector shows."""
        return self.hits / self.positives - self.false_alarms / self.negatives

    @property
    def youden_low(self) -> float:
        """Lower end of J's 95 % interval: Newcombe's (1998, Stat. Med. 17:873–890), from two Wilson intervals."""
        missed = self.hits / self.positives - proportion_interval(self.hits, self.positives)[0]
        wrong = proportion_interval(self.false_alarms, self.negatives)[1] - self.false_alarms / self.negatives
        return self.youden - float(np.hypot(missed, wrong))


def quality_of(table: pd.DataFrame) -> Quality | None:
    """
    The detector's quality for LES from rows of ``tables.LID_QUALITY``; None when the table is empty.

    Raises ValueError when it has rows, but not exactly one of the kind needed.
    """
    if table.empty:
        return None
    rows = table[(table["label"] == CLASS) & (table["half"] == HALF) & (table["kind"] == KIND)]
    if len(rows) != 1:
        raise ValueError(
            f"lid_quality has {len(rows)} rows for label {CLASS}, half {HALF}, kind {KIND}, and the gate needs one: "
            "label texts of the forget language and of others in the file of config `lid.labelled`, or set it to null."
        )
    row = rows.iloc[0]
    return Quality(*(int(row[name]) for name in ("positives", "hits", "negatives", "false_alarms")))


def corrected_rate(count: int, n: int, quality: Quality) -> tuple[float, float, float]:
    """
    True rate behind ``count`` of ``n`` detected, and its 95 % interval, within [0, 1].

    The interval carries the uncertainty of sensitivity and specificity (Lang and Reiczigel 2014, Prev. Vet. Med.
    113:13–22). Raises ValueError where the detector is no better than chance.
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"a rate needs 0 ≤ count ≤ n and n ≥ 1, got {count} of {n}.")
    if quality.youden <= 0:
        raise ValueError(
            f"the detector is no better than chance (se + sp − 1 = {quality.youden:.2f}): no rate is known."
        )
    rate = (count / n - quality.false_alarms / quality.negatives) / quality.youden
    z = LEVEL_Z
    # Each proportion is moved a little towards one half, which is what makes the interval cover near 0 and 1.
    q, n_q = (count + z**2 / 2) / (n + z**2), n + z**2
    se, n_se = (quality.hits + 1) / (quality.positives + 2), quality.positives + 2
    sp, n_sp = (quality.negatives - quality.false_alarms + 1) / (quality.negatives + 2), quality.negatives + 2
    middle = (q + sp - 1) / (se + sp - 1)
    wrong_se, wrong_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z**2 * (middle * wrong_se - (1 - middle) * wrong_sp)
    error = np.sqrt(q * (1 - q) / n_q + middle**2 * wrong_se + (1 - middle) ** 2 * wrong_sp) / (se + sp - 1)
    low, high = (float(np.clip(middle + shift + side * z * error, 0, 1)) for side in (-1, 1))
    rate = float(np.clip(rate, 0, 1))
    return rate, min(low, rate), max(high, rate)
