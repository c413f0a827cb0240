"""Intervals and t tests for rows that come in clusters: rows of one subject (TOFU: author) are not independent.

A leak audit asks some tens of rows about each of 5 to 20 subjects, and what a model knows of a subject shows in all of
its rows. Everything here takes the subject as the unit that varies. With fewer than `MIN_CLUSTERS` subjects nothing is
stated: limits and p values are NaN.

`benchmarks/verdict_level.py` measures how often these intervals cover and how often the tests err.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

MIN_CLUSTERS = 5
"""Fewest subjects that an interval or a test is given for; a t interval over fewer is too wide to say anything."""
LEVEL = 0.95
"""Coverage of the intervals."""
ALPHA = 0.05
"""Level of a verdict over several audits."""
POWER = 0.8
"""Power that the smallest detectable excess is stated for."""
ASSUMED_CORRELATION = 0.1
"""Intraclass correlation of leaks within a subject that the smallest detectable excess is stated for."""

Floats = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean over clustered rows.

    Attributes:
        value: The mean over all rows; NaN where there is none.
        low: Lower limit of its interval; NaN with fewer than `MIN_CLUSTERS` clusters.
        high: Upper limit.
        error: Its standard error, likewise; NaN too where no row differs from another.
        clusters: Number of clusters.
        n: Number of rows.
        p_value: One-sided, that the mean is above 0; NaN where none was asked for, or likewise.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    error: float = math.nan
    clusters: int = 0
    n: int = 0
    p_value: float = math.nan


def mean(values: Sequence[float], clusters: Sequence[int], *, level: float = LEVEL) -> Estimate:
    """Mean with a cluster-robust t interval.

    The variance is that of the clusters' residual sums, each corrected for its leverage (CR2, Bell and McCaffrey 2002),
    and the quantile is Student's with G - 1 degrees of freedom.

    Args:
        values: Of any range, shape (n,).
        clusters: The cluster of each, shape (n,).
        level: Coverage, in (0, 1).
    """
    data = _Clustered.of(values, clusters)
    if not data.is_enough:
        return data.bare()
    error = math.sqrt(data.variance)
    half = _t(data.count, (1 + level) / 2) * error
    return Estimate(data.mean, data.mean - half, data.mean + half, error, data.count, data.n)


def rate(values: Sequence[float], clusters: Sequence[int], *, level: float = LEVEL) -> Estimate:
    """Share, or mean of values in [0, 1], with an interval that stays in [0, 1].

    Korn and Graubard (1998): the Clopper-Pearson interval for the effective number of rows, which is the number of
    independent rows that would have the observed cluster-robust variance, reduced for G - 1 degrees of freedom.

    If no row leaks, no variance can be observed, and the limit must hold for any correlation within clusters. The worst
    case is that a subject's rows leak all or not at all; then G subjects are G observations, and the one-sided upper
    limit is 1 - (1 - level)^(1/G). If all rows leak, the same holds for the lower limit.

    Args:
        values: In [0, 1], shape (n,).
        clusters: The cluster of each, shape (n,).
        level: Coverage, in (0, 1).
    """
    data = _Clustered.of(values, clusters)
    if data.n and (data.values.min() < 0 or data.values.max() > 1):
        raise ValueError("a rate is a mean of values in [0, 1]")
    if not data.is_enough:
        return data.bare()
    share = data.mean
    bound = extreme_bound(data.count, level)
    if data.values.max() == 0:
        return Estimate(0.0, 0.0, bound, math.nan, data.count, data.n)
    if data.values.min() == 1:
        return Estimate(1.0, 1 - bound, 1.0, math.nan, data.count, data.n)
    tail = (1 - level) / 2
    variance = max(data.variance, data.row_variance)
    effective = min(data.n, share * (1 - share) / variance) if variance > 0 else data.n
    effective *= (_t(data.n, 1 - tail) / _t(data.count, 1 - tail)) ** 2
    leaks, others = share * effective, (1 - share) * effective
    low = min(float(special.betaincinv(leaks, others + 1, tail)), 1 - bound)
    high = max(float(special.betaincinv(leaks + 1, others, 1 - tail)), bound)
    return Estimate(share, low, high, math.sqrt(variance), data.count, data.n)


def extreme_bound(clusters: int, level: float = LEVEL) -> float:
    """One-sided upper limit of a rate when no cluster has a leak: 1 - (1 - level)^(1/G)."""
    return float(1 - (1 - level) ** (1 / clusters))


def excess(
    ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[int], *, level: float = LEVEL
) -> Estimate:
    """Difference of two rates over the same rows, with its interval and the one-sided p value of an excess.

    The p value is of a cluster-robust t test (see `mean`) of the rows' differences. Their variance is at least the one
    that independent rows would have, otherwise clusters that agree by chance give a variance of 0.

    The interval is the t interval, but its limit away from 0 is at least as far out as the two rates' own intervals put
    it (MOVER, Zou and Donner 2008): where few subjects leak, the variance is underestimated more often than not, and
    the t interval alone ends too early. Where no row leaks in either arm, both limits are that of `rate`.

    Args:
        ours: Values of the audited model in [0, 1], shape (n,).
        theirs: Those of the retain arm on the same rows, shape (n,).
        clusters: The cluster of each row, shape (n,).
        level: Coverage, in (0, 1).
    """
    estimate = mean_difference([a - b for a, b in zip(ours, theirs, strict=True)], clusters, level=level)
    moved = widened_by_mover(estimate, rate(ours, clusters, level=level), rate(theirs, clusters, level=level))
    return moved._replace(low=max(moved.low, -1.0), high=min(moved.high, 1.0))


def widened_by_mover(difference: Estimate, own: Estimate, other: Estimate) -> Estimate:
    """A difference whose limit away from 0 is at least as far out as the intervals of its two parts put it.

    MOVER (Zou and Donner 2008): the squares of the distances of the parts' limits add up. See `excess` for the reason.
    """
    low, high = difference.low, difference.high
    if difference.value >= 0:
        high = max(high, difference.value + math.hypot(own.high - own.value, other.value - other.low))
    if difference.value <= 0:
        low = min(low, difference.value - math.hypot(own.value - own.low, other.high - other.value))
    return difference._replace(low=low, high=high)


def mean_difference(differences: Sequence[float], clusters: Sequence[int], *, level: float = LEVEL) -> Estimate:
    """Mean of differences with a t interval and the one-sided p value that it is above 0; see `excess`.

    Where all rows differ by the same, no variance can be observed: there is no error, the limits are `extreme_bound`
    away, and the test takes the error if one leaking and one non-leaking subject were added (Agresti and Coull 1998).

    Args:
        differences: After minus before, or the audited model's minus the retain arm's, shape (n,).
        clusters: The cluster of each, shape (n,).
        level: Coverage, in (0, 1).
    """
    data = _Clustered.of(differences, clusters)
    if not data.is_enough:
        return data.bare()
    if data.values.max() == data.values.min():
        share = (data.count + 1) / (data.count + 2)
        error, tested = math.nan, math.sqrt(share * (1 - share) / data.count)
        half = extreme_bound(data.count, level)
    else:
        error = tested = math.sqrt(max(data.variance, data.row_variance))
        half = _t(data.count, (1 + level) / 2) * error
    p_value = float(special.stdtr(data.count - 1, -data.mean / tested))
    return Estimate(data.mean, data.mean - half, data.mean + half, error, data.count, data.n, p_value)


def detectable_excess(
    baseline: float, clusters: int, n: int, *, tests: int = 1, error: float = 0.0, power: float = POWER
) -> float:
    """The smallest excess that an audit of a size finds with a given power.

    The delta for which delta = (t(1 - ALPHA / tests) + t(power)) * error(delta), with Student's quantiles of G - 1
    degrees of freedom and

        error(delta)^2 = deff * (r (1 - r) + (r + delta) (1 - r - delta)) / n,   deff = 1 + (n / G - 1) * correlation,

    that is for two independent arms, of which one leaks at the retain arm's rate r and the other delta more, with the
    intraclass correlation `ASSUMED_CORRELATION`; but error(delta) is at least the error that was observed, if one was.

    Args:
        baseline: Rate r of the retain arm.
        clusters: G, subjects.
        n: Rows.
        tests: Audits that the verdict is corrected for; the first one of Holm's steps has to be passed.
        error: Standard error that was observed for the excess; NaN where none could be.
        power: In (0, 1).

    Returns:
        In (0, 1 - baseline]; NaN where not even that would be found, or with fewer than `MIN_CLUSTERS` clusters.
    """
    if clusters < MIN_CLUSTERS or n < clusters:
        return math.nan
    factor = _t(clusters, 1 - ALPHA / tests) + _t(clusters, power)
    effect = 1 + (n / clusters - 1) * ASSUMED_CORRELATION

    def missing(delta: float) -> float:
        rate_of_ours = baseline + delta
        variance = effect * (baseline * (1 - baseline) + rate_of_ours * (1 - rate_of_ours)) / n
        return delta - factor * max(math.sqrt(max(0.0, variance)), error)  # which is the first where error is NaN

    deltas = np.linspace(0, 1 - baseline, 2001)[1:]
    return next((float(delta) for delta in deltas if missing(float(delta)) >= 0), math.nan)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for their number (Holm 1979): at most alpha of all families of tests contain a false one.

    Args:
        p_values: Shape (m,); none may be NaN.
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


class Stratum(NamedTuple):
    """Rows whose means are components of a harmonic mean.

    Attributes:
        values: Shape (k, n): k components on the same rows.
        clusters: The cluster of each row, shape (n,).
    """

    values: Sequence[Sequence[float]]
    clusters: Sequence[int]


def harmonic_mean(strata: Sequence[Stratum], *, level: float = LEVEL) -> Estimate:
    """Harmonic mean H of the means of all components, with an interval made of the components' own.

    The limits of sum(1 / c_k) = K / H come from those of every c_k (see `rate`) by MOVER (Zou and Donner 2008), which
    adds the squares of their distances; here the squares of the strata, whose components answer the same questions and
    are added as if they moved together. This is a little too wide where they do not.

    Args:
        strata: Independent sets of rows with values in [0, 1]; the components of one set share its rows.
        level: Coverage, in (0, 1).

    Returns:
        H. Where a component is 0, so is H, and the upper limit is that of all components at theirs. No limits where a
        stratum has fewer than `MIN_CLUSTERS` clusters; NaN where a value is NaN.
    """
    estimates = [[rate(values, stratum.clusters, level=level) for values in stratum.values] for stratum in strata]
    every = [estimate for each in estimates for estimate in each]
    n = sum(len(stratum.clusters) for stratum in strata)
    if any(math.isnan(estimate.value) for estimate in every):
        return Estimate(math.nan, n=n)
    nothing = any(estimate.value == 0 for estimate in every)
    inverse = math.inf if nothing else sum(1 / estimate.value for estimate in every)
    value = len(every) / inverse
    if any(math.isnan(estimate.low) for estimate in every):
        return Estimate(value, n=n)
    if nothing:
        return Estimate(0.0, 0.0, len(every) / sum(1 / estimate.high for estimate in every), n=n)
    fewer = math.hypot(*(sum(1 / each.value - 1 / each.high for each in own) for own in estimates))
    more = math.hypot(*(sum(_inverse(each.low) - 1 / each.value for each in own) for own in estimates))
    return Estimate(value, len(every) / (inverse + more), min(1.0, len(every) / (inverse - fewer)), n=n)


def _inverse(value: float) -> float:
    return 1 / value if value > 0 else math.inf


@dataclass(frozen=True, slots=True)
class _Clustered:
    """Values with their clusters' sums.

    Attributes:
        values: Shape (n,).
        residuals: Sum of value - mean in each cluster, shape (G,).
        sizes: Rows of each cluster, shape (G,).
    """

    values: Floats
    residuals: Floats
    sizes: Floats

    @classmethod
    def of(cls, values: Sequence[float], clusters: Sequence[int]) -> "_Clustered":
        if len(values) != len(clusters):
            raise ValueError(f"{len(values)} values and {len(clusters)} clusters differ")
        array = np.asarray(values, dtype=float)
        if not array.size:
            return cls(array, array, array)
        _, positions = np.unique(np.asarray(clusters, dtype=int), return_inverse=True)
        residuals: Floats = np.bincount(positions, weights=array - array.mean()).astype(float)
        return cls(array, residuals, np.bincount(positions).astype(float))

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if self.n else math.nan

    @property
    def is_enough(self) -> bool:
        return self.count >= MIN_CLUSTERS and math.isfinite(self.mean)

    @property
    def variance(self) -> float:
        """Of the mean, between clusters: sum of squared residual sums / (1 - n_g / n), over n^2."""
        return float((self.residuals**2 / (1 - self.sizes / self.n)).sum()) / self.n**2

    @property
    def row_variance(self) -> float:
        """Of the mean, as if all rows were independent."""
        return float(self.values.var()) / (self.n - 1)

    def bare(self) -> Estimate:
        return Estimate(self.mean, clusters=self.count, n=self.n)


def _t(count: int, quantile: float) -> float:
    """Quantile of Student's t with `count` - 1 degrees of freedom."""
    return float(special.stdtrit(count - 1, quantile))
