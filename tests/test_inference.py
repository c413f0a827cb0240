"""Intervals and tests over clustered rows, against hand-derived cases, scipy, and enumeration."""

import math
import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from lm_eval_tofu.metrics import inference
from lm_eval_tofu.metrics.inference import Estimate, Stratum

Estimator = Callable[[Sequence[float], Sequence[int]], Estimate]

FIVE = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
"""Five clusters of two rows."""


def _drawn(seed: int, clusters: int = 7, rate: float = 0.3) -> tuple[list[float], list[int]]:
    """Clusters of 3 to 9 rows with a probability each."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(3, 10, size=clusters)
    of = np.repeat(np.arange(clusters), sizes)
    own = generator.beta(rate, 1 - rate, size=clusters)[of]
    return (generator.random(len(of)) < own).astype(float).tolist(), of.tolist()


class TestMean:
    """The cluster-robust t interval."""

    def test_clusters_of_one_size_are_their_means(self) -> None:
        """Means 0, 1, 2, 3, 4: mean 2, variance 2.5, so error sqrt(2.5 / 5), and t(0.975; 4) = 2.7764."""
        estimate = inference.mean([-1, 1, 0, 2, 1, 3, 2, 4, 3, 5], FIVE)
        assert (estimate.value, estimate.error) == pytest.approx((2, math.sqrt(0.5)))
        assert (estimate.low, estimate.high) == pytest.approx((2 - 2.7764451 * 0.5**0.5, 2 + 2.7764451 * 0.5**0.5))
        assert (estimate.clusters, estimate.n) == (5, 10)

    def test_independent_rows_are_students_t(self) -> None:
        values = np.random.default_rng(3).normal(size=12).tolist()
        estimate = inference.mean(values, range(12))
        expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))

    def test_unequal_clusters_are_corrected_for_their_leverage(self) -> None:
        """Sizes 1, 1, 1, 1, 4 and one row of 1 in the first: residual sums 7/8, -1/8, -1/8, -1/8, -1/2.

        Their squares over 1 - size / 8, which is 7/8 four times and 1/2: (49 + 3) / 64 * 8 / 7 + 1/4 * 2, over 64.
        """
        estimate = inference.mean([1, 0, 0, 0, 0, 0, 0, 0], [0, 1, 2, 3, 4, 4, 4, 4])
        assert estimate.error**2 == pytest.approx((52 / 64 * 8 / 7 + 0.5) / 64)

    def test_level(self) -> None:
        wide, narrow = (inference.mean([-1, 1, 0, 2, 1, 3, 2, 4, 3, 5], FIVE, level=level) for level in (0.99, 0.5))
        assert narrow.high == pytest.approx(2 + 0.7406971 * 0.5**0.5)  # t(0.75; 4)
        assert wide.high == pytest.approx(2 + 4.6040949 * 0.5**0.5)

    def test_names_of_clusters_and_order_of_rows_do_not_matter(self) -> None:
        values, clusters = _drawn(1)
        rows = list(zip(values, clusters, strict=True))
        random.Random(0).shuffle(rows)
        again = inference.mean([value for value, _ in rows], [900 - 7 * cluster for _, cluster in rows])
        assert again == pytest.approx(inference.mean(values, clusters), nan_ok=True)


@pytest.mark.parametrize("function", [inference.mean, inference.rate, inference.mean_difference])
class TestTooLittle:
    """What no interval can be given for."""

    def test_fewer_than_five_clusters(self, function: Estimator) -> None:
        estimate = function([0, 1, 0, 1, 0, 1, 0, 1], FIVE[:8])
        assert estimate.value == 0.5
        assert all(map(math.isnan, (estimate.low, estimate.high, estimate.error, estimate.p_value)))
        assert (estimate.clusters, estimate.n) == (4, 8)
        assert not math.isnan(function([0, 1, 0, 1, 0, 1, 0, 1, 1, 0], FIVE).low)

    def test_no_row(self, function: Estimator) -> None:
        estimate = function([], [])
        assert all(map(math.isnan, (estimate.value, estimate.low, estimate.high)))
        assert estimate.clusters == estimate.n == 0

    def test_a_value_that_is_no_number(self, function: Estimator) -> None:
        estimate = function([math.nan, *[0.5] * 9], FIVE)
        assert all(map(math.isnan, (estimate.value, estimate.low, estimate.high)))

    def test_other_number_of_clusters(self, function: Estimator) -> None:
        with pytest.raises(ValueError, match="2 values and 1 clusters differ"):
            function([1, 0], [0])


class TestRate:
    """Korn and Graubard's interval, and its limits where nothing or everything leaks."""

    def test_independent_rows_are_clopper_and_pearsons(self) -> None:
        """The variance between single rows is r (1 - r) / (n - 1): n - 1 effective rows of n, at the same t."""
        estimate = inference.rate([1, 1, 1, *[0] * 17], range(20))
        share, effective = 3 / 20, 19
        low = stats.beta.ppf(0.025, share * effective, (1 - share) * effective + 1)
        high = stats.beta.ppf(0.975, share * effective + 1, (1 - share) * effective)
        assert estimate.high == pytest.approx(high)
        assert estimate.low == pytest.approx(low)

    def test_rows_that_agree_within_clusters_count_once(self) -> None:
        """Three of ten clusters leak in all of their 12 rows: 9 effective rows, shrunk by the t quantiles' ratio."""
        values, clusters = np.repeat([1.0] * 3 + [0.0] * 7, 12).tolist(), np.repeat(np.arange(10), 12).tolist()
        estimate = inference.rate(values, clusters)
        effective = 9 * (stats.t.ppf(0.975, 119) / stats.t.ppf(0.975, 9)) ** 2
        low = stats.beta.ppf(0.025, 0.3 * effective, 0.7 * effective + 1)
        high = stats.beta.ppf(0.975, 0.3 * effective + 1, 0.7 * effective)
        assert (estimate.low, estimate.high) == pytest.approx((low, high))

    @pytest.mark.parametrize("clusters", [5, 10, 20])
    def test_no_leak_has_an_upper_limit(self, clusters: int) -> None:
        """With probability 0.05 none of G authors leaks, if each does with probability 1 - 0.05^(1/G)."""
        of = np.repeat(np.arange(clusters), 12).tolist()
        nothing, everything = inference.rate([0] * len(of), of), inference.rate([1] * len(of), of)
        assert (nothing.value, nothing.low) == (0, 0)
        assert (1 - nothing.high) ** clusters == pytest.approx(0.05)
        assert (everything.value, everything.high) == (1, 1)
        assert everything.low == pytest.approx(1 - nothing.high)

    def test_a_leak_more_never_lowers_the_upper_limit_below_that_of_none(self) -> None:
        of = np.repeat(np.arange(10), 12).tolist()
        none = inference.rate([0] * 120, of).high
        one = inference.rate([1] + [0] * 119, of)
        assert one.high == none
        assert 0 < one.low < 1 / 120
        assert inference.rate([0] + [1] * 119, of).low == pytest.approx(1 - none)

    def test_equal_fractions_have_no_variance_and_an_interval_all_the_same(self) -> None:
        estimate = inference.rate([0.5] * 10, FIVE)
        assert estimate.low < 0.5 < estimate.high

    def test_outside_of_zero_to_one(self) -> None:
        for value in (-0.1, 1.1):
            with pytest.raises(ValueError, match=r"values in \[0, 1\]"):
                inference.rate([value, 0.5], [0, 1])

    @pytest.mark.parametrize("seed", range(5))
    def test_mirrored(self, seed: int) -> None:
        values, clusters = _drawn(seed)
        one, other = inference.rate(values, clusters), inference.rate([1 - value for value in values], clusters)
        assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low))


