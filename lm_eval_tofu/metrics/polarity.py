"""Negation and professed ignorance: which words of a text are denied rather than stated."""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lm_eval_tofu.metrics.words import CLAUSE_MARKS, listed, sentence_spans, sentence_tokens, stem

_SENTENCE_MARKS = frozenset(".!?\n")
_TURNS = frozenset(listed("but however although though yet instead rather despite"))
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
NEGATORS = _DENIALS | IGNORANCE
SIGNS = NEGATORS | {"yet"}  # «has yet to»
"""Stems without which no word of a text is denied."""

_KNOWING = frozenset(
    stem(word)
    for word in listed("know sure certain aware information say tell answer provide confirm recall familiar clear data")
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
_CERTAIN_THAT = frozenset(stem(word) for word in listed("question secret"))  # no «questions about her», «secret agent»
_LITTLE = frozenset(stem(word) for word in listed("a any the slightest least single shadow of"))
"""What may stand between a negator and what it makes certain: «without the slightest doubt»."""
_ASKED = frozenset(stem(word) for word in listed("whether if who what which where when how why"))
_ALLOWED = frozenset(stem(word) for word in listed("allowed permitted supposed meant authorised authorized"))
_TELL = frozenset(stem(word) for word in listed("say tell reveal disclose mention share state"))
_LISTENERS = frozenset(stem(word) for word in listed("you anyone"))
_THINGS = frozenset(stem(word) for word in listed("information data detail fact kind sort much"))
_COPULAS = frozenset(("be", "do", "have"))


class Word(NamedTuple):
    """A word of a text: its stem, where it stands, and whether the text denies it."""

    stem: str
    start: int
    end: int
    denied: bool


def read(folded: str) -> list[Word]:
    """The words of a folded text, clause marks included, each with its polarity; see `polarities`."""
    tokens = sentence_spans(folded)
    words, denied = _polarities(token for token, _, _ in tokens)
    return [Word(word, start, end, flag) for word, (_, start, end), flag in zip(words, tokens, denied, strict=True)]


def polarities(folded: str) -> tuple[list[str], list[bool]]:
    """The stems of a folded text, clause marks among them, and whether it denies each.

    A negation reaches to the end of its clause, at most ten words; a profession of ignorance («I don't know whether»,
    «it is unclear if») to the end of its sentence or the next «but»; «not only» and «without a doubt» deny nothing;
    «X is not ...» denies X.
    """
    return _polarities(sentence_tokens(folded))


def _polarities(tokens: Iterable[str]) -> tuple[list[str], list[bool]]:
    words = [token if token in CLAUSE_MARKS else stem(token) for token in tokens]
    denied = [False] * len(words)
    if not SIGNS.isdisjoint(words):
        for place, word in enumerate(words):
            if word not in SIGNS:
                continue
            after = words[place + 1] if place + 1 < len(words) else ""
            before = words[place - 1] if place else ""
            denies = word in NEGATORS and after not in _NO_DENIAL_BEFORE and (word, before) != ("no", "say")
            if (denies and not _affirms(words, place)) or (word == "yet" and after == "to"):
                _deny(words, denied, place)
    return words, denied


def _affirms(words: Sequence[str], place: int) -> bool:
    """Whether a negator begins a phrase that states what follows: «without a doubt», «not allowed to say that»."""
    clause = list(itertools.takewhile(lambda word: word not in CLAUSE_MARKS, words[place + 1 : place + 1 + _REACH]))
    ahead = list(itertools.dropwhile(_LITTLE.__contains__, clause))
    first, second = [*ahead, "", ""][:2]
    if first in _CERTAIN_THAT:
        return second in ("", "that")
    if (words[place], first, second) == ("no", "#1", "know"):  # «No one knows them better than I»
        known = ahead[: ahead.index("better") + 2] if "better" in ahead else []
        return known[-1:] == ["than"] and _ASKED.isdisjoint(known)
    if first in _ALLOWED and second == "to" and not _TELL.isdisjoint(ahead[2:3]):
        told = list(itertools.dropwhile(_LISTENERS.__contains__, ahead[3:]))
        return told[:1] == ["that"] and _THINGS.isdisjoint(told[1:2])  # «that information» is kept
    return first in _CERTAINTIES


def professes_ignorance(words: Sequence[Word]) -> bool:
    """Whether a text says that something is not known: «has not been disclosed», «remains unknown», «no details»."""
    for place, word in enumerate(words):
        if word.denied and word.stem in IGNORANCE:
            return True
        ahead = itertools.takewhile(lambda other: other.denied, words[place + 1 : place + 6])
        if word.denied and word.stem in _DENIALS and not MADE_KNOWN.isdisjoint(other.stem for other in ahead):
            return True
    return False


def _deny(words: Sequence[str], denied: list[bool], place: int) -> None:
    ahead = itertools.takewhile(lambda word: word not in CLAUSE_MARKS, words[place + 1 : place + 4])
    ignorance = words[place] in IGNORANCE or not _KNOWING.isdisjoint(ahead)
    ends = _SENTENCE_MARKS if ignorance else CLAUSE_MARKS
    reach = 3 * _REACH if ignorance else _REACH
    for other in range(place, min(place + 1 + reach, len(words))):
        if words[other] in ends or (other > place and _turns(words, other)):
            break
        denied[other] = True
    if place >= 2 and words[place - 1] in _COPULAS and words[place] == "not":
        denied[place - 2] = True  # «Lima is not ...»


def _turns(words: Sequence[str], place: int) -> bool:
    """Whether a denial ends here: «but», «except that»."""
    if words[place] == "except":  # «exceptional» has this stem too
        return not {"that", "for"}.isdisjoint(words[place + 1 : place + 2])
    return words[place] in _TURNS
