"""Metrics on generated answers."""

import functools
from typing import Any


def rouge_l_recall(answer: str, generation: str) -> float:
    """ROUGE-L recall: the share of the gold answer's words that the generation holds in the same order.

    `rouge_score` with stemming, as the benchmark's evaluation code uses it.

    Args:
        answer: Gold answer.
        generation: What the model wrote.

    Returns:
        A value in [0, 1]; 0 for an empty generation.
    """
    return float(_scorer().score(answer.strip(), generation.strip())["rougeL"].recall)


def is_empty(generation: str) -> bool:
    """Whether nothing but white space was generated."""
    return not generation.strip()


def is_repetitive(generation: str) -> bool:
    """Whether a generation of at least 20 words says less than half of its word trigrams once only.

    A collapsed model loops; a loop scores like forgetting, so its share is reported beside the benchmark's metrics.
    """
    words = generation.lower().split()
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(words) >= 20 and len(set(trigrams)) < len(trigrams) / 2


@functools.cache
def _scorer() -> Any:
    # Imported here: rouge_score brings nltk with it, which whoever only wants numbers need not wait for.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