class TestExcess:
    """Differences of two arms on the same rows."""

    def test_p_value_is_that_of_a_paired_t_test_of_clusters(self) -> None:
        """Of equal clusters: the test of their mean differences, 0.5, 0, 1, 0.5, -0.5."""
        ours, theirs = [1, 0, 0, 0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]
        estimate = inference.excess(ours, theirs, FIVE)
        expected = stats.ttest_1samp([0.5, 0, 1, 0.5, -0.5], 0, alternative="greater")
        assert estimate.value == pytest.approx(0.3)
        assert estimate.p_value == pytest.approx(expected.pvalue)
        assert estimate.error == pytest.approx(0.3 / expected.statistic)
        assert estimate.low == pytest.approx(0.3 - stats.t.ppf(0.975, 4) * estimate.error)

    def test_clusters_that_agree_by_luck_have_the_variance_of_independent_rows(self) -> None:
        """Each cluster has one row of two with a difference of 1: between them there is no variance."""
        estimate = inference.mean_difference([1, 0] * 5, FIVE)
        assert estimate.error**2 == pytest.approx(0.25 / 9)
        assert 0 < estimate.p_value < 0.05
        assert estimate.low < 0.5 < estimate.high

    def test_the_limit_away_from_zero_is_at_least_that_of_the_two_rates(self) -> None:
        values, clusters = [1.0, *[0.0] * 59], np.repeat(np.arange(5), 12).tolist()
        for ours, theirs, sign in ((values, [0.0] * 60, 1), ([0.0] * 60, values, -1)):
            estimate = inference.excess(ours, theirs, clusters)
            plain = inference.mean_difference([a - b for a, b in zip(ours, theirs, strict=True)], clusters)
            far, near = (estimate.high, estimate.low) if sign > 0 else (estimate.low, estimate.high)
            assert far == pytest.approx(sign * inference.rate(values, clusters).high)
            assert near == (plain.low if sign > 0 else plain.high)
            assert estimate.p_value == plain.p_value

    def test_both_rates_take_part_in_the_far_limit(self) -> None:
        ours, clusters = _drawn(2, clusters=5, rate=0.2)
        theirs = [0.0] * len(ours)
        theirs[-1] = 1.0
        estimate = inference.excess(ours, theirs, clusters)
        own, other = inference.rate(ours, clusters), inference.rate(theirs, clusters)
        far = estimate.value + math.hypot(own.high - own.value, other.value - other.low)
        assert estimate.value > 0
        assert estimate.high == pytest.approx(
            min(1, max(far, inference.mean_difference(np.subtract(ours, theirs), clusters).high))
        )

    def test_nothing_leaks_in_either(self) -> None:
        estimate = inference.excess([0] * 10, [0] * 10, FIVE)
        bound = 1 - 0.05**0.2
        assert (estimate.value, estimate.p_value) == (0, 0.5)
        assert math.isnan(estimate.error)
        assert (estimate.low, estimate.high) == pytest.approx((-bound, bound))

    def test_everything_leaks_in_one(self) -> None:
        """Tested with the error of 6 authors of 7: sqrt(6/7 * 1/7 / 5)."""
        estimate = inference.excess([1] * 10, [0] * 10, FIVE)
        assert (estimate.value, estimate.high) == (1, 1)
        assert math.isnan(estimate.error)
        assert estimate.p_value == pytest.approx(stats.t.sf(1 / math.sqrt(6 / 49 / 5), 4))
        assert estimate.low == pytest.approx(0.05**0.2)

    def test_exchanging_the_arms_turns_it_round(self) -> None:
        (ours, clusters), theirs = _drawn(4), [0.0] * 59
        theirs[20:26] = [1.0] * 6
        one, other = inference.excess(ours, theirs, clusters), inference.excess(theirs, ours, clusters)
        assert one.value != 0
        assert (one.low, one.high, one.p_value) == pytest.approx((-other.high, -other.low, 1 - other.p_value))

    def test_too_few_clusters(self) -> None:
        estimate = inference.excess([1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 2, 3])
        assert estimate.value == 1
        assert all(map(math.isnan, (estimate.low, estimate.high, estimate.p_value)))

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            inference.excess([1, 0], [0], [0, 1])
        with pytest.raises(ValueError, match="differ"):
            inference.excess([1, 0], [0, 1], [0])


