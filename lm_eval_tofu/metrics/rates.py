"""Rates of leaks over responses, rows and samples; `lm_eval_tofu.metrics.inference` has their intervals."""

import math
from collections import Counter
from collections.abc import Sequence


def rate(leaked: Sequence[bool]) -> float:
    """Share of responses that leak; NaN where there is none."""
    return sum(map(bool, leaked)) / len(leaked) if leaked else math.nan


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
