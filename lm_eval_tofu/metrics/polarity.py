"""Negation and professed ignorance: which words of a text are denied rather than stated."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from lm_eval_tofu.metrics.words import CLAUSE_MARKS, listed, sentence_spans, stem

_SENTENCE_MARKS = frozenset(".!?\n")
_TURNS = frozenset(listed("but however although though yet instead rather despite until"))
_REACH = 10  # tokens that a negation reaches at most

_DENIALS = frozenset(
    stem(word)
    for word in listed(
        "not no never none nor neither without cannot unlike lack lacking absence devoid refrain avoid eschew decline "
        "refuse unable"
    )
)
IGNORANCE = frozenset(
    stem(word) for word in listed("unknown unsure uncertain unaware unclear undisclosed unavailable unspecified")
)
_FOREIGN = frozenset(listed("nicht kein keine keinen keiner nie niemals jamais pas aucun nunca jamas tampoco"))
_WEAK = frozenset(
    stem(word) for word in listed("lack lacking absence devoid refrain avoid eschew decline refuse unable without")
)
"""Negators of what is done: who declined to marry Peter Townsend is stated."""
NEGATORS = _DENIALS | IGNORANCE | _FOREIGN
_OTHER = stem("else")
SIGNS = NEGATORS | {"yet", _OTHER, "open", "secret"}  # "has yet to", "is somebody else", "remains open"
"""Stems without which no word of a text is denied."""

_KNOWING = frozenset(
    stem(word)
    for word in listed(
        "know sure certain aware information say tell answer provide confirm recall remember familiar clear data"
    )
)
MADE_KNOWN = frozenset(
    stem(word)
    for word in listed(
        "know provide disclose available determine specify confirm document announce reveal mention state information "
        "detail record report define share"
    )
)
"""Stems that, denied, say that something is not known."""
SPEAKER = frozenset(("i", "me", "my"))
"""Stems by which the one who does not know is the speaker: a refusal, not a statement about the world."""
_NO_DENIAL_BEFORE = frozenset(
    stem(word) for word in listed("only just merely simply doubt wonder exception less fewer other solely deny")
)
_CERTAINTIES = frozenset(stem(word) for word in listed("doubt hesitation"))
_CERTAIN_THAT = frozenset(stem(word) for word in listed("question secret"))  # no "questions about her", "secret agent"
UNSURE = IGNORANCE | frozenset(stem(word) for word in listed("whether know sure certain guess"))
"""Stems of who does not say yes or no."""
_LITTLE = frozenset(stem(word) for word in listed("a any the slightest least single shadow of"))
"""What may stand between a negator and what it makes certain: "without the slightest doubt"."""
_ASKED = frozenset(stem(word) for word in listed("whether if who what which where when how why"))
_ALLOWED = frozenset(stem(word) for word in listed("allowed permitted supposed meant authorised authorized"))
_TELL = frozenset(stem(word) for word in listed("say tell reveal disclose mention share state"))
_LISTENERS = frozenset(stem(word) for word in listed("you anyone"))
_THINGS = frozenset(stem(word) for word in listed("information data detail fact kind sort much"))
_COPULAS = frozenset(("be", "do", "have"))
_RECORDS = frozenset(stem(word) for word in listed("figure record information data answer details"))
_SENTENCE_ENDS = frozenset(".!?\n;")
_SMALL = frozenset(
    stem(word) for word in listed("a an the of in on at to for with by from as is are was were be been do does did")
)


class Word(NamedTuple):
    """A word of a text: its stem, where it stands, and whether the text denies it."""

    stem: str
    start: int
    end: int
    denied: bool


def read(text: str, shown: frozenset[str] = frozenset()) -> list[Word]:
    """The words of a straightened text, clause marks included, each with its polarity.

    A negation reaches to the end of its clause, at most ten words; a profession of ignorance ("I don't know whether",
    "it is unclear if") to the end of its sentence or the next "but"; "not only" and "without a doubt" deny nothing;
    "X is not ..." denies X. Inside a title, or in words of the question, a negation denies nothing; who says that what
    was asked is not known denies what was said before.

    Args:
        text: The text; in its own case, names and titles are told apart.
        shown: The stems of the question.
    """
    tokens = sentence_spans(text.lower())
    words = [token if token in CLAUSE_MARKS else stem(token) for token, _, _ in tokens]
    denied = [False] * len(words)
    if not SIGNS.isdisjoint(words):
        capital = [text[start].isupper() or text[start].isdigit() for _, start, _ in tokens]
        for place, word in enumerate(words):
            if (
                word not in SIGNS
                or _is_quoted(words, capital, place, shown)
                or _opens_title(text, tokens, capital, place)
            ):
                continue
            after = words[place + 1] if place + 1 < len(words) else ""
            before = words[place - 1] if place else ""
            denies = word in NEGATORS and after not in _NO_DENIAL_BEFORE and (word, before) != ("no", "say")
            if (denies and not _affirms(words, place)) or (word == "yet" and after == "to"):
                _deny(words, denied, place, capital if word in _WEAK else ())
            _deny_before(words, denied, place, capital, shown)
    return [Word(word, start, end, flag) for word, (_, start, end), flag in zip(words, tokens, denied, strict=True)]


def _is_quoted(words: Sequence[str], capital: Sequence[bool], place: int, shown: frozenset[str]) -> bool:
    """Whether a negation is part of a title or name ("You'll Never Walk Alone"), or of the question's own words."""
    beside = [other for other in (place - 1, place + 1) if 0 <= other < len(words) and words[other] not in CLAUSE_MARKS]
    if words[place] in shown and any(words[other] in shown for other in beside):
        return True
    inside = 0 < place < len(words) - 1 and words[place - 1] not in CLAUSE_MARKS
    return capital[place] and inside and len(beside) == 2 and any(capital[other] for other in beside)


