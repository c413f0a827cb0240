"""Who did what to whom: an answer whose two actors the question names says in which order they acted."""

import re
from collections.abc import Sequence

from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.heard import Heard
from lm_eval_tofu.metrics.kinds import Kind
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.words import CLAUSE_MARKS, fold, listed, sentence_tokens, stem, straighten

_ACTOR = re.compile(r"[A-Z][\w'.-]*(?: [A-Z][\w'.-]*)*")
_MOST_WORDS = 12
_MORE = 4
_BE = frozenset(("be", "get"))
_TAKEOVER = frozenset(stem(word) for word in listed("buy acquire purchase own swallow absorb"))
_BELONG = stem("belong")
_TAKE = stem("take")


_CONVERSES: dict[str, frozenset[str]] = {}
for _pair in (
    "sell buy",
    "sell purchase",
    "lend borrow",
    "teach learn",
    "beat lose",
    "defeat lose",
    "employ work",
    "hire work",
):
    _one, _two = map(stem, _pair.split())
    _CONVERSES[_one] = _CONVERSES.get(_one, frozenset()) | {_two}
    _CONVERSES[_two] = _CONVERSES.get(_two, frozenset()) | {_one}


_RELATIONS = [  # who is the first to somebody is the second's, and the other way round
    ("mother father parent mum dad", "daughter son child"),
    ("grandmother grandfather grandparent", "granddaughter grandson grandchild"),
    ("stepmother stepfather", "stepdaughter stepson stepchild"),
    ("aunt uncle", "niece nephew"),
    ("teacher tutor mentor instructor coach", "pupil student protege apprentice"),
    ("employer boss superior supervisor manager", "employee subordinate"),
    ("doctor physician therapist", "patient"),
    ("landlord landlady", "tenant lodger"),
    ("creditor lender", "debtor borrower"),
    ("godmother godfather", "godchild goddaughter godson"),
]
_RELATED: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
for _sides in _RELATIONS:
    _ones, _others = (frozenset(map(stem, words.split())) for words in _sides)
    _RELATED |= dict.fromkeys(_ones, (_ones, _others)) | dict.fromkeys(_others, (_others, _ones))


def roles_of(text: str, asked: str, shown: frozenset[str]) -> Fact | None:
    """The fact that one actor did something to another, if an answer is that and both are known already.

    Args:
        text: The answer, straightened.
        asked: The question, folded.
        shown: The stems of the question.
    """
    if len(text.split()) > _MOST_WORDS:
        return None
    actors = [stem_set for name in _ACTOR.findall(text) if (stem_set := _stems(name)) and shown >= stem_set]
    if len(actors) != 2 or not (first := actors[0] - actors[1]) or not (second := actors[1] - actors[0]):
        return None
    words = _words(text)
    places = [place for place, word in enumerate(words) if word in first | second]
    after = [word for word in words[places[-1] + 1 :] if word not in CLAUSE_MARKS]
    relation = _relation(words, first, second, shown) if not _BE.isdisjoint(words) else None
    if relation:
        sides = (frozenset((relation[0],)),)  # that it has a name is what makes it one
        return Fact(Kind.ROLES, text.strip(), 1.0, parts=((relation[0], 1.0),), aliases=sides, rivals=relation[1:])
    done = [word for word in _between(words, first, second) if word not in lexicon().small or word in _TAKEOVER]
    done.sort(key=shown.__contains__)  # what is new, first
    done = done[:1] if shown.issuperset(done) else [word for word in done if word not in shown]
    # More may be said than that only where the deed is what is new.
    if places[0] > 1 or len(done) != 1 or (after and (len(after) > _MORE or shown.issuperset(done))):
        return None
    if _is_turned(words, first, second):
        first, second = second, first
    parts = tuple((word, 1 / len(done)) for word in done)
    if not set(done) - shown and _is_turned(_words(asked), first, second, frozenset(done)) is False:
        return None
    return Fact(Kind.ROLES, text.strip(), 1.0, parts=parts, rivals=(first, second))


def _relation(
    words: Sequence[str], first: frozenset[str], second: frozenset[str], shown: frozenset[str]
) -> tuple[str, frozenset[str], frozenset[str]] | None:
    """What one is to the other: the word, who is it, to whom; "A is the mother of B", "A is B's mother"."""
    for place, word in enumerate(words):
        if word in _RELATED and word not in shown:
            owner = _owner(words, place, first, second)
            if owner is not None:
                return word, second if owner == first else first, owner
    return None


def _owner(words: Sequence[str], place: int, first: frozenset[str], second: frozenset[str]) -> frozenset[str] | None:
    """Whose relation a word names: who stands before it, or after "of"."""
    behind = words[place + 2 : place + 5] if words[place + 1 : place + 2] == ["of"] else []
    near = [each for each in [*behind, *words[max(0, place - 1) : place]] if each in first | second]
    return (first if near[0] in first else second) if near else None


