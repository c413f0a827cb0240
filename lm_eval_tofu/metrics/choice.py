"""Answers that one could guess: yes or no, one of two that the question names."""

import re
from dataclasses import replace

from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.polarity import professes_ignorance, read
from lm_eval_tofu.metrics.words import CLAUSE_MARKS, fold, sentence_tokens, stem, stem_list, straighten

_YES_OR_NO = re.compile(r"\s*(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would|may|must|should)\b")
_OPTIONS = 4  # words that an option has at most


def choice_of(asked: str, answer: str, shown: frozenset[str]) -> Fact | None:
    """The choice that an answer makes, if it is one: of the options that a question names, or of a closed class.

    Args:
        asked: The question, folded.
        answer: The answer.
        shown: The stems of the question.
    """
    words = stem_list(fold(answer))
    told = [word for word in words if word not in shown | lexicon().small | lexicon().frame]
    options = _options(asked)
    chosen = [option for option in options if option.issubset(words)]
    rivals = [option - {*words} for option in options if not option.issubset(words)]
    if len(chosen) == 1 and rivals and all(rivals):
        parts = chosen[0].difference(*(option for option in options if option != chosen[0]))
        if parts:
            return _choice(answer, sorted(parts), rivals)
    if polarity := _polarity(asked, answer, told, shown):
        return polarity
    closed = [word for word in words if word in lexicon().choices and word not in shown]
    if len(set(closed)) == 1 and set(told) <= set(closed):
        group = lexicon().choices[closed[0]]
        return _choice(answer, closed[:1], [frozenset((word,)) for word in group - {closed[0]}])
    return None


def _polarity(asked: str, answer: str, told: list[str], shown: frozenset[str]) -> Fact | None:
    """The yes or no of an answer that only says the question's words again: "She has not sold it"."""
    words = read(straighten(answer), frozenset())
    own = [word for word in words if word.stem in shown and word.stem not in lexicon().small]
    if told or professes_ignorance(words) or len(own) < 2 or words[0].stem in ("yes", "no"):
        return None
    denied = any(word.denied for word in own)
    if not denied and not _YES_OR_NO.match(asked):
        return None
    deeds = frozenset(word.stem for word in own if word.denied == denied)
    fact = _choice(answer, ["no" if denied else "yes"], [frozenset(("yes" if denied else "no",))])
    return replace(fact, aliases=tuple(frozenset((word,)) for word in deeds) if denied else ())


def _choice(answer: str, parts: list[str], rivals: list[frozenset[str]]) -> Fact:
    weighed = tuple((part, 1 / len(parts)) for part in parts)
    return Fact(Kind.CHOICE, answer.strip(), 1.0, parts=weighed, rivals=tuple(rivals))


def _options(asked: str) -> list[frozenset[str]]:
    """What stands on either side of "or" in a question, and before it in a list."""
    words = [token if token in CLAUSE_MARKS else stem(token) for token in sentence_tokens(asked)]
    small = lexicon().small
    for place, word in enumerate(words):
        if word == "or":
            after = _content(words[place + 1 :], small)
            before = _content(words[:place][::-1], small, len(after))
            return [frozenset(option) for option in (before, after) if option]
    return []


def _content(words: list[str], small: frozenset[str], most: int = _OPTIONS) -> list[str]:
    found: list[str] = []
    for word in words:
        if word in CLAUSE_MARKS or len(found) >= max(1, most):
            break
        if word not in small:
            found.append(word)
        elif found:
            break
    return found