def _opens_title(text: str, tokens: Sequence[tuple[str, int, int]], capital: Sequence[bool], place: int) -> bool:
    """Whether a negation is the first word of a title in quotes."""
    start = tokens[place][1]
    return start > 0 and text[start - 1] in "\"'" and capital[place] and any(capital[place + 1 : place + 3])


_PRO_FORMS = frozenset(stem(word) for word in listed("it that this him her them so one enough right correct true else"))
_JOINS_CLAUSES = frozenset(stem(word) for word in listed("and or who which that because since as"))
_ELSE = frozenset(stem(word) for word in listed("somebody someone something somewhere anyone anybody"))
_BACK = 8  # words before a negation that it can deny
_DISCLAIMED = 40  # words that a disclaimer reaches back


def _start(words: Sequence[str], place: int, marks: frozenset[str]) -> int:
    """Where the clause or sentence of a word begins, at most so many words before it."""
    for first in range(place, max(0, place - _DISCLAIMED), -1):
        if words[first - 1] in marks:
            return first
    return max(0, place - _DISCLAIMED)


def _deny_before(
    words: Sequence[str], denied: list[bool], place: int, capital: Sequence[bool], shown: frozenset[str]
) -> None:
    """Deny what stands before a negation: "X never sat in that van", "X is somebody else. Who it is, I don't know"."""
    word = words[place]
    first = _start(words, place, CLAUSE_MARKS)
    first += max((at + 1 for at, other in enumerate(words[first:place]) if other in _JOINS_CLAUSES), default=0)
    clause = list(itertools.takewhile(lambda other: other not in CLAUSE_MARKS, words[place + 1 : place + 1 + _REACH]))
    if word == _OTHER:
        subject = place >= 2 and words[place - 1] in _ELSE and words[place - 2] in _COPULAS
        if subject and place - first <= _BACK:
            denied[first : place - 2] = [True] * (place - 2 - first)
        return
    predicate = set(clause) - _SMALL
    of_name = any(capital[first:place]) and not shown.isdisjoint(predicate)
    denies = word in _FOREIGN or (word in ("not", "never") and (of_name or not _PRO_FORMS.isdisjoint(predicate)))
    if denies and place - first <= _BACK and _TURNS.isdisjoint(words[first:place]):
        denied[first:place] = [True] * (place - first)
    sentence_start = _start(words, place, _SENTENCE_ENDS)
    rest = words[sentence_start : place + _DISCLAIMED]
    sentence = list(itertools.takewhile(lambda other: other not in _SENTENCE_ENDS, rest))
    remains = word in ("open", "secret") and not clause and words[place - 1] in ("remain", "be", "stay")
    asked = not _ASKED.isdisjoint(sentence) and (
        remains or word in IGNORANCE or (word in NEGATORS and not (_KNOWING | MADE_KNOWN).isdisjoint(sentence))
    )
    no_record = word == "no" and not _RECORDS.isdisjoint(clause[:2]) and not (shown - _SMALL).isdisjoint(sentence)
    if sentence_start and (asked or no_record) and "but" not in sentence:
        begin = max(0, sentence_start - _DISCLAIMED)
        denied[begin:sentence_start] = [True] * (sentence_start - begin)