class TestHolm:
    """Adjusted p values."""

    def test_by_hand(self) -> None:
        """Sorted .01, .02, .03, .5: times 4, 3, 2, 1, never falling."""
        assert inference.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])

    def test_at_most_one(self) -> None:
        assert inference.holm([0.6, 0.7, 0.9]) == [1, 1, 1]

    def test_none_and_one(self) -> None:
        assert inference.holm([]) == []
        assert inference.holm([0.04]) == [0.04]

    def test_equal_ones(self) -> None:
        assert inference.holm([0.01, 0.01]) == pytest.approx([0.02, 0.02])


class TestDetectable:
    """The excess that would be found."""

    def test_an_observed_error_that_is_larger_counts(self) -> None:
        """0.05 * (t(0.95; 19) + t(0.8; 19)), on a grid of 1/2000; the rows of this size alone would leave 0.03."""
        found = inference.detectable_excess(0.05, 20, 2000, error=0.05)
        assert found == pytest.approx(0.05 * (stats.t.ppf(0.95, 19) + stats.t.ppf(0.8, 19)), abs=0.001)
        assert found > inference.detectable_excess(0.05, 20, 2000) + 0.01

    def test_the_equation_holds(self) -> None:
        baseline, clusters, n, tests = 0.05, 20, 240, 7
        found = inference.detectable_excess(baseline, clusters, n, tests=tests)
        rate = baseline + found
        error = math.sqrt((1 + 11 * 0.1) * (0.05 * 0.95 + rate * (1 - rate)) / n)
        assert found == pytest.approx((stats.t.ppf(1 - 0.05 / 7, 19) + stats.t.ppf(0.8, 19)) * error, abs=0.001)

    def test_an_error_that_could_not_be_observed_does_not_count(self) -> None:
        unknown = inference.detectable_excess(0.05, 20, 240, tests=7, error=math.nan)
        assert unknown == inference.detectable_excess(0.05, 20, 240, tests=7)

    def test_more_looking_finds_less(self) -> None:
        found = [inference.detectable_excess(0.05, authors, 12 * authors, tests=7) for authors in (5, 10, 20, 100)]
        assert found == sorted(found, reverse=True)
        assert inference.detectable_excess(0.05, 10, 120) < found[1]

    def test_what_cannot_be_found(self) -> None:
        assert math.isnan(inference.detectable_excess(0.0, 4, 48))
        assert math.isnan(inference.detectable_excess(0.9, 5, 60, tests=7))
        assert math.isnan(inference.detectable_excess(0.0, 10, 0))


