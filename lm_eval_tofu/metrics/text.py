"""Metrics on generated answers."""

import functools
import zlib
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


COMPRESSION_LIMIT = 2.4
"""Ratio of a text's bytes to its compressed bytes above which it repeats itself.

The limit by which Whisper finds its own loops (Radford et al. 2022, arXiv 2212.04356, section 4.5).
"""


def is_repetitive(generation: str) -> bool:
    """Whether a generation repeats itself, in words, characters or tokens of any script: it compresses too well.

    A collapsed model loops; a loop scores like forgetting, so its share is reported beside the benchmark's metrics.
    White space counts once, so that the padding of a table is no repetition.
    """
    # Byte-level tokenizers can leave half a character.
    text = " ".join(generation.split()).encode(errors="replace")
    return len(text) > COMPRESSION_LIMIT * len(zlib.compress(text))


@functools.cache
def _scorer() -> Any:
    # Imported here: rouge_score brings nltk with it, which whoever only wants numbers need not wait for.
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)
