"""What Benjamini and Hochberg's procedure does to six gates, all of whose H0 are true."""

from __future__ import annotations

import numpy as np

GATES = 6


def any_false_pass(sims: int) -> dict[float, tuple[float, float]]:
    """Per level: how often any of six independent gates passes wrongly, without and with the procedure."""
    p = np.random.default_rng(9).random((sims, GATES))
    return {
        level: (float((p <= level).any(axis=1).mean()), float(rejects_any(p, level).mean())) for level in (0.05, 0.1)
    }


def rejects_any(p: np.ndarray, q: float) -> np.ndarray:
    """Whether the procedure rejects anything, for each row of p-values: some k-th smallest p is at most k·q / m."""
    steps = np.arange(1, p.shape[1] + 1) * q / p.shape[1]
    return (np.sort(p, axis=1) <= steps).any(axis=1)