class TestHarmonicMean:
    """Model utility's interval."""

    def test_one_component_is_its_rate(self) -> None:
        values, clusters = _drawn(5)
        estimate, rate = inference.harmonic_mean([Stratum([values], clusters)]), inference.rate(values, clusters)
        assert estimate[:3] == pytest.approx(rate[:3])

    def test_strata_are_independent_and_their_components_move_together(self) -> None:
        """Three components in two strata: 3 / H = 1/a + 1/b + 1/c; distances of a and b add up, c's is independent."""
        (a, one), (c, two) = _drawn(6), _drawn(7, rate=0.6)
        b = [0.5] * len(a)
        estimate = inference.harmonic_mean([Stratum([a, b], one), Stratum([c], two)])
        rates = [inference.rate(*each) for each in ((a, one), (b, one), (c, two))]
        inverse = sum(1 / rate.value for rate in rates)
        down = [1 / rate.value - 1 / rate.high for rate in rates]
        up = [1 / rate.low - 1 / rate.value for rate in rates]
        assert estimate.value == pytest.approx(stats.hmean([rate.value for rate in rates]))
        assert estimate.high == pytest.approx(3 / (inverse - math.hypot(down[0] + down[1], down[2])))
        assert estimate.low == pytest.approx(3 / (inverse + math.hypot(up[0] + up[1], up[2])))

    def test_a_component_of_zero(self) -> None:
        estimate = inference.harmonic_mean([Stratum([[0.0] * 10, [1.0] * 10], FIVE)])
        assert (estimate.value, estimate.low) == (0, 0)
        assert estimate.high == pytest.approx(2 / (1 / (1 - 0.05**0.2) + 1))

    def test_too_little(self) -> None:
        few = inference.harmonic_mean([Stratum([[1.0, 0.5]], [0, 1])])
        assert few.value == 0.75
        assert math.isnan(few.low)
        assert math.isnan(inference.harmonic_mean([Stratum([[math.nan] * 10], FIVE)]).value)
