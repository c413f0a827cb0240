"""Unlearning depth score (UDS): how much of what the full model's layers hold about a fact has been erased.

Lee et al. 2026, arXiv 2605.24614, as their code computes it (gnueaj/unlearning-depth-score, commit fc31639). A layer's
output of another model replaces that of the full model at the positions that predict the fact; delta is by how much
the mean log-probability of the fact's tokens falls. Stage 1 patches with the retain model: layers with s1 > 0.05 hold
the fact. Stage 2 patches with the audited model: s2 / s1 says how much of it is gone there.
"""

import math
from collections.abc import Sequence

import numpy as np

THRESHOLD = 0.05
"""A layer holds a fact if s1 is larger, in nats per token."""


def erased(s1: Sequence[float], s2: Sequence[float], threshold: float = THRESHOLD) -> float | None:
    """UDS of one row: sum of s1 clip(s2 / s1, 0, 1) / sum of s1, over the layers with s1 > threshold.

    Args:
        s1: Fall of the mean log-probability by layer with the retain model's states, shape (layers,), nats per token.
        s2: The same with the audited model's states.
        threshold: Layers that do not exceed it are left out.

    Returns:
        In [0, 1]: 0 if the audited model's layers hold the fact as the full model's do, 1 if they hold no more of it
        than the retain model's. None where no layer exceeds the threshold; NaN where a value is NaN.
    """
    first, second = np.asarray(s1, dtype=float), np.asarray(s2, dtype=float)
    if np.isnan(first).any() or np.isnan(second).any():
        return math.nan
    holds = first > threshold
    if not holds.any():
        return None
    weights = first[holds]
    return float((weights * np.clip(second[holds] / weights, 0, 1)).sum() / weights.sum())


def mean_over_rows(scores: Sequence[float | None]) -> float:
    """Mean over the rows that have a score; NaN where none has one, or one is NaN."""
    found = [score for score in scores if score is not None]
    return float(np.mean(found)) if found else math.nan
