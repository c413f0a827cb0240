"""How much of a fact is among the words and values of a text."""

import functools
from collections.abc import Sequence

from lm_eval_tofu.metrics import roles
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.heard import Heard
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.polarity import UNSURE
from lm_eval_tofu.metrics.values import agreement
from lm_eval_tofu.metrics.words import NEGATIONS, stem

SYNONYM = 0.93
"""Of a word that is there in another word."""
_SYNONYM_IN_TITLE = 0.65  # a title is seldom put in other words, and a wrong one often shares a topic with it
_LOOSE = 0.9  # of a word that is there misspelt, run together with another, or in a compound
STRICT = frozenset((Kind.NAME, Kind.NUMBER, Kind.PLACE))
"""Kinds of facts that have no synonyms."""
_SPELLED = frozenset((Kind.NAME, Kind.TITLE, Kind.TERM, Kind.PLACE))  # kinds that are recognised when misspelt
_LEAST_SPELLED = 6
_NEAR = 6  # more words than it has a name may be spread over

Part = tuple[str, frozenset[str], float]
"""A stem of a fact, the stems that may stand for it, its share of the fact."""


def match(fact: Fact, parts: Sequence[Part], heard: Heard, shown: frozenset[str]) -> float:
    """How much of a fact of a kind of its own is there, in [0, 1]."""
    if fact.meanings:
        mentions = heard.denied_values if fact.denied else heard.values
        pairs = ((sought, said) for sought in fact.meanings for mention in mentions for said in mention.meanings)
        return max((agreement(sought, said) for sought, said in pairs), default=0.0)
    if fact.kind is Kind.ROLES:
        return roles.agree(fact, heard)
    there = heard.denied if fact.denied else heard.said
    if fact.kind is Kind.CHOICE:
        if any(map(there.issuperset, fact.rivals)):
            return 0.0
        if not UNSURE.isdisjoint(heard.words):
            return 0.0
        if not fact.denied and any(alias <= heard.denied for alias in fact.aliases):
            return 1.0
        there = there | (NEGATIONS & heard.denied)  # "no" denies what follows, and itself
    found = 0.0
    loose = set[str]()
    for part, synonyms, share in parts:
        if part in there:
            found += share
        elif not synonyms.isdisjoint(there):
            found += (_SYNONYM_IN_TITLE if fact.kind is Kind.TITLE else SYNONYM) * share
        elif (fact.kind in _SPELLED and is_loosely(part, parts, there, shown, fact.kind)) or (
            fact.kind not in STRICT and _is_apart(part, heard)
        ):
            found += _LOOSE * share
            loose.add(part)
    if (
        found < 1
        and fact.kind is not Kind.CHOICE
        and any(not (missing := alias - there) or missing <= loose for alias in fact.aliases)
    ):
        return 1.0
    return found


def _is_apart(part: str, heard: Heard) -> bool:
    """Whether a word is there as two: "flower pot"."""
    beginnings = _beginnings(part)
    if beginnings.isdisjoint(heard.said):
        return False
    pairs = zip(heard.words, heard.words[1:], strict=False)
    return any(first in beginnings and stem(first + second) == part for first, second in pairs)


@functools.lru_cache(maxsize=8192)
def _beginnings(part: str) -> frozenset[str]:
    least = 2 if len(part) >= _LEAST_SPELLED and part[0] != "#" else len(part)
    return frozenset(part[:end] for end in range(least, len(part)))


def is_loosely(part: str, parts: Sequence[Part], there: set[str], shown: frozenset[str], kind: Kind) -> bool:
    """Whether a word is there with one letter wrong, run together with another of the fact, or inside a compound.

    What the prompt shows is no form of anything.
    """
    if part[0] == "#" or part[0].isdecimal():
        return False
    if len(parts) > 1:
        for other, _, _ in parts:
            if part + other in there or other + part in there:
                return True
    size = len(part)
    if size < _LEAST_SPELLED:
        return False
    first = part[0]
    for word in there:
        length = len(word)
        if length < size - 1:
            continue
        if length > size + 1:
            if kind is Kind.TERM and word.startswith(part) | word.endswith(part) and word not in shown:
                return True
        elif (
            word[0] == first
            and word + "i" != part
            and part + "i" != word
            and is_one_edit(part, word)
            and word not in shown
        ):
            return True
    return False


def is_one_edit(first: str, second: str) -> bool:
    """Whether one letter more, less or other, or two that are swapped, makes one word the other."""
    if len(first) > len(second):
        first, second = second, first
    start = 0
    while start < len(first) and first[start] == second[start]:
        start += 1
    if len(first) < len(second):
        return first[start:] == second[start + 1 :]
    rest, other = first[start:], second[start:]
    return rest[1:] == other[1:] or (rest[:2] == other[1::-1] and rest[2:] == other[2:])