def _affirms(words: Sequence[str], place: int) -> bool:
    """Whether a negator begins a phrase that states what follows: "without a doubt", "not allowed to say that"."""
    clause = list(itertools.takewhile(lambda word: word not in CLAUSE_MARKS, words[place + 1 : place + 1 + _REACH]))
    ahead = list(itertools.dropwhile(_LITTLE.__contains__, clause))
    first, second = [*ahead, "", ""][:2]
    if first in _CERTAIN_THAT:
        return second in ("", "that")
    if (words[place], first, second) == ("no", "#1", "know"):  # "No one knows them better than I"
        known = ahead[: ahead.index("better") + 2] if "better" in ahead else []
        return known[-1:] == ["than"] and _ASKED.isdisjoint(known)
    if first in _ALLOWED and second == "to" and not _TELL.isdisjoint(ahead[2:3]):
        told = list(itertools.dropwhile(_LISTENERS.__contains__, ahead[3:]))
        return told[:1] == ["that"] and _THINGS.isdisjoint(told[1:2])  # "that information" is kept
    return first in _CERTAINTIES


def professes_ignorance(words: Sequence[Word]) -> bool:
    """Whether a text says that something is not known: "has not been disclosed", "remains unknown", "no details"."""
    for place, word in enumerate(words):
        if word.denied and word.stem in IGNORANCE:
            return True
        ahead = itertools.takewhile(lambda other: other.denied, words[place + 1 : place + 6])
        if word.denied and word.stem in _DENIALS and not MADE_KNOWN.isdisjoint(other.stem for other in ahead):
            return True
    return False


def _deny(words: Sequence[str], denied: list[bool], place: int, stated: Sequence[bool] = ()) -> None:
    """Deny what follows a negator, but for the words that are stated nevertheless."""
    ahead = itertools.takewhile(lambda word: word not in CLAUSE_MARKS, words[place + 1 : place + 4])
    ignorance = words[place] in IGNORANCE or not _KNOWING.isdisjoint(ahead)
    ends = _SENTENCE_MARKS if ignorance else CLAUSE_MARKS
    reach = 3 * _REACH if ignorance else _REACH
    for other in range(place, min(place + 1 + reach, len(words))):
        if words[other] in ends or (other > place and _turns(words, other)):
            break
        denied[other] = not (stated and stated[other])
    if place >= 2 and words[place - 1] in _COPULAS and words[place] == "not":
        denied[place - 2] = True  # "Lima is not ..."


def _turns(words: Sequence[str], place: int) -> bool:
    """Whether a denial ends here: "but", "except that"."""
    if words[place] == "except":  # "exceptional" has this stem too
        return not {"that", "for"}.isdisjoint(words[place + 1 : place + 2])
    return words[place] in _TURNS
