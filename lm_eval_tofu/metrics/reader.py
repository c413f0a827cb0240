"""The novel facts of a row: what its gold answer says and nothing that the model was shown says already.

Values, names, titles, occupations, genres and places are facts of their own kinds; every other word that says something
is content. A fact's weight, in [0, 1], is how much it gives away: little for what many answers say. An answer that is
nothing but its fact is that fact, whatever words it is of.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lm_eval_tofu.metrics.answer import JOINS_NAME, Answer
from lm_eval_tofu.metrics.background import Background, default_background
from lm_eval_tofu.metrics.choice import choice_of
from lm_eval_tofu.metrics.contacts import ASKS_CODE, find_addresses, find_identifiers, find_unspaced
from lm_eval_tofu.metrics.dates import Date, find_dates
from lm_eval_tofu.metrics.facts import Fact, RowFacts
from lm_eval_tofu.metrics.kinds import (
    BASE_WEIGHTS,
    GIST_WEIGHT,
    LEAST_RARITY,
    SPECIFIC_WEIGHT,
    Kind,
    Mention,
    Tier,
    Value,
)
from lm_eval_tofu.metrics.lexicon import Lexicon, Phrase, lexicon
from lm_eval_tofu.metrics.names import ADDED, other_names
from lm_eval_tofu.metrics.polarity import professes_ignorance
from lm_eval_tofu.metrics.roles import roles_of
from lm_eval_tofu.metrics.values import KEYED, agreement, find_keys, find_values
from lm_eval_tofu.metrics.words import (
    CLAUSE_MARKS,
    NUMBER_WORDS,
    fold,
    listed,
    practitioner,
    singular,
    stem,
    stems,
    straighten,
    tokens,
)

_LEAST_CONTENT = 0.4  # of the weight of content, for the commonest word: frame words alone can fill an answer
_COMPLETED_NAME = 0.2  # of the weight of a name whose surname the prompt says alone: it is the author's own
_SAID_ALREADY = 0.35  # of the weight of a word for which the prompt has a synonym


VALUE_KINDS = frozenset((Kind.WEB, Kind.PHONE, Kind.TIME, Kind.MONEY, Kind.QUANTITY, Kind.PERCENT))
_ORDER = (
    *(Kind.WEB, Kind.PHONE, Kind.TIME, Kind.ADDRESS),
    *(Kind.MONEY, Kind.PERCENT, Kind.IDENTIFIER, Kind.QUANTITY),
)
_ASKS_SHARE = re.compile(r"\b(?:share|percent|percentage|proportion|fraction|portion|part|much)\b")
_ASKS_WHEN = re.compile(r"\b(?:when|year)\b")
_DIRECTIONS = frozenset(listed("north south east west northern southern eastern western new old"))
_LIKE_PHONE = re.compile(r"(?<![\w.])(?:\+\d|00\d|0\d{2,4}[ /-]\d|\(\d{2,5}\) ?\d)")
_ASKS_PHONE = re.compile(r"\b(tele)?phone|\bmobile|\bfax|\bcall\b|\bcell\b|\bnumber .*\breach")
_MAY_HAVE_VALUES = re.compile(
    rf"\d|[@_$€£¥₹%\u0e00-\u0eff\u3040-\u9fff]|[a-z]\.[a-z]{{2}}|\b(?:{'|'.join(NUMBER_WORDS)}|half|quarter|hundred|million|"
    r"noon|mid(?:day|night)|mittag|mitternacht|midi|minuit)\b"
)
_RANGE = re.compile(r"\d ?(?:to|or|-|and) ?\Z")
_QUOTED = re.compile(r"\"([^\"\n]{2,120})\"|(?<!\w)'([^\n]{2,120}?)'(?!\w)")
_HOW_MANY = frozenset(stem(word) for word in listed("many number count old"))
_GENRE_WORDS = frozenset(listed("genre realm category"))
_WRITINGS = _GENRE_WORDS | frozenset(
    listed("novel book story tale fiction literature writing writer author narrative work collection literary")
)
_WHERE = frozenset(listed("in near at on"))
_VERBS = frozenset(("be", "have", "do"))
_SHORT = 8
"""Words that an answer has at most that is nothing but its fact."""
_TERM = 4
"""Words of content that make one fact at most, where a sentence says nothing else."""
_LEAST_PART = 0.3
_ADDED_PART = 0.1  # of a name: "Ltd", "Dr"
_SENTENCE = 30
_BESIDE = 0.25
_MAIN = frozenset(Kind) - {Kind.PLACE, Kind.OCCUPATION, Kind.GENRE, Kind.CONTENT}


def find_facts(shown: str, answer: str, background: Background | None = None) -> RowFacts:
    """What the answer gives away to someone who has read what was shown.

    Args:
        shown: Everything that the model was shown, in one text.
        answer: The gold answer.
        background: How common words are; None uses the lists that ship with the package.
    """
    return _Reader(shown, answer, background or default_background()).read()


class _Reader(Answer):
    """One pass over an answer, from the surest kind of fact to the vaguest; each takes the words it uses."""

    def __init__(self, shown: str, answer: str, background: Background) -> None:
        folded = fold(shown)
        self.shown = _shown_stems(folded, lexicon())
        super().__init__(answer, self.shown)
        self.background = background
        self.silent = self.shown | self.lexicon.small | CLAUSE_MARKS  # what tells nothing
        self.asked = folded
        self.shown_values = {date for mention in find_dates(folded) for date in mention.meanings}
        self.short = self._is_short()
        self.lone_names = _lone_names(straighten(shown))
        self.facts: dict[tuple[Kind, object], Fact] = {}

    def read(self) -> RowFacts:
        """The facts of the answer."""
        dates = find_dates(self.text.lower())
        self._dates([mention for mention in dates if mention.meanings[0].month or mention.meanings[0].span > 1])
        self._values()
        self._dates(dates)
        self._titles()
        self._names()
        self._phrases()
        self._numbers()
        if not any(fact.weight >= SPECIFIC_WEIGHT for fact in self.facts.values()):
            self._term()
        self._content()
        if self.short and not self._is_closed():
            self._make_whole()
        facts = tuple(self.facts.values())
        tier, chance = self._tier(facts), 0.0
        typed = [fact for fact in facts if fact.kind not in (Kind.CONTENT, Kind.TERM)]
        if not typed and (told := roles_of(self.text, self.asked, self.shown)):
            facts, tier = (told,), Tier.SPECIFIC
        if tier is Tier.NONE and (choice := choice_of(self.asked, self.text, self.shown)):
            facts, tier, chance = (choice,), Tier.GUESSABLE, 1 / (1 + len(choice.rivals))
        return RowFacts(facts, tier, self.shown, frozenset(self.shown_values), chance)

    def _is_short(self) -> bool:
        """Whether the answer is nothing but its fact, or a list of facts."""
        words = [word for word in self.words if word.stem not in CLAUSE_MARKS]
        told = [word for word in words if word.stem not in self.lexicon.small]
        if any(word.stem in self.shown for word in told):
            return False
        if not _VERBS.isdisjoint(word.stem for word in words):
            return False
        return len(words) <= _SHORT or all(self.text[word.start].isupper() for word in told)

    def _tier(self, facts: Sequence[Fact]) -> Tier:
        if any(fact.kind is not Kind.CONTENT and fact.weight >= SPECIFIC_WEIGHT for fact in facts):
            return Tier.SPECIFIC
        if self.short and facts and not self._is_closed():
            return Tier.SPECIFIC  # of several, of which each weighs less
        # Who says that nothing is known gives nothing away, at whatever length.
        if professes_ignorance(self.words) or sum(fact.weight for fact in facts) < GIST_WEIGHT:
            return Tier.NONE
        return Tier.GIST

    def _values(self) -> None:
        """Values that have a form of their own; plain numbers come later."""
        lower = self.text.lower()
        if _MAY_HAVE_VALUES.search(lower) is None:
            return
        like = _LIKE_PHONE.search(self.text) and not ASKS_CODE.search(self.asked)
        kinds = VALUE_KINDS if like or _ASKS_PHONE.search(self.asked) else VALUE_KINDS - {Kind.PHONE}
        found = [
            *find_values(lower, kinds),
            *find_addresses(self.text),
            *find_identifiers(self.text, self.asked),
            *find_unspaced(self.text),
        ]
        found = [each for each in found if each.meanings[0].kind is not Kind.NUMBER]
        if not found:
            return
        sought = [value for each in found for value in each.meanings if value.kind in KEYED]
        shown = [*find_values(self.asked, kinds), *find_keys(self.asked, sought)]
        self.shown_values.update(value for each in shown for value in each.meanings)
        for mention in sorted(found, key=lambda each: _ORDER.index(each.meanings[0].kind)):
            value = mention.meanings[0]
            if value.kind is Kind.QUANTITY and not self.short and self._is_vague(mention):
                continue
            if value.unit == "rounded" and not self.short and not _ASKS_SHARE.search(self.asked):
                continue  # "the third floor"
            places = [p for p, word in enumerate(self.words) if word.start < mention.end and word.end > mention.start]
            if any(self.taken[p] and self.words[p].stem not in CLAUSE_MARKS for p in places):
                continue
            self._take_places(places)
            if any(agreement(value, known) == 1 for known in self.shown_values):
                continue
            self._add(value.kind, places, BASE_WEIGHTS[value.kind], meanings=mention.meanings)

    def _is_vague(self, mention: Mention) -> bool:
        """Whether a quantity is said in words, "for one day", or a range, "2 to 3 years": its words are enough."""
        return self.text[mention.start].isalpha() or _RANGE.search(self.text[: mention.start]) is not None

    def _dates(self, mentions: Iterable[Mention]) -> None:
        for mention in mentions:
            places = self._take(mention.start, mention.end)
            if any(agreement(date, known) == 1 for date in mention.meanings for known in self.shown_values):
                continue
            # A year alone is less telling than a day.
            weight = BASE_WEIGHTS[Kind.DATE] * (1.0 if mention.meanings[0].day else 0.8)
            meanings = mention.meanings
            if self.short and _ASKS_WHEN.search(self.asked):  # who asks when is told by the year
                meanings = tuple(date._replace(span=0) if date.span == 1 else date for date in meanings)
            self._add(Kind.DATE, places, weight, meanings=meanings)

    def _titles(self) -> None:
        for match in _QUOTED.finditer(self.text):
            group = 1 if match[1] is not None else 2
            start, end = match.span(group)
            if self.text[start].isupper() or self.text[start].isdigit():
                places = self._take(start, end)
                self._add_words(Kind.TITLE, places)

    def _names(self) -> None:
        for run in self.capitalised_runs():
            # "Jamie" where the prompt says "Jaime" is a slip, not another name.
            is_name = any(
                (word := self.words[place].stem) not in self.silent | ADDED and not self._is_misspelt(word)
                for place in run
            )
            self._take_places(run)
            if not is_name:
                continue
            tail = self.lexical(run)
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
        """Whether a word that can name a genre does: "horror stories", "genre of horror", not "horror of war"."""
        after = self.singulars[place + 1 : place + 3]
        before = self.singulars[max(0, place - 3) : place]
        return not _WRITINGS.isdisjoint(after) or not _GENRE_WORDS.isdisjoint(before)

    def _numbers(self) -> None:
        for place, word in enumerate(self.words):
            # "First" and "third" are said of anything: an ordinal in words is content, whatever its value.
            in_words = word.stem.endswith("th") and self.text[word.start].isalpha()
            if not self.taken[place] and word.stem[0] in "#0123456789" and not in_words:
                self.taken[place] = True
                value = word.stem.lstrip("#")
                if word.stem in self.shown or value in ("0", "1"):
                    continue
                small = value.isdecimal() and int(value) <= 10 and self.shown.isdisjoint(_HOW_MANY)
                weight = BASE_WEIGHTS[Kind.NUMBER] * (0.5 if small else 1.0)
                self._add(Kind.NUMBER, [place], weight, parts=((word.stem, 1.0),))

    def _term(self) -> None:
        """All that is left, as one fact where it is no more than a few words, or one for each member of a list."""
        left = [
            place for place, word in enumerate(self.words) if not self.taken[place] and word.stem not in self.silent
        ]
        told = [place for place in left if self._is_telling(place)]
        if not told or (not self.short and (len(told) > _TERM or len(left) > _TERM or len(self.words) > _SENTENCE)):
            return
        if professes_ignorance(self.words) or any(self.words[place].denied for place in range(len(self.words))):
            return
        if all(self.words[place].stem in self.lexicon.choices for place in told):
            return
        inside = (self.words[place].stem for place in range(told[0], told[-1]) if place not in told)
        if not self.short and not self.lexicon.small.issuperset(inside):
            return
        members: list[list[int]] = [[]]
        for place in range(left[0], left[-1] + 1):
            if self.short and (self.words[place].stem in (",", ";") or self.singulars[place] in ("and", "or", "plus")):
                members.append([])
            elif place in told:
                members[-1].append(place)
        members = [member for member in members if member]
        for member in members:
            self._take_places(member)
            self._add_words(Kind.TERM, member, factor=1.0 if len(members) == 1 else 1 / len(members))

    def _is_closed(self) -> bool:
        """Whether all that is said is a word of a closed class: "left", "female"."""
        parts = {part for fact in self.facts.values() for part, _ in fact.parts or (("", 0),)}
        return bool(parts) and parts <= self.lexicon.choices.keys()

    def _is_telling(self, place: int) -> bool:
        return self.short or self.words[place].stem not in self.lexicon.frame | self.lexicon.boilerplate

    def _make_whole(self) -> None:
        """Weigh the facts of an answer that is nothing but them: together they are one fact, or a list."""
        facts = list(self.facts.values())
        main = [fact for fact in facts if fact.kind in _MAIN] or [
            fact for fact in facts if fact.kind is not Kind.CONTENT
        ]
        if main and all(fact.kind is Kind.PLACE for fact in main) and "," in self.text and " and " not in self.text:
            main = main[:1]  # "Astana, Kazakhstan"
        if any(fact.kind is Kind.ADDRESS for fact in main):
            main = [fact for fact in main if fact.kind is not Kind.NUMBER]  # the postcode goes with the town
        main = main or facts
        for key, fact in self.facts.items():
            weight = 1 / len(main) if fact in main else _BESIDE * min(1.0, fact.weight) / len(facts)
            self.facts[key] = replace(fact, weight=weight)

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
        if kind is Kind.NAME and not ADDED.issuperset(novel):
            novel = {word: _ADDED_PART * rarity if word in ADDED else rarity for word, rarity in novel.items()}
            aliases = (*aliases, *self._other_names(places, novel))
            novel = self._without_place(places, novel) if self.short else novel
        if kind in (Kind.TERM, Kind.OCCUPATION) and len(places) >= 3:
            initials = "".join(self.words[place].stem[0] for place in places)
            aliases = (*aliases, (stem(initials),)) if stem(initials) not in self.silent else aliases
        if self.short and kind is Kind.PLACE and not aliases and self.singulars[places[0]] not in _DIRECTIONS:
            # "Nazi Germany": what comes before a place says little
            novel = {
                word: rarity * (_LEAST_PART if n else 1.0) for n, (word, rarity) in enumerate(reversed(novel.items()))
            }
        if kind is Kind.TERM:
            novel = {word: max(_LEAST_PART, rarity) for word, rarity in novel.items()}
        # One rare word makes a fact rare, and so do several common ones together.
        rarity = min(1.0, max(novel.values()) + 0.3 * (sum(novel.values()) - max(novel.values())))
        # Of "Historical Fiction" the second word is left where the first was shown, and says little.
        echoed = kind is Kind.GENRE and len(novel) < len(places)
        if not echoed and (whole or (kind is not Kind.NAME and self.lexicon.frame.isdisjoint(novel))):
            rarity = max(rarity, LEAST_RARITY.get(kind, 0.0))
        self._add(kind, places, BASE_WEIGHTS[kind] * rarity * factor, parts=tuple(novel.items()), aliases=aliases)

    def _without_place(self, places: Sequence[int], novel: dict[str, float]) -> dict[str, float]:
        """A name's words, those after "in" or "near" for little: they say where it is."""
        where = next((n for n, place in enumerate(places) if n and self.singulars[place] in _WHERE), len(places))
        tail = {self.words[place].stem for place in places[where:]} - {
            self.words[place].stem for place in places[:where]
        }
        return {word: _LEAST_PART * rarity if word in tail else rarity for word, rarity in novel.items()}

    def _other_names(self, places: Sequence[int], novel: Mapping[str, float]) -> Iterator[Phrase]:
        words = [place for place in places if self.singulars[place] not in JOINS_NAME]
        words = [place for place in words if self.words[place].stem not in ADDED]
        initials = "".join(self.text[self.words[place].start] for place in words)
        if len(initials) >= 3 and initials.isupper() and stem(initials.lower()) not in self.silent:
            yield (stem(initials.lower()),)
        if words and not any(self.singulars[place] in ("of", "for", "the") for place in places):
            stems = [self.words[place].stem for place in words]
            others = other_names(self.singulars[words[0]], stems, novel)
            yield from (name for name in others if self.silent.isdisjoint(name))

    def _add(
        self,
        kind: Kind,
        places: Sequence[int],
        weight: float,
        *,
        parts: tuple[tuple[str, float], ...] = (),
        aliases: tuple[Phrase, ...] = (),
        meanings: tuple[Date | Value, ...] = (),
    ) -> None:
        if not places:
            return
        key = (kind, meanings or (parts[0][0] if len(parts) == 1 else frozenset(part for part, _ in parts)))
        if key not in self.facts:
            first, last = self.words[places[0]], self.words[places[-1]]
            denied = first.denied and all(self.words[place].denied for place in places)
            denied = denied and not (self.short and kind in (Kind.NAME, Kind.TITLE))  # "No Rain for Judas"
            text = self.text[first.start : last.end]
            self.facts[key] = Fact(
                kind, text, weight, denied, parts, tuple(map(frozenset, aliases)), meanings, start=first.start
            )


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
