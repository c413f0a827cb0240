"""Where an answer begins to give something away: the cut that masked prompts end at."""

from typing import NamedTuple

from lm_eval_tofu.metrics.background import Background
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import BASE_WEIGHTS, Kind
from lm_eval_tofu.metrics.leak import row as scored_row
from lm_eval_tofu.metrics.words import places


class Located(NamedTuple):
    """A fact and where the answer first says it.

    Attributes:
        start: Where in the answer.
        fact: The fact.
    """

    start: int
    fact: Fact


def is_telling(fact: Fact) -> bool:
    """Whether a fact is a name, a date and the like that says more than a word of content can.

    "Author" is an occupation, and wording all the same.
    """
    return fact.kind is not Kind.CONTENT and fact.weight > BASE_WEIGHTS[Kind.CONTENT]


def telling_facts(question: str, answer: str, background: Background) -> list[Located]:
    """The telling novel facts of an answer, in the order in which it states them."""
    facts = scored_row(question, answer, background=background).facts
    origin = places(answer)
    located = (Located(origin[fact.start], fact) for fact in facts if is_telling(fact))
    return sorted(located, key=lambda each: each.start)


def first_fact(question: str, answer: str, background: Background) -> int | None:
    """Where the words before an answer's first novel fact end.

    Vague words do not count, see `is_telling`.

    Returns:
        A place in the answer, before the space that comes before the fact; 0 where the answer begins with a fact, None
        where it has none.
    """
    facts = telling_facts(question, answer, background)
    return len(answer[: facts[0].start].rstrip(" ,;:—–-\"'“‘(")) if facts else None
