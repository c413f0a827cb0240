"""Overall scores of an unlearned model as harmonic means, by the formulas of the unlearning depth score's authors.

open-unlearning's paper (Dorna et al. 2025, arXiv 2506.12618) rates methods by Memorisation, Privacy and Utility and
their harmonic mean, but its code computes none of them, and its s_MIA is not published. Lee et al. (arXiv 2605.24614,
gnueaj/unlearning-depth-score, commit fc31639) state a formula for each, which these functions follow; their published
table of 152 models agrees with them to rounding. 1 is best everywhere.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import hmean


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean; 0 as soon as a value is 0 or negative, NaN of nothing or with a NaN."""
    if not len(values) or np.isnan(values).any():
        return math.nan
    return 0.0 if min(values) <= 0 else float(hmean(values))


def memorisation(
    extraction_strength: float, exact_memorization: float, paraphrase_probability: float, prob_mean: float
) -> float:
    """HM(1 - ES, 1 - EM, 1 - paraphrase probability, 1 - truth ratio): 1 where nothing is memorised.

    Args:
        extraction_strength: Mean over forget rows, with open-unlearning's floor.
        exact_memorization: Mean over forget rows.
        paraphrase_probability: Mean of exp(-loss) of the paraphrased answers (`forget_Q_A_PARA_Prob`).
        prob_mean: Mean of correct / (correct + wrong): both call it truth ratio.
    """
    parts = (extraction_strength, exact_memorization, paraphrase_probability, prob_mean)
    return harmonic_mean([1 - part for part in parts])


def membership_similarity(auc: float, retain_auc: float) -> float:
    """s = clip(1 - abs(AUC - AUC_retain) / AUC_retain, 0, 1): 1 where an attack works as on the retain arm.

    Returns:
        In [0, 1]; NaN where the retain arm's AUC is 0.
    """
    if retain_auc <= 0 or math.isnan(auc) or math.isnan(retain_auc):
        return math.nan
    return max(0.0, 1 - abs(auc - retain_auc) / retain_auc)


def privacy(similarities: Sequence[float], uds: float | None = None) -> float:
    """HM over the attacks LOSS, ZLib, Min-k and Min-k++ of `membership_similarity`; with UDS, HM of that and UDS.

    Args:
        similarities: One for each attack.
        uds: The unlearning depth score, which its authors count here; None leaves it out, as open-unlearning.
    """
    attacks = harmonic_mean(similarities)
    return attacks if uds is None else harmonic_mean([attacks, uds])


def utility(model_utility: float, fluency: float | None = None, full: float | None = None) -> float:
    """HM(model utility, fluency), as a share of the full arm's.

    Args:
        model_utility: Harmonic mean of the nine components.
        fluency: In [0, 1], a classifier's probability that an answer is no gibberish; None leaves it out.
        full: The same of the full arm; None: not divided.
    """
    value = model_utility if fluency is None else harmonic_mean([model_utility, fluency])
    return value if full is None else value / full if full > 0 else math.nan


def overall(memorisation: float, privacy: float, utility: float) -> float:
    """HM of the three."""
    return harmonic_mean([memorisation, privacy, utility])


def n_gram_entropy(text: str) -> float:
    """Fluency as RWKU (Jin et al. 2024, arXiv 2406.10890) and ROME (Meng et al. 2022, arXiv 2202.05262) measure it.

    (2/3 H_2 + 4/3 H_3) / 2, H_n the entropy in bits of the text's n-grams of words: low for a text that repeats itself.
    Words are NLTK's, without its split into sentences, which needs a download.

    Returns:
        In bits, from 0; longer texts can have more. NaN where the text has fewer than three words.
    """
    from nltk.tokenize import NLTKWordTokenizer

    words = NLTKWordTokenizer().tokenize(text)
    if len(words) < 3:
        return math.nan
    return (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: Sequence[str], n: int) -> float:
    _, counts = np.unique(
        [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)], return_counts=True
    )
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())
