"""The benchmark's metrics, as open-unlearning (the benchmark's own evaluation code) computes them.

All functions take numbers that are already per token: a loss is the mean negative log-probability of an answer's
tokens, end of turn included, in nats. NaN in gives NaN out, and nothing in raises: no row is ever left out in silence.
"""

import math
import sys
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import hmean, ks_2samp

EPS = 1e-10
"""What open-unlearning adds to denominators. It matters only where probabilities come near it: in collapsed models."""


class ForgetQuality(NamedTuple):
    """Two-sample Kolmogorov-Smirnov test between the truth ratios of a model and of the retain arm.

    Attributes:
        p_value: Forget quality; 1 where the two samples cannot be told apart.
        log10_p_value: Its decimal logarithm, readable where the p value is 1e-100.
        statistic: D, the largest distance between the two empirical distribution functions.
        n: Rows compared.
    """

    p_value: float
    log10_p_value: float
    statistic: float
    n: int


def probability(loss: float) -> float:
    """Geometric mean of the token probabilities: exp(-loss) (Maini et al. 2024, section 2.2.1)."""
    return math.exp(-loss)


def normalised_probability(loss: float, perturbed_losses: Sequence[float], eps: float = EPS) -> float:
    """Probability of the right answer among the offered ones: p / (p + sum of the perturbed p).

    Used on the real authors and the world facts (Maini et al. 2024, section 2.2.1), where each row offers options.

    Args:
        loss: Loss of the right answer, nats/token.
        perturbed_losses: Losses of the wrong ones, shape (k,), k >= 1.
        eps: Added to the denominator.
    """
    _require(perturbed_losses, "perturbed answers")
    with np.errstate(invalid="ignore"):
        denominator = np.logaddexp.reduce([-loss, *(-np.asarray(perturbed_losses, dtype=float)), _log(eps)])
    return math.exp(-loss - float(denominator))


def truth_ratio(loss: float, perturbed_losses: Sequence[float], eps: float = EPS) -> float:
    """R = exp(-mean_j loss(perturbed_j)) / (exp(-loss) + eps), computed as a difference of logarithms.

    The ratio of wrong to right of open-unlearning's `truth_ratio`, which the published tables use, with a geometric
    mean over the perturbed answers. Above 1 the model finds the perturbed answers likelier than the true one.

    Args:
        loss: Loss of the paraphrased answer (forget and retain rows) or of the gold answer (real authors, world facts).
        perturbed_losses: Losses of the perturbed answers, shape (k,), k >= 1.
        eps: Added to the denominator.

    Returns:
        R in [0, inf); the largest double where it overflows, which has the same rank and can be written as JSON.
    """
    _require(perturbed_losses, "perturbed answers")
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        log_ratio = -float(np.mean(perturbed_losses)) - float(np.logaddexp(-loss, _log(eps)))
    if math.isnan(log_ratio):
        return math.nan
    return math.exp(log_ratio) if log_ratio < 709 else sys.float_info.max


def prob_mean(loss: float, perturbed_losses: Sequence[float], eps: float = EPS) -> float:
    """c / (c + w + eps), c = exp(-loss), w = exp(-mean_j loss(perturbed_j)), computed as a difference of logarithms.

    What open-unlearning's paper (Dorna et al. 2025, arXiv 2506.12618) calls truth ratio; its code has the name
    `prob_mean` for it. Above 0.5 the model finds the true answer likelier: the opposite sense of `truth_ratio`.

    Args:
        loss: Loss of the paraphrased answer.
        perturbed_losses: Losses of the perturbed answers, shape (k,), k >= 1.
        eps: Added to the denominator.

    Returns:
        In [0, 1].

    Raises:
        ValueError: No perturbed answer.
    """
    _require(perturbed_losses, "perturbed answers")
    with np.errstate(invalid="ignore"):  # NaN in, NaN out
        wrong = -float(np.mean(perturbed_losses))
        return math.exp(-loss - float(np.logaddexp.reduce([-loss, wrong, _log(eps)])))


def forget_truth_ratio(ratios: Sequence[float]) -> float:
    """Mean of min(R, 1/R) over the forget rows: 1 where true and perturbed answers are equally likely."""
    values = np.asarray(_require(ratios, "truth ratios"), dtype=float)
    with np.errstate(divide="ignore"):
        return float(np.mean(np.minimum(values, 1 / values)))


def utility_truth_ratio(ratios: Sequence[float]) -> float:
    """Mean of max(0, 1 - R) over the rows of a utility set: 1 where the true answer is by far the likeliest."""
    return float(np.mean(np.maximum(0, 1 - np.asarray(_require(ratios, "truth ratios"), dtype=float))))


def forget_quality(ratios: Sequence[float], retain_ratios: Sequence[float]) -> ForgetQuality:
    """Forget quality (Maini et al. 2024, section 2.2.2): the KS test's p value.

    Args:
        ratios: Truth ratios R of the audited model, shape (n,).
        retain_ratios: Those of the retain arm on the same rows, shape (n,).
    """
    _require(ratios, "truth ratios")
    if len(ratios) != len(retain_ratios):
        raise ValueError(
            f"forget quality compares the same rows: {len(ratios)} here, {len(retain_ratios)} in the reference"
        )
    if np.isnan(ratios).any() or np.isnan(retain_ratios).any():
        return ForgetQuality(math.nan, math.nan, math.nan, len(ratios))
    with warnings.catch_warnings():
        # Where D is next to nothing, rounding puts the exact p above 1, and scipy says that it takes the limit, 1.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        result = ks_2samp(ratios, retain_ratios)
    p_value = float(result.pvalue)
    return ForgetQuality(
        p_value, math.log10(p_value) if p_value > 0 else -math.inf, float(result.statistic), len(ratios)
    )


def model_utility(components: Sequence[float]) -> float:
    """Harmonic mean of the nine components; 0 as soon as one of them is 0 (Maini et al. 2024, section 2.2.1)."""
    values = np.asarray(_require(components, "components"), dtype=float)
    if np.isnan(values).any():
        return math.nan
    if (values < 0).any():
        raise ValueError(f"a component of model utility is negative: {values.tolist()}")
    return 0.0 if (values == 0).any() else float(hmean(values))


def _log(eps: float) -> float:
    return math.log(eps) if eps > 0 else -math.inf


def _require(values: Sequence[float], what: str) -> Sequence[float]:
    if len(values) == 0:
        raise ValueError(f"no {what}: a metric over nothing has no value")
    return values
