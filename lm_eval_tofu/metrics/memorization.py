"""Memorisation of answers and membership-inference scores, as open-unlearning computes them, from per-token values.

A row's answer has the tokens a_1 ... a_T, end of sequence included (`lm_eval_tofu.chat.encode_answer`); t_i is
log p(a_i | question, a_<i) in nats under teacher forcing. open-unlearning (commit d3d7cf9) uses two sets of tokens:
`loss`, and what is made of it, all T; everything else the first T - 1, which leaves out the end of sequence.
Here each function takes the tokens that it uses, and NaN in gives NaN out.

Every membership score is higher where the row is less likely a member of the training data.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

EPS = 1e-10
"""What open-unlearning adds to the denominators of `privleak` and `relative_difference`."""
NO_RETAIN_AUC = 0.5
"""The AUC that open-unlearning's PrivLeak takes for the retain arm's where it has no log of that arm."""
MIN_K = 0.4
"""Share of tokens that Min-k and Min-k++ average over, as in open-unlearning's TOFU suite."""
LEAST_VARIANCE = 1e-6

Floats = npt.NDArray[np.floating]


def exact_memorization(is_top: Sequence[bool]) -> float:
    """Share of tokens that are the model's most likely one (Tirumala et al. 2022, arXiv 2205.10770).

    Args:
        is_top: Whether each token is the most likely one, shape (T - 1,).

    Returns:
        In [0, 1]; NaN without a token.
    """
    return float(np.mean(is_top)) if len(is_top) else math.nan


def extraction_strength(is_top: Sequence[bool], *, floor: bool = True) -> float:
    """Length of the longest suffix whose tokens are all the most likely ones, as a share of the answer.

    Carlini et al. 2021 (arXiv 2012.07805) ask how short a prefix suffices for the rest to be extracted. open-unlearning
    ends the search at the last token whether it is right or wrong, so its value is never below one token's share, 1/L:
    of a model that knows nothing, the mean over rows says how long the answers are.

    Args:
        is_top: Whether each token is the most likely one, shape (L,), L = T - 1.
        floor: Give at least 1/L, as open-unlearning does.

    Returns:
        In [0, 1]; 0 without a token.
    """
    if not len(is_top):
        return 0.0
    wrong = np.flatnonzero(~np.asarray(is_top, dtype=bool))
    suffix = len(is_top) - 1 - int(wrong[-1]) if len(wrong) else len(is_top)
    return max(suffix, int(floor)) / len(is_top)


def loss(logprobs: Sequence[float]) -> float:
    """The LOSS attack: mean negative log-likelihood (Yeom et al. 2018, arXiv 1709.01604).

    Args:
        logprobs: t, shape (T,), nats.

    Returns:
        Nats per token; NaN without a token.
    """
    return -float(np.mean(logprobs)) if len(logprobs) else math.nan


def zlib_score(loss: float, text: str) -> float:
    """The ZLib attack (Carlini et al. 2021, arXiv 2012.07805): loss per byte of the compressed answer.

    Args:
        loss: Mean negative log-likelihood, nats per token. (The mean is divided and not the sum, as open-unlearning.)
        text: The answer's tokens decoded without special tokens, white space kept.
    """
    return loss / len(zlib.compress(text.encode()))


def min_k(values: Sequence[float], k: float = MIN_K) -> float:
    """Min-k% Prob (Shi et al. 2023, arXiv 2310.16789): - mean of the max(1, floor(k n)) smallest values.

    Args:
        values: t, or for Min-k++ `normalised_logprobs`, shape (T - 1,).
        k: Share of the tokens, in (0, 1].

    Returns:
        In nats per token for log-probabilities; 0 without a token, as open-unlearning.
    """
    if not len(values):
        return 0.0
    # NaN is sorted last, where it would not count.
    smallest = np.sort(np.asarray(values, dtype=float))[: max(1, int(len(values) * k))]
    return math.nan if np.isnan(values).any() else -float(smallest.mean())


def normalised_logprobs(
    logprobs: Sequence[float] | Floats, means: Sequence[float] | Floats, variances: Sequence[float] | Floats
) -> Floats:
    """What Min-k++ (Zhang et al. 2024, arXiv 2404.02936) averages: z = (t - m) / sqrt(max(v, 1e-6)).

    Args:
        logprobs: t, shape (n,).
        means: m, mean of log p(x) over the vocabulary with x drawn from p at that position, shape (n,).
        variances: v, its variance, shape (n,).
    """
    spread = np.sqrt(np.maximum(np.asarray(variances, dtype=float), LEAST_VARIANCE))
    return np.asarray((np.asarray(logprobs, dtype=float) - np.asarray(means, dtype=float)) / spread)


def auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """Area under the ROC curve: P(holdout score > forget score), ties counted half.

    To be read from both sides. 1: forget rows are far likelier than rows of the same form that no arm has seen, so they
    are still memorised; 0.5: the two cannot be told apart; 0: forget rows are far less likely, which betrays just as
    well what was unlearned. Near 0 is over-forgetting and no privacy.

    Args:
        forget: Membership scores of forget rows, shape (n,), n >= 1.
        holdout: Those of rows that the model never saw, shape (m,), m >= 1.

    Raises:
        ValueError: One of them is empty.
    """
    n, m = len(forget), len(holdout)
    if not n or not m:
        raise ValueError(f"an AUC compares forget rows ({n}) with holdout rows ({m}): both must have some")
    scores = np.asarray([*forget, *holdout], dtype=float)
    if np.isnan(scores).any():
        return math.nan
    # The Mann-Whitney U of the holdout rows, whose mid-ranks count ties half.
    return float((rankdata(scores)[n:].sum() - m * (m + 1) / 2) / (n * m))


def separation(auc: float) -> float:
    """|2 AUC - 1|: 0 where forget and holdout rows cannot be told apart, 1 where they can, in either direction."""
    return abs(2 * auc - 1)


def privleak(auc: float, retain_auc: float = NO_RETAIN_AUC) -> float:
    """PrivLeak (MUSE, Shi et al. 2024, arXiv 2407.06460): 100 ((1 - AUC) - (1 - AUC_retain)) / (1 - AUC_retain).

    0: as the retain arm. Negative, at least -100: still a member. Positive, without a bound as AUC_retain goes to 1:
    over-forgotten.

    Args:
        auc: AUC of Min-k of the audited model, as `auc` gives it (MUSE counts it as 1 - AUC).
        retain_auc: That of the retain arm.

    Returns:
        In percent.
    """
    return relative_difference(1 - auc, 1 - retain_auc)


def relative_difference(value: float, reference: float) -> float:
    """100 (value - reference) / (reference + 1e-10), in percent: open-unlearning's `rel_diff`."""
    return (value - reference) / (reference + EPS) * 100