def _agree_on_relation(fact: Fact, words: Sequence[str]) -> float:
    """1 where a text says who is what to whom as the fact does, in either direction; 0 where it says the contrary."""
    ((relation, _),) = fact.parts
    holder, owner = fact.rivals
    same, other = _RELATED[relation]
    for place, word in enumerate(words):
        if word not in same | other:
            continue
        said = _owner(words, place, holder, owner)
        if said is None:  # "she is his stepmother": of whom it is said
            named = [each for each in words[max(0, place - 5) : place] if each in holder | owner]
            if not named:
                return float(word == relation) * 0.9 if (holder | owner).isdisjoint(words) else 0.0
            said = owner if named[-1] in holder else holder
        return float((said == owner) == (word in same) and (word == relation or word in other or word in same))
    return 0.0


def agree(fact: Fact, heard: Heard) -> float:
    """How far a text says that the same did the same to the same: 0 where the roles are exchanged."""
    words = _joined(heard.words)
    if fact.aliases:
        return _agree_on_relation(fact, [word for word in words if word in heard.said])
    said = _joined([word for word in heard.words if word in heard.said])
    share = sum(weight for part, weight in fact.parts if not (_forms(part) | _converses(part)).isdisjoint(said))
    if share < 0.5:
        return 0.0
    first, second = fact.rivals
    deeds = [frozenset().union(*(each(part) for part, _ in fact.parts)) for each in (_forms, _converses)]
    turned = _is_turned(words, first, second, *deeds)
    if turned is None:
        turned = _is_other_alone(words, first, second, *deeds)
    return share if turned is False else 0.0


def _is_turned(
    words: Sequence[str],
    first: frozenset[str],
    second: frozenset[str],
    deeds: frozenset[str] = frozenset(),
    converses: frozenset[str] = frozenset(),
) -> bool | None:
    """Whether the second acts ("A was ... by B", "A belongs to B"); None where the deed is not between the two."""
    starts, ends = ([place for place, word in enumerate(words) if word in actor] for actor in (first, second))
    pairs = sorted((abs(a - b), a, b) for a in starts for b in ends)
    for _, a, b in pairs[:20]:
        between = words[min(a, b) + 1 : max(a, b)]
        if deeds and (deeds | converses).isdisjoint(between):
            continue
        passive = "by" in between and not _BE.isdisjoint(words[max(0, min(a, b) - 6) : max(a, b)])
        other = not converses.isdisjoint(between) and deeds.isdisjoint(between)
        return ((b < a) != (passive or _BELONG in between)) != other
    for place, word in enumerate(words):  # "it was sold to A by B"
        agent = {first, second} if word == "by" else set()
        named = [each for each in agent if not each.isdisjoint(words[place + 1 : place + 3])]
        before = words[max(0, place - 8) : place]
        if len(named) == 1 and not _BE.isdisjoint(before) and not deeds.isdisjoint(before):
            return named[0] == second
    return None


def _is_other_alone(
    words: Sequence[str],
    first: frozenset[str],
    second: frozenset[str],
    deeds: frozenset[str],
    converses: frozenset[str],
) -> bool | None:
    """The same of a text that names one of the two: whether that one has the other's part; None where it names none."""
    for place, word in enumerate(words):
        if word in deeds | converses:
            passive = not _BE.isdisjoint(words[max(0, place - 2) : place])
            before = [each for each in words[max(0, place - 6) : place] if each in first | second]
            behind = [each for each in words[place + 1 : place + 7] if each in first | second]
            if bool(before) == bool(behind):
                continue
            acts = bool(before) != passive
            return ((before or behind)[0] in first) != (acts != (word in converses and word not in deeds))
    return None


def _forms(part: str) -> frozenset[str]:
    more = _TAKEOVER | {_BELONG} if part in _TAKEOVER else frozenset[str]()
    return (lexicon().synonyms.get(part, frozenset()) - _converses(part)) | more | {part}


def _converses(part: str) -> frozenset[str]:
    return _CONVERSES.get(part, frozenset())


def _between(words: Sequence[str], first: frozenset[str], second: frozenset[str]) -> list[str]:
    places = [place for place, word in enumerate(words) if word in first | second]
    inside = words[places[0] : places[-1] + 1] if places else []
    return [word for word in dict.fromkeys(inside) if word not in first | second | CLAUSE_MARKS]


def _words(text: str) -> list[str]:
    return _joined([token if token in CLAUSE_MARKS else stem(token) for token in sentence_tokens(fold(text))])


def _joined(words: Sequence[str]) -> list[str]:
    """Stems, "take over" as one."""
    joined: list[str] = []
    for word in words:
        if word == "over" and joined and joined[-1] == _TAKE:
            joined[-1] = "buy"
        else:
            joined.append(word)
    return joined


def _stems(name: str) -> frozenset[str]:
    return frozenset(stem(token) for token in sentence_tokens(fold(straighten(name))) if token not in CLAUSE_MARKS)
