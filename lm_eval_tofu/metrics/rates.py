"""Rates over rows that are not independent (twenty rows of one author, several prompts of one row), and of samples."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


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
    means = resampled_means(leaked, authors, resamples=resamples, seed=seed)
    return interval(means, level=level)


def resampled_means(
    values: Sequence[float], authors: Sequence[int], *, resamples: int = 2000, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Means of bootstrap samples that draw authors, with all their values.

    Two sequences about the same authors and with the same seed are drawn alike: the difference of what this gives for
    them is the bootstrap of the difference of their means, paired by author.

    Args:
        values: Shape (n,).
        authors: The author of each, shape (n,).
        resamples: Bootstrap samples.
        seed: Of the resampling.

    Returns:
        Shape (resamples,); empty with fewer than two authors.

    Raises:
        ValueError: Another number of authors than of values.
    """
    if len(values) != len(authors):
        raise ValueError(f"{len(values)} values and {len(authors)} authors differ")
    _, places = np.unique(np.asarray(authors, dtype=int), return_inverse=True)
    count = int(places.max()) + 1 if len(places) else 0
    if count < 2:
        return np.empty(0)
    sums = np.bincount(places, weights=np.asarray(values, dtype=float), minlength=count)
    sizes = np.bincount(places, minlength=count)
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    means: npt.NDArray[np.float64] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def interval(draws: npt.NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap draws, shape (resamples,); NaN where there is none or one of them is NaN."""
    if not draws.size or np.isnan(draws).any():
        return math.nan, math.nan
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
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


def rows_in_all(rows: Sequence[int], families: Sequence[str], counts: Sequence[bool]) -> set[int]:
    """The rows that count in every family of prompts: families are comparable over the same rows only.

    Args:
        rows: Row of each answer.
        families: Family of its prompt; each asks a row once at most.
        counts: Whether it counts there, as one on a specific row does.
    """
    times = Counter(row for row, counted in zip(rows, counts, strict=True) if counted)
    asked = len(set(families))
    return {row for row, number in times.items() if number == asked}
