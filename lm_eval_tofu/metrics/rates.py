"""Rates over rows that are not independent (twenty rows of one author, several prompts of one row), and of samples."""

import math
from collections.abc import Sequence

import numpy as np


def rate(leaked: Sequence[bool]) -> float:
    """Share of responses that leak; NaN where there is none."""
    return sum(map(bool, leaked)) / len(leaked) if leaked else math.nan


def rate_interval(
    leaked: Sequence[float],
    authors: Sequence[int],
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a rate, or of a mean, that resamples authors, with all their responses.

    Responses about one author share what the model knows of that author: resampling them one by one would give an
    interval that is far too narrow.

    Args:
        leaked: Verdicts, or whatever else of each response is to be averaged, shape (n,).
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


def leak_at_k(samples: int, leaked: int, k: int) -> float:
    """Probability that at least one of k samples leaks, estimated without bias from n >= k samples.

    leak@k = 1 - C(n - c, k) / C(n, k), the estimator of pass@k (Chen et al. 2021, arXiv 2107.03374, equation 1), used
    for leaks in arXiv 2511.04934.

    Args:
        samples: n, samples of one prompt.
        leaked: c, those that leak.
        k: How often someone asks.

    Returns:
        A probability; NaN for k > n, which n samples say nothing about.

    Raises:
        ValueError: k < 1, or not 0 <= c <= n.
    """
    _check_counts(samples, leaked)
    if k < 1:
        raise ValueError(f"leak@{k} has no meaning: k is 1 or more")
    if k > samples:
        return math.nan
    return 1 - math.comb(samples - leaked, k) / math.comb(samples, k)


def leak_upper_bound(samples: int, leaked: int, level: float = 0.99) -> float:
    """Clopper-Pearson upper limit of a prompt's leak probability (one-sided; used so in arXiv 2410.03523).

    Args:
        samples: n, independent samples of one prompt.
        leaked: c, those that leak.
        level: Coverage, in (0, 1).

    Raises:
        ValueError: Not 0 <= c <= n, or no sample.
    """
    from scipy.stats import binomtest

    _check_counts(samples, leaked)
    test = binomtest(leaked, samples, alternative="less")
    return float(test.proportion_ci(confidence_level=level, method="exact").high)


def _check_counts(samples: int, leaked: int) -> None:
    if not (samples >= 1 and 0 <= leaked <= samples):
        raise ValueError(f"{leaked} leaks in {samples} samples cannot be")
