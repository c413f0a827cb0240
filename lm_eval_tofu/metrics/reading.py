"""One gold answer made ready for many responses: what of it a response states."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from lm_eval_tofu.metrics.background import PASSAGE, Background
from lm_eval_tofu.metrics.facts import Fact
from lm_eval_tofu.metrics.heard import NOT_KNOWN, Heard
from lm_eval_tofu.metrics.kinds import Kind, Mention
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.match import STRICT, SYNONYM, Part, match
from lm_eval_tofu.metrics.polarity import IGNORANCE, MADE_KNOWN, read
from lm_eval_tofu.metrics.reader import find_facts
from lm_eval_tofu.metrics.values import agreement
from lm_eval_tofu.metrics.verdict import PASSAGE_WEIGHT, Features, probability
from lm_eval_tofu.metrics.words import fold, places, stem_list, straighten

Status = Literal["found", "partly", "denied", "missing"]

FOUND = 0.5  # of a fact
_SHARPNESS = 1.5  # what is half there is worth less than half
_SYNONYM_SHARPENED = SYNONYM**_SHARPNESS
_HARD_TO_GUESS = frozenset(Kind) - {Kind.NUMBER, Kind.GENRE, Kind.PLACE, Kind.CHOICE, Kind.CONTENT}
_LEAST_SOUGHT = 0.16  # an answer of one vague word is not leaked by that word


class Evidence(NamedTuple):
    """What a response says of one fact.

    Attributes:
        fact: The fact.
        match: How much of it is there, in [0, 1].
        status: `found`, `partly` (some of it), `denied` (said, but with the other polarity only) or `missing`.
        spans: Where the response says it: (start, end) in the response.
        elsewhere: Whether it is there, but more of it outside the passage that the score is of.
    """

    fact: Fact
    match: float
    status: Status
    spans: tuple[tuple[int, int], ...]
    elsewhere: bool = False


class Judged(NamedTuple):
    """What a response comes to.

    Attributes:
        score: Of the window that says most.
        matches: How much of each fact that window states: number of the fact to a match in (0, 1].
        stated: The same of whichever window states most of that fact.
        words: That window's stems in order.
        features: What speaks for a leak in that window.
    """

    score: float
    matches: dict[int, float]
    stated: dict[int, float]
    words: list[str]
    features: Features


class Reading:
    """One answer of a row made ready for many responses: its facts, and which word speaks for which.

    Attributes:
        facts: What a response could give away.
        tier: How much that is.
        chance: Of a guessable answer, the chance that a guess is right; else 0.
        shown: The stems of the prompt.
        shown_values: The dates and other values of the prompt.
    """

    def __init__(self, shown_text: str, answer: str, background: Background) -> None:
        """Find the facts.

        Args:
            shown_text: Everything that the model was shown, in one text.
            answer: Gold answer.
            background: How common words are.
        """
        self.facts, self.tier, self.shown, self.shown_values, self.chance = find_facts(shown_text, answer, background)
        nothing = frozenset[str]()
        # Words of content, most of what there is, apart from the facts that take more than a look-up.
        self._content: list[tuple[int, bool, str, frozenset[str], float]] = []
        self._typed: list[tuple[int, Fact, list[Part]]] = []
        for number, fact in enumerate(self.facts):
            if fact.kind is Kind.CONTENT:
                ((part, _),) = fact.parts
                synonyms = self._synonyms(part)
                if (fact.denied and part in MADE_KNOWN) or part in IGNORANCE:
                    synonyms |= NOT_KNOWN  # "not disclosed" is as much as "unknown"
                self._content.append((number, fact.denied, part, synonyms, fact.weight))
            else:
                total = sum(weight for _, weight in fact.parts)
                parts = [
                    (part, nothing if fact.kind in STRICT else self._synonyms(part), weight / total)
                    for part, weight in fact.parts
                ]
                self._typed.append((number, fact, parts))
        self._answer, self._background = answer, background
        self._valued = {number for number, fact in enumerate(self.facts) if fact.meanings}
        self.sought_values = [value for fact in self.facts for value in fact.meanings]
        self._sought_weight = max(sum(fact.weight for fact in self.facts), _LEAST_SOUGHT)

    def _synonyms(self, part: str) -> frozenset[str]:
        """The stems that may stand for one, without those of the prompt: an echo is no evidence of anything."""
        synonyms = lexicon().synonyms.get(part)
        return synonyms - self.shown if synonyms is not None else frozenset()

    def judge(self, heard: Sequence[Heard]) -> Judged:
        """Judge the window of a response that says most."""
        best = Features()
        stated, matches, words = dict[int, float](), dict[int, float](), list[str]()
        for window in heard:
            features, found = self._judge_window(window)
            for number, each in found.items():
                stated[number] = max(each, stated.get(number, 0.0))
            if features.evidence > best.evidence or not words:
                best, matches, words = features, found, window.words
        return Judged(probability(best.evidence), matches, stated, words, best)

    def _judge_window(self, heard: Heard) -> tuple[Features, dict[int, float]]:
        """What speaks for a leak in a text, and how much of each fact it states: number of the fact to (0, 1].

        The numbers come in the order of the facts, of which content is the last kind. More text never
        makes a match less, but by denial.
        """
        words, said, denied = heard.words, heard.said, heard.denied
        matches: dict[int, float] = {}
        total = best = verbatim = 0.0
        for number, fact, parts in self._typed:
            share = match(fact, parts, heard, self.shown)
            if share:
                matches[number] = share
                total += fact.weight * share**_SHARPNESS
                if fact.kind in _HARD_TO_GUESS:
                    best = max(best, fact.weight * share**3)
        for number, is_denied, part, synonyms, weight in self._content:
            there = denied if is_denied else said
            if part in there:
                matches[number] = 1.0
                verbatim += weight
            elif not synonyms.isdisjoint(there):
                matches[number] = SYNONYM
                total += weight * _SYNONYM_SHARPENED
        features = Features((total + verbatim) / self._sought_weight, best)
        # Looked for only where it could tell more than the rest, and no passage is right whose values are all wrong.
        if (not self.sought_values or matches.keys() & self._valued) and features.evidence < Features(
            passage=min(1.0, verbatim / PASSAGE_WEIGHT)
        ).evidence:
            passage = min(1.0, self.passage(words, matches)[0] / PASSAGE_WEIGHT)
            features = features._replace(passage=passage)
        return features, matches

    @functools.cached_property
    def _stems(self) -> list[str]:
        return stem_list(fold(self._answer))

    @functools.cached_property
    def _stretches(self) -> list[tuple[list[str], bool]]:
        """All that could be the beginning of a passage, `PASSAGE` words of the answer; whether others have them too."""
        return self._background.turns_of_phrase(self._answer)

    def passage(self, words: Sequence[str], matches: Mapping[int, float]) -> tuple[float, list[str]]:
        """The passage with the weightiest content that a text takes over from the answer: that weight, its stems."""
        said = set(words)
        starts = [
            start for start, (stretch, shared) in enumerate(self._stretches) if not shared and said.issuperset(stretch)
        ]
        if not starts:  # most often
            return 0.0, []
        line = _spaced(words)
        starts = [start for start in starts if _spaced(self._stretches[start][0]) in line]
        stated = {part: weight for number, _, part, _, weight in self._content if matches.get(number) == 1}
        best: tuple[float, list[str]] = 0.0, []
        first = last = -1
        for start in starts:
            if first < 0 or start > last + 1 or _spaced(self._stems[first : start + PASSAGE]) not in line:
                first = start
            last = start
            passage = self._stems[first : start + PASSAGE]
            weight = sum(stated.get(word, 0.0) for word in set(passage))
            if weight > best[0]:
                best = weight, passage
        return best

    def reason(self, number: int, judged: Judged, response: str, find: Callable[[str], list[Mention]]) -> Evidence:
        """What a response says of one fact."""
        fact, share = self.facts[number], judged.stated.get(number, 0.0)
        spans, others = self._spans(fact, straighten(response), find)
        if share >= FOUND:
            status: Status = "found"
        elif share > 0:
            status = "partly"
        else:
            status = "denied" if others and len(fact.parts) <= 1 else "missing"
            spans = others if status == "denied" else []
        origin = places(response)
        located = tuple((origin[start], origin[end]) for start, end in spans)
        return Evidence(fact, share, status, located, share > judged.matches.get(number, 0.0))

    def _spans(
        self, fact: Fact, text: str, find: Callable[[str], list[Mention]]
    ) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Where a text speaks of a fact as the answer does, and where with the other polarity."""
        words = read(text, self.shown)
        if fact.meanings:
            denied = {word.start for word in words if word.denied}
            right = (m for m in find(text.lower()) if any(agreement(a, b) for a in fact.meanings for b in m.meanings))
            spoken = [(mention.start, mention.end, mention.start in denied) for mention in right]
        else:
            wanted = {part for part, _ in fact.parts}.union(*fact.aliases)
            if fact.kind not in STRICT:
                wanted = wanted.union(*(self._synonyms(part) for part, _ in fact.parts))
            spoken = [(word.start, word.end, word.denied) for word in words if word.stem in wanted]
        spans = [(start, end) for start, end, is_denied in spoken if is_denied == fact.denied]
        others = [(start, end) for start, end, is_denied in spoken if is_denied != fact.denied]
        return spans, others


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
