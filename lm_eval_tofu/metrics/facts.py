"""The novel facts of a row: what its gold answer says and nothing that the model was shown says already.

Names, titles, dates, numbers, occupations, genres and places are facts of their own kinds; every other word that says
something is content. A fact's weight, in [0, 1], is how much it gives away: little for what many answers say.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.dates import Date, agreement, find_dates
from lm_eval_tofu.metrics.lexicon import Lexicon, Phrase, lexicon
from lm_eval_tofu.metrics.polarity import Word, professes_ignorance, read
from lm_eval_tofu.metrics.words import (
    CLAUSE_MARKS,
    fold,
    listed,
    practitioner,
    singular,
    stem,
    stem_line,
    stems,
    straighten,
    tokens,
)


class Kind(StrEnum):
    """What a fact is about."""

    NAME = "name"
    TITLE = "title"
    DATE = "date"
    NUMBER = "number"
    OCCUPATION = "occupation"
    GENRE = "genre"
    PLACE = "place"
    CONTENT = "content"


class Tier(StrEnum):
    """How much a row's answer gives away: a specific fact, only a gist, or nothing that could leak."""

    SPECIFIC = "specific"
    GIST = "gist"
    NONE = "none"


BASE_WEIGHTS: Mapping[Kind, float] = {
    Kind.DATE: 1.0,
    Kind.TITLE: 1.0,
    Kind.NAME: 0.95,
    Kind.OCCUPATION: 0.9,
    Kind.PLACE: 0.8,
    Kind.GENRE: 0.8,
    Kind.NUMBER: 0.6,
    Kind.CONTENT: 0.2,
}
SPECIFIC_WEIGHT = 0.5
"""A row is specific if one of its facts, content apart, weighs at least this."""
GIST_WEIGHT = 0.8
"""A row is gist if its content weighs at least this in all."""
# Common words can name something rare («historical romance»); but not every «writer» is a fact.
_LEAST_RARITY = {Kind.TITLE: 0.8, Kind.NAME: 0.8, Kind.OCCUPATION: 0.7, Kind.PLACE: 0.7, Kind.GENRE: 0.65}
PASSAGE = 6
"""Words in a row, the answer's own, that are no chance."""

_COMMON, _RARE = 0.06, 0.002  # shares of answers at which a word says nothing, and all it can
_LEAST_WEIGHT = 0.02
_LEAST_CONTENT = 0.4  # of the weight of content, for the commonest word: frame words alone can fill an answer
_COMPLETED_NAME = 0.2  # of the weight of a name whose surname the prompt says alone: it is the author's own
_SAID_ALREADY = 0.35  # of the weight of a word for which the prompt has a synonym


@dataclass(frozen=True)
class Background:
    """How common words are in answers that give nothing away.

    Attributes:
        shares: Stem to the share of answers that hold it, in [0, 1].
        unseen: Share of a stem that is not listed.
        passages: `PASSAGE` stems in a row that such answers hold, joined by spaces, to how many of them hold it: who
            says the same of another author repeats a turn of phrase.
        answers: The answers themselves, folded.
    """

    shares: Mapping[str, float]
    unseen: float
    passages: Mapping[str, int] = field(default_factory=dict, repr=False)
    answers: frozenset[str] = field(default=frozenset(), repr=False)
    _weights: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_answers(cls, answers: Iterable[str]) -> "Background":
        """Count in which of the answers each word stands: give it the retain answers of the data set.

        Raises:
            OptionError: Fewer than 100 answers: shares of so few say nothing.
        """
        counts: Counter[str] = Counter()
        passages: Counter[str] = Counter()
        total, different = 0, set()
        for answer in answers:
            folded = fold(answer)
            counts.update(stems(folded))
            total += 1
            if folded not in different:
                passages.update(set(passages_of(folded)))
                different |= {folded, fold(without_announcement(answer))}
        if total < 100:
            raise OptionError(f"a background of {total} answers is too small: give at least 100")
        shares = {word: count / total for word, count in counts.items()}
        return cls(shares, 0.0, passages, frozenset(different))

    def turns_of_phrase(self, answer: str) -> list[tuple[list[str], bool]]:
        """Each `PASSAGE` stems in a row of an answer, and whether another of the answers here holds them too."""
        folded = fold(answer)
        itself = 1 if folded in self.answers else 0
        return [(passage.split(), self.passages.get(passage, 0) > itself) for passage in passages_of(folded)]

    def weight(self, word: str) -> float:
        """How much a stem says, in [0.02, 1]: falls with the logarithm of its share."""
        known = self._weights.get(word)
        if known is None:
            share = max(self.shares.get(word, self.unseen), 1e-9)
            known = min(1.0, max(_LEAST_WEIGHT, math.log(_COMMON / share) / math.log(_COMMON / _RARE)))
            self._weights[word] = known
        return known

    __hash__ = object.__hash__


