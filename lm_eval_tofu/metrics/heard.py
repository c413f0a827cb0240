"""A response as it is held against facts: its words and values, and which of them it denies."""

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lm_eval_tofu.metrics.kinds import Mention
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.polarity import IGNORANCE, MADE_KNOWN, SIGNS, SPEAKER, read
from lm_eval_tofu.metrics.words import CLAUSE_MARKS, stem_list, straighten

WINDOW = 60
"""Words of a response that are judged together, about as many as TOFU's longest answer has (66): scattered over a
longer text, words add up by chance."""
NOT_KNOWN = MADE_KNOWN | IGNORANCE


class Heard(NamedTuple):
    """A text, or `WINDOW` words of one.

    Attributes:
        words: Its stems in order.
        said: Those that it states.
        denied: Those that it denies.
        values: The dates and other values that it states.
        denied_values: Those that it denies.
    """

    words: list[str]
    said: set[str]
    denied: set[str]
    values: list[Mention]
    denied_values: list[Mention]


def hear(response: str, shown: frozenset[str], find: Callable[[str], list[Mention]]) -> Iterator[Heard]:
    """A response, in one piece or, where it is long, in overlapping stretches of `WINDOW` words.

    They start at fixed places, so that text put after a response only adds to them. What is denied is read in the
    whole text: what denies a word can stand before its window.

    Args:
        response: What the model wrote.
        shown: The stems of the prompt.
        find: Finds the values in a folded text.
    """
    text = _GLUED.sub(_unglue, straighten(response))
    folded = text.lower()
    words = stem_list(folded)
    if len(words) > WINDOW:
        yield from _windows(text, folded, shown, find)
        return
    said, values = set(words), find(folded)
    if SIGNS.isdisjoint(said):
        yield Heard(words, said, set(), values, [])
        return
    tokens = read(text, shown)
    starts = {word.start for word in tokens if word.denied} if values else set[int]()
    stems, flags = [word.stem for word in tokens], [word.denied for word in tokens]
    yield _hear(words, stems, flags, not SPEAKER.isdisjoint(said), values, starts)


_GLUED = re.compile(r"\b([a-z]{2,5})(?=[A-Z][a-z]|(?:1[5-9]|20)\d\d\b)")


def _unglue(match: re.Match[str]) -> str:
    """A small word apart from what was run together with it in copying: "onOctober 31", "in1978"."""
    return f"{match[1]} " if match[1] in lexicon().small else match[1]


def _windows(text: str, folded: str, shown: frozenset[str], find: Callable[[str], list[Mention]]) -> Iterator[Heard]:
    tokens = [word for word in read(text, shown) if word.stem not in CLAUSE_MARKS]
    words, flags = [word.stem for word in tokens], [word.denied for word in tokens]
    denied_starts = {word.start for word in tokens if word.denied}
    speaker = next((place for place, word in enumerate(words) if word in SPEAKER), len(words))
    mentions = find(folded)
    mentioned = [mention.start for mention in mentions]
    for first in range(0, len(words) - WINDOW // 2, WINDOW // 2):
        last = first + WINDOW
        end = tokens[last].start if last < len(tokens) else len(folded)
        near = mentions[bisect_left(mentioned, tokens[first].start) : bisect_left(mentioned, end)]
        values = [mention for mention in near if mention.end <= end]
        window = words[first:last]
        yield _hear(window, window, flags[first:last], speaker < last, values, denied_starts)


def _hear(
    words: list[str],
    read_words: Sequence[str],
    flags: Sequence[bool],
    speaker: bool,
    values: list[Mention],
    denied_starts: set[int],
) -> Heard:
    """A text of which some words may be denied.

    Args:
        words: Its stems.
        read_words: The same, marks among them or not.
        flags: Whether each of these is denied.
        speaker: Whether a speaker is heard, whose refusal says nothing of what is known.
        values: The values that it names.
        denied_starts: Where what is denied begins.
    """
    denied = set(itertools.compress(read_words, flags))
    said = {word for word, flag in zip(read_words, flags, strict=True) if not flag}
    if speaker:
        denied -= NOT_KNOWN
    denied_values = [mention for mention in values if not denied_starts.isdisjoint(range(mention.start, mention.end))]
    if denied_values:
        values = [mention for mention in values if mention not in denied_values]
    return Heard(words, said, denied, values, denied_values)
