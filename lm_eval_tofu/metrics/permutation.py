"""Permutation tests of Kolmogorov-Smirnov distances that exchange two models within subjects.

The KS test takes all values for independent. But both models answer the same questions, which makes its p value too
large, and rows of one subject (TOFU: author) depend on each other, which makes it too small. If the two do not differ,
their values of any subject can be exchanged: the null distribution comes from exchanging them in randomly chosen
subjects, all rows of a subject together.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lm_eval_tofu.metrics.inference import MIN_CLUSTERS

DRAWS = 9999
"""Random exchanges, where there are too many to take all."""

Floats = npt.NDArray[np.float64]


class PermutationTest(NamedTuple):
    """A test that exchanges two models.

    Attributes:
        statistic: What was observed.
        p_value: Share of the exchanges with a statistic that is at least as large. With G subjects none is below
            2^(1 - G), since exchanging all of them changes nothing; NaN with fewer than `MIN_CLUSTERS` subjects.
    """

    statistic: float
    p_value: float


def ks_test(
    ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[int], *, draws: int = DRAWS, seed: int = 0
) -> PermutationTest:
    """KS distance D of two models on the same rows, and its p value if they were exchangeable within subjects.

    Args:
        ours: Truth ratios of one model, shape (n,).
        theirs: Those of the other on the same rows, shape (n,).
        clusters: The subject of each row, shape (n,).
        draws: Random exchanges; all 2^G are taken where they are no more.
        seed: Of the random exchanges.

    Returns:
        D and the p value; both are NaN where a value is NaN.
    """
    counts = _counts([ours, theirs], clusters)
    if counts is None:
        return PermutationTest(math.nan, math.nan)
    # Each subject's part of F_ours - F_theirs, which changes its sign when the models are exchanged there.
    parts = counts[0] - counts[1]

    def distances(signs: Floats) -> Floats:
        return np.asarray(np.abs(signs @ parts).max(axis=1) / len(clusters), dtype=float)

    observed = float(distances(np.ones((1, len(parts))))[0])
    return PermutationTest(observed, _p_value(distances, observed, len(parts), draws, seed))


def ks_difference_test(
    first: Sequence[float],
    other: Sequence[float],
    reference: Sequence[float],
    clusters: Sequence[int],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> PermutationTest:
    """Whether two models differ in their KS distance D from a third, exchanging the two within subjects.

    Args:
        first: Truth ratios of one model, shape (n,).
        other: Those of the other on the same rows, shape (n,).
        reference: Those of the retain arm on the same rows, shape (n,).
        clusters: What is exchanged together, shape (n,).
        draws: Random exchanges; all 2^G are taken where they are no more.
        seed: Of the random exchanges.

    Returns:
        D(other) - D(first), and the two-sided p value; both are NaN where a value is NaN.
    """
    counts = _counts([first, other, reference], clusters)
    if counts is None:
        return PermutationTest(math.nan, math.nan)
    # F_first - F_reference and F_other - F_reference are (F_first + F_other) / 2 - F_reference, which no exchange
    # changes, plus and minus (F_first - F_other) / 2, of which each subject's part changes its sign.
    shared = ((counts[0] + counts[1]) / 2 - counts[2]).sum(axis=0)
    parts = (counts[0] - counts[1]) / 2

    def differences(signs: Floats) -> Floats:
        half = signs @ parts
        distances = (np.abs(each).max(axis=1) for each in (shared - half, shared + half))
        return np.asarray(np.subtract(*distances) / len(clusters), dtype=float)

    observed = float(differences(np.ones((1, len(parts))))[0])
    p_value = _p_value(lambda signs: np.abs(differences(signs)), abs(observed), len(parts), draws, seed)
    return PermutationTest(observed, p_value)


def _counts(samples: Sequence[Sequence[float]], clusters: Sequence[int]) -> Floats | None:
    """How many values of each model and cluster are at most each distinct one, shape (models, clusters, values).

    Counts and not shares, whose sums would depend on their order in the last digits.
    """
    lengths = {len(clusters), *map(len, samples)}
    if len(lengths) > 1:
        raise ValueError(f"{', '.join(str(len(each)) for each in samples)} values and {len(clusters)} clusters differ")
    values = np.asarray(samples, dtype=float)
    if not values.size or np.isnan(values).any():
        return None
    _, positions = np.unique(np.asarray(clusters, dtype=int), return_inverse=True)
    distinct, ranks = np.unique(values, return_inverse=True)
    counts = np.zeros((len(samples), positions.max() + 1, len(distinct)))
    np.add.at(counts, (np.arange(len(samples))[:, None], positions, ranks.reshape(values.shape)), 1)
    return counts.cumsum(axis=2)


def _p_value(statistic: Callable[[Floats], Floats], observed: float, count: int, draws: int, seed: int) -> float:
    """Share of the exchanges that reach the observed statistic; of random ones, the observed one counts too."""
    if count < MIN_CLUSTERS:
        return math.nan
    exact = 2**count <= draws
    if exact:
        exchanged = (np.arange(2**count)[:, None] >> np.arange(count)) % 2 == 1
    else:
        exchanged = np.random.default_rng(seed).random((draws, count)) < 0.5
    signs = np.where(exchanged, -1.0, 1.0)
    blocks = (signs[start : start + 500] for start in range(0, len(signs), 500))  # all at once take much memory
    reached = sum(int((statistic(block) >= observed).sum()) for block in blocks)
    return reached / len(signs) if exact else (reached + 1) / (draws + 1)
