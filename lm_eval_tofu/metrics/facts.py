"""What a fact is: one thing that a row's gold answer says and nothing that the model was shown says already."""

from dataclasses import dataclass, field
from typing import NamedTuple

from lm_eval_tofu.metrics.dates import Date
from lm_eval_tofu.metrics.kinds import Kind, Tier, Value


@dataclass(frozen=True)
class Fact:
    """One thing that the answer says and the prompt does not.

    Attributes:
        kind: What it is about.
        text: As the answer says it.
        weight: What it gives away, in [0, 1].
        denied: Whether the answer denies it ("has not won the Booker Prize"): then a response must deny it too.
        parts: Its words and their weights; the words that the prompt shows are not among them.
        aliases: Sets of stems, each of which names the same thing.
        meanings: What a date or another value can mean.
        rivals: Of a choice, the stems of each other thing that it could have been.
        start: Where the folded answer says it first.
    """

    kind: Kind
    text: str
    weight: float
    denied: bool = False
    parts: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    aliases: tuple[frozenset[str], ...] = field(default=(), repr=False)
    meanings: tuple[Date | Value, ...] = field(default=(), repr=False)
    rivals: tuple[frozenset[str], ...] = field(default=(), repr=False)
    start: int = field(default=0, repr=False, compare=False)


class RowFacts(NamedTuple):
    """What a row's answer gives away.

    Attributes:
        facts: Its novel facts: names and the like first, content last.
        tier: How much they give away.
        shown: The stems that the prompt shows.
        shown_values: The dates and other values that the prompt shows.
        chance: Of a guessable answer, the chance that a guess is right; else 0.
    """

    facts: tuple[Fact, ...]
    tier: Tier
    shown: frozenset[str]
    shown_values: frozenset[Date | Value]
    chance: float = 0.0