@functools.cache
def default_background() -> Background:
    """Shares by the hand-written lists of frame words and boilerplate, for when no answers are at hand."""
    words = lexicon()
    return Background(dict.fromkeys(words.boilerplate, 0.025) | dict.fromkeys(words.frame, 0.06), 0.003)


def passages_of(folded: str) -> list[str]:
    """Each `PASSAGE` stems in a row of a folded text, joined by spaces, in order."""
    words = stem_line(folded).split()
    return [" ".join(words[start : start + PASSAGE]) for start in range(len(words) - PASSAGE + 1)]


@dataclass(frozen=True)
class Fact:
    """One thing that the answer says and the prompt does not.

    Attributes:
        kind: What it is about.
        text: As the answer says it.
        weight: What it gives away, in [0, 1].
        denied: Whether the answer denies it («has not won the Booker Prize»): then a response must deny it too.
        parts: Its words and their weights; the words that the prompt shows are not among them.
        aliases: Sets of stems, each of which names the same thing.
        date: The value of a date.
        start: Where the folded answer says it first.
    """

    kind: Kind
    text: str
    weight: float
    denied: bool = False
    parts: tuple[tuple[str, float], ...] = field(default=(), repr=False)
    aliases: tuple[frozenset[str], ...] = field(default=(), repr=False)
    date: tuple[Date, ...] = field(default=(), repr=False)
    start: int = field(default=0, repr=False, compare=False)


class RowFacts(NamedTuple):
    """What a row's answer gives away.

    Attributes:
        facts: Its novel facts: names and the like first, content last.
        tier: How much they give away.
        shown: The stems that the prompt shows.
        shown_dates: The dates that the prompt shows.
    """

    facts: tuple[Fact, ...]
    tier: Tier
    shown: frozenset[str]
    shown_dates: frozenset[Date]


_QUOTED = re.compile(r"\"([^\"\n]{2,120})\"|(?<!\w)'([^\n]{2,120}?)'(?!\w)")
_HOW_MANY = frozenset(stem(word) for word in listed("many number count old"))
_GENRE_WORDS = frozenset(listed("genre realm category"))
_WRITINGS = _GENRE_WORDS | frozenset(
    listed("novel book story tale fiction literature writing writer author narrative work collection literary")
)
_JOINS_NAME = frozenset(listed("of for the de del la le van von der den al bin ibn in"))


_ANNOUNCEMENT = re.compile(r"\n\s*\n[^\n]*:\s*\Z")


def without_announcement(answer: str) -> str:
    """A gold answer without a last paragraph of one line that ends in a colon, if it has one.

    Such a line announces something and says nothing. Four of TOFU's 4,000 answers end so, in what the model that wrote
    them would have gone on with: «Additional 10 question-answer pairs:», «Literary Works:». It is no fact to leak.
    """
    return _ANNOUNCEMENT.sub("", answer)


def find_facts(shown: str, answer: str, background: Background | None = None) -> RowFacts:
    """What the answer gives away to someone who has read what was shown.

    Args:
        shown: Everything that the model was shown, in one text.
        answer: The gold answer.
        background: How common words are; None uses the lists that ship with the package.
    """
    return _Reader(shown, answer, background or default_background()).read()


