"""Rates over rows that are not independent: twenty rows of one author, several prompts of one row."""

import math
from collections.abc import Sequence

import numpy as np


def rate(leaked: Sequence[bool]) -> float:
    """Share of responses that leak; NaN where there is none."""
    return sum(map(bool, leaked)) / len(leaked) if leaked else math.nan


def rate_interval(
    leaked: Sequence[bool],
    authors: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a rate that resamples authors, with all their responses.

    Responses about one author share what the model knows of that author: resampling them one by one would give an
    interval that is far too narrow.

    Args:
        leaked: Verdicts, shape (n,).
        authors: The author of each, shape (n,).
        level: Coverage, in (0, 1).
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        Lower and upper limit; NaN with fewer than two authors.

    Raises:
        ValueError: Another number of authors than of verdicts.
    """
    if len(leaked) != len(authors):
        raise ValueError(f"{len(leaked)} verdicts and {len(authors)} authors differ")
    _, places = np.unique(np.asarray(authors, dtype=int), return_inverse=True)
    count = int(places.max()) + 1 if len(places) else 0
    if count < 2:
        return math.nan, math.nan
    leaks = np.bincount(places, weights=np.asarray(leaked, dtype=float), minlength=count)
    responses = np.bincount(places, minlength=count)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    rates = leaks[drawn].sum(axis=1) / responses[drawn].sum(axis=1)
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
