"""KS distances under exchanges of two models within subjects, against scipy and enumeration."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lm_eval_tofu.metrics import permutation


@pytest.mark.parametrize("seed", range(3))
def test_all_exchanges(seed: int) -> None:
    """Six subjects of 1 to 4 rows with ties: against scipy's distance of each of the 64 exchanged samples."""
    generator = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(6), generator.integers(1, 5, size=6))
    ours, theirs = generator.normal(size=(2, len(clusters))).round(1)
    observed = stats.ks_2samp(ours, theirs).statistic
    reached = 0
    for exchanged in itertools.product((False, True), repeat=6):
        turned = np.array(exchanged)[clusters]
        distance = stats.ks_2samp(np.where(turned, theirs, ours), np.where(turned, ours, theirs)).statistic
        reached += distance >= observed - 1e-9
    test = permutation.ks_test(ours.tolist(), theirs.tolist(), clusters.tolist())
    assert test.statistic == pytest.approx(observed)
    assert test.p_value == pytest.approx(reached / 64)


def test_random_exchanges_agree_with_all() -> None:
    generator = np.random.default_rng(8)
    clusters = np.repeat(np.arange(10), 6).tolist()
    ours, theirs = (generator.normal(size=60) + 0.4).tolist(), generator.normal(size=60).tolist()
    exact = permutation.ks_test(ours, theirs, clusters).p_value
    drawn = permutation.ks_test(ours, theirs, clusters, draws=1000).p_value
    # Five standard errors of a share of 1,000 draws.
    assert drawn == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 1000))
    assert drawn == permutation.ks_test(ours, theirs, clusters, draws=1000).p_value


def test_arms_that_differ_throughout_reach_the_smallest_p_value() -> None:
    """Exchanging nothing and exchanging everything give the same D: 2 of 2^6."""
    clusters = np.repeat(np.arange(6), 2).tolist()
    test = permutation.ks_test([1.0] * 12, [2.0] * 12, clusters)
    assert test == (1, 2 / 64)


def test_equal_arms() -> None:
    assert permutation.ks_test([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], range(5)) == (0, 1)


def test_too_little() -> None:
    few = permutation.ks_test([1, 2, 3, 4], [5, 6, 7, 8], range(4))
    assert few.statistic == 1
    assert math.isnan(few.p_value)
    for ours in ([], [math.nan, 2, 3, 4, 5]):
        test = permutation.ks_test(ours, [1.0] * len(ours), range(len(ours)))
        assert all(map(math.isnan, test))
    with pytest.raises(ValueError, match="2, 1 values and 2 clusters differ"):
        permutation.ks_test([1, 2], [1], [0, 1])


@pytest.mark.parametrize("seed", range(3))
def test_difference_of_two_distances(seed: int) -> None:
    generator = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(6), generator.integers(1, 5, size=6))
    first, other, reference = generator.normal(size=(3, len(clusters))).round(1)
    other = other + 0.5

    def difference(turned: object) -> float:
        one, two = np.where(turned, other, first), np.where(turned, first, other)
        return float(stats.ks_2samp(two, reference).statistic - stats.ks_2samp(one, reference).statistic)

    observed = difference(np.zeros(len(clusters), dtype=bool))
    reached = sum(
        abs(difference(np.array(exchanged)[clusters])) >= abs(observed) - 1e-9
        for exchanged in itertools.product((False, True), repeat=6)
    )
    test = permutation.ks_difference_test(first.tolist(), other.tolist(), reference.tolist(), clusters.tolist())
    assert test.statistic == pytest.approx(observed)
    assert test.p_value == pytest.approx(reached / 64)