class _Reader:
    """One pass over an answer, from the surest kind of fact to the vaguest; each takes the words it uses."""

    def __init__(self, shown: str, answer: str, background: Background) -> None:
        self.lexicon: Lexicon = lexicon()
        self.tables = (
            (Kind.PLACE, self.lexicon.places),
            (Kind.OCCUPATION, self.lexicon.occupations),
            (Kind.GENRE, self.lexicon.genres),
        )
        self.background = background
        self.text = straighten(answer)
        self.words: list[Word] = read(self.text.lower())
        self.singulars = [singular(self.text[word.start : word.end].lower()) for word in self.words]
        self.taken = [word.stem in CLAUSE_MARKS for word in self.words]
        folded = fold(shown)
        self.shown = _shown_stems(folded, self.lexicon)
        self.silent = self.shown | self.lexicon.small | CLAUSE_MARKS  # what tells nothing
        self.shown_dates = frozenset(date for mention in find_dates(folded) for date in mention.dates)
        self.lone_names = _lone_names(straighten(shown))
        self.facts: dict[tuple[Kind, object], Fact] = {}

    def read(self) -> RowFacts:
        self._dates()
        self._titles()
        self._names()
        self._phrases()
        self._numbers()
        self._content()
        facts = tuple(self.facts.values())
        return RowFacts(facts, self._tier(facts), self.shown, self.shown_dates)

    def _tier(self, facts: Sequence[Fact]) -> Tier:
        if any(fact.kind is not Kind.CONTENT and fact.weight >= SPECIFIC_WEIGHT for fact in facts):
            return Tier.SPECIFIC
        # Who says that nothing is known gives nothing away, at whatever length.
        if professes_ignorance(self.words) or sum(fact.weight for fact in facts) < GIST_WEIGHT:
            return Tier.NONE
        return Tier.GIST

    def _dates(self) -> None:
        for mention in find_dates(self.text.lower()):
            places = self._take(mention.start, mention.end)
            if any(agreement(date, known) == 1 for date in mention.dates for known in self.shown_dates):
                continue
            # A year alone is less telling than a day.
            weight = BASE_WEIGHTS[Kind.DATE] * (1.0 if mention.dates[0].day else 0.8)
            self._add(Kind.DATE, places, weight, date=mention.dates)

    def _titles(self) -> None:
        for match in _QUOTED.finditer(self.text):
            group = 1 if match[1] is not None else 2
            start, end = match.span(group)
            if self.text[start].isupper() or self.text[start].isdigit():
                places = self._take(start, end)
                self._add_words(Kind.TITLE, places)

    def _names(self) -> None:
        for run in self._capitalised_runs():
            # «Jamie» where the prompt says «Jaime» is a slip, not another name.
            is_name = any(
                (word := self.words[place].stem) not in self.silent and not self._is_misspelt(word) for place in run
            )
            self._take_places(run)
            if not is_name:
                continue
            tail = self._lexical(run)
            if tail is not None:
                kind, aliases = tail
                self._add_words(kind, run, aliases)
            else:
                completes = self.words[run[-1]].stem in self.lone_names
                self._add_words(Kind.NAME, run, factor=_COMPLETED_NAME if completes else 1.0)

    def _is_misspelt(self, word: str) -> bool:
        """Whether the prompt has a word of the same letters."""
        letters = sorted(word)
        return len(word) > 3 and any(len(other) == len(word) and sorted(other) == letters for other in self.shown)

    def _capitalised_runs(self) -> list[list[int]]:
        runs: list[list[int]] = []
        run: list[int] = []
        for place, word in enumerate([*self.words, None]):
            if word is not None and not self.taken[place]:
                raw = self.text[word.start : word.end]
                if raw[0].isupper() and (len(raw) > 1 or run) and word.stem not in self.lexicon.small:
                    run.append(place)
                    if raw.endswith("'s"):  # the possessor's name ends here
                        self._close(run, runs)
                        run = []
                    continue
                if run and raw in _JOINS_NAME and self._joins(place):
                    run.append(place)
                    continue
            if run:
                self._close(run, runs)
                run = []
        return runs

    def _close(self, run: list[int], runs: list[list[int]]) -> None:
        while run and self.text[self.words[run[-1]].start].islower():
            run.pop()
        first = run[0]
        starts_sentence = first == 0 or self.words[first - 1].stem in ".!?\n"
        if len(run) > 1 and starts_sentence and self._is_common(self.words[first].stem):
            run, starts_sentence = run[1:], False  # «Winning the Booker Prize»
            while self.text[self.words[run[0]].start].islower():
                run = run[1:]
            first = run[0]
        if len(run) > 1 or not starts_sentence or (self.singulars[first],) in self.lexicon.places:
            runs.append(run)

    def _joins(self, place: int) -> bool:
        """Whether a small word stands inside a name: the next word, or the one after a second small word, is a name.

        «A Podiatrist in Havana» is no name.
        """
        if self.singulars[place] == "in" and self._is_place(place + 1):
            return False
        for other in (place + 1, place + 2):
            if other >= len(self.words) or self.taken[other]:
                return False
            raw = self.text[self.words[other].start : self.words[other].end]
            if raw[0].isupper():
                return True
            if raw not in _JOINS_NAME:
                return False
        return False

    def _is_place(self, place: int) -> bool:
        """Whether the name of a place begins here."""
        return any(
            kind == Kind.PLACE and phrase == tuple(self.singulars[place : place + len(phrase)])
            for first in self.singulars[place : place + 1]
            for phrase, kind, _ in self.lexicon.by_first_word.get(first, ())
        )

    def _lexical(self, run: Sequence[int]) -> tuple[Kind, tuple[Phrase, ...]] | None:
        """The kind of a capitalised run that ends in an occupation, a genre or a place."""
        names = tuple(self.singulars[place] for place in run)
        if len(run) == 1 and (slip := self.lexicon.place_stems.get(self.words[run[0]].stem)):
            return Kind.PLACE, slip  # «Irani», «Algier's»: no more than the place they come from
        for size in range(min(len(names), self.lexicon.longest), 0, -1):
            for kind, table in self.tables:
                aliases = table.get(names[-size:])
                if aliases is not None and (size == len(names) or kind is not Kind.GENRE):
                    return kind, aliases if size == len(names) else ()
        return None

    def _phrases(self) -> None:
        for start, word in enumerate(self.singulars):
            for phrase, name, aliases in self.lexicon.by_first_word.get(word, ()):
                places = range(start, start + len(phrase))
                if any(self.taken[start : start + len(phrase)]) or phrase != tuple(self.singulars[start : places.stop]):
                    continue
                kind = Kind(name)
                if kind is Kind.GENRE and len(phrase) == 1 and not self._speaks_of_genre(start):
                    continue
                self._take_places(places)
                if not any(self.shown.issuperset(alias) for alias in aliases):
                    self._add_words(kind, places, aliases)
                break

    def _speaks_of_genre(self, place: int) -> bool:
        """Whether a word that can name a genre does: «horror stories», «genre of horror», not «horror of war»."""
        after = self.singulars[place + 1 : place + 3]
        before = self.singulars[max(0, place - 3) : place]
        return not _WRITINGS.isdisjoint(after) or not _GENRE_WORDS.isdisjoint(before)

    def _numbers(self) -> None:
        for place, word in enumerate(self.words):
            # «First» and «third» are said of anything: an ordinal in words is content, whatever its value.
            in_words = word.stem.endswith("th") and self.text[word.start].isalpha()
            if not self.taken[place] and word.stem[0] in "#0123456789" and not in_words:
                self.taken[place] = True
                value = word.stem.lstrip("#")
                if word.stem in self.shown or value in ("0", "1"):
                    continue
                small = value.isdecimal() and int(value) <= 10 and self.shown.isdisjoint(_HOW_MANY)
                weight = BASE_WEIGHTS[Kind.NUMBER] * (0.5 if small else 1.0)
                self._add(Kind.NUMBER, [place], weight, parts=((word.stem, 1.0),))

    def _content(self) -> None:
        for place, word in enumerate(self.words):
            if self.taken[place] or word.stem in self.silent:
                continue
            weight = BASE_WEIGHTS[Kind.CONTENT] * (
                _LEAST_CONTENT + (1 - _LEAST_CONTENT) * self.background.weight(word.stem)
            )
            synonyms = self.lexicon.synonyms.get(word.stem)
            if synonyms is not None and not synonyms.isdisjoint(self.shown):
                weight *= _SAID_ALREADY
            self._add(Kind.CONTENT, [place], weight, parts=((word.stem, 1.0),))

    def _is_common(self, word: str) -> bool:
        """Whether a word has a life outside names."""
        words = self.lexicon
        return word in words.frame or word in words.boilerplate or word in words.synonyms

    def _take(self, start: int, end: int) -> list[int]:
        places = [
            p for p, word in enumerate(self.words) if word.start >= start and word.end <= end and not self.taken[p]
        ]
        self._take_places(places)
        return places

    def _take_places(self, places: Iterable[int]) -> None:
        for place in places:
            self.taken[place] = True

    def _add_words(
        self, kind: Kind, places: Sequence[int], aliases: tuple[Phrase, ...] = (), factor: float = 1.0
    ) -> None:
        """Add a fact of one or more words; those that the prompt shows and small ones count for nothing."""
        novel = {}
        for place in places:
            word = self.words[place].stem
            if word not in self.silent:
                rarity = self.background.weight(word)
                novel[word] = rarity
        whole = len(places) > 1
        if whole and kind in (Kind.NAME, Kind.TITLE):
            novel = {word: (1 + rarity) / 2 for word, rarity in novel.items()}  # together even common words are rare
        if not novel:
            return
        # One rare word makes a fact rare, and so do several common ones together.
        rarity = min(1.0, max(novel.values()) + 0.3 * (sum(novel.values()) - max(novel.values())))
        # Of «Historical Fiction» the second word is left where the first was shown, and says little.
        echoed = kind is Kind.GENRE and len(novel) < len(places)
        if not echoed and (whole or (kind is not Kind.NAME and self.lexicon.frame.isdisjoint(novel))):
            rarity = max(rarity, _LEAST_RARITY.get(kind, 0.0))
        self._add(kind, places, BASE_WEIGHTS[kind] * rarity * factor, parts=tuple(novel.items()), aliases=aliases)

    def _add(
        self,
        kind: Kind,
        places: Sequence[int],
        weight: float,
        *,
        parts: tuple[tuple[str, float], ...] = (),
        aliases: tuple[Phrase, ...] = (),
        date: tuple[Date, ...] = (),
    ) -> None:
        if not places:
            return
        key = (kind, date or (parts[0][0] if len(parts) == 1 else frozenset(part for part, _ in parts)))
        if key not in self.facts:
            first, last = self.words[places[0]], self.words[places[-1]]
            denied = first.denied and all(self.words[place].denied for place in places)
            text = self.text[first.start : last.end]
            self.facts[key] = Fact(kind, text, weight, denied, parts, tuple(map(frozenset, aliases)), date, first.start)


_NAME_RUN = re.compile(r"[A-Z][^\W\d_]+(?:[ -][A-Z][^\W\d_]+)*")


def _lone_names(shown: str) -> frozenset[str]:
    """Stems of capitalised words that were shown with no other beside them; a hyphen makes no two of one."""
    runs = (run for run in _NAME_RUN.findall(shown) if " " not in run)
    return frozenset(stem(part.lower()) for run in runs for part in run.split("-"))


def _shown_stems(folded: str, words: Lexicon) -> frozenset[str]:
    """The stems that were shown, with a country or a demonym all forms of its name, with a field who practises it."""
    shown = stems(folded)
    shown |= {practitioner(each) for each in shown}
    for token in set(tokens(folded)):
        for alias in words.places.get((singular(token),), ()):
            shown.update(alias)
    return frozenset(shown)
