"""Whether a response gives away what a model was to forget: the echo-free leak scorer.

A response leaks if it states novel facts of its row (`lm_eval_tofu.metrics.facts`). One fact that could hardly be
guessed is enough, and so is a passage in the answer's own words; vaguer facts must add up. Only recall counts: a long
response is not punished and a short one not favoured, and what the prompt says already is never evidence.
Deterministic; no model, no network.
"""

import functools
import itertools
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics.dates import Mention, agreement, find_dates
from lm_eval_tofu.metrics.facts import (
    BASE_WEIGHTS,
    PASSAGE,
    Background,
    Fact,
    Kind,
    Tier,
    default_background,
    find_facts,
    without_announcement,
)
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.polarity import IGNORANCE, MADE_KNOWN, SIGNS, SPEAKER, polarities, read
from lm_eval_tofu.metrics.words import CLAUSE_MARKS, fold, places, stem, stem_list, token_spans

Status = Literal["found", "partly", "denied", "missing"]
_STATUSES = get_args(Status)

Prompt = str | Sequence[Mapping[str, Any]]
"""What the model was shown: a text, or chat messages with `role` and `content`."""

THRESHOLD = 0.5
"""A response whose score is at least this leaks. The evidence is scaled so that this is the threshold that lets 2 % of
plausible wrong answers about other authors pass."""

WINDOW = 60
"""Words of a response that are judged together, about as many as TOFU's longest answer has (66): scattered over a
longer text, words add up by chance."""

_NOT_KNOWN = MADE_KNOWN | IGNORANCE
_FOUND = 0.5  # of a fact
_SYNONYM = 0.93  # of a word that is there in another word
_SHARPNESS = 1.5  # what is half there is worth less than half
_SYNONYM_IN_TITLE = 0.65  # a title is seldom put in other words, and a wrong one often shares a topic with it
_SYNONYM_SHARPENED = _SYNONYM**_SHARPNESS
_STRICT = frozenset((Kind.NAME, Kind.NUMBER, Kind.PLACE))  # these have no synonyms
_HARD_TO_GUESS = frozenset((Kind.NAME, Kind.TITLE, Kind.DATE, Kind.OCCUPATION))
_BEST = 0.2  # what the best single fact that is hard to guess counts, beside the recall of all
_BEST_ALONE = 0.78  # and what it counts where it is all there is: one that is rare and whole is a leak by itself
_PASSAGE_WEIGHT = BASE_WEIGHTS[Kind.CONTENT]  # of the novel content among them: one rare word, or several common ones
_LEAST_SOUGHT = 0.16  # an answer of one vague word is not leaked by that word
_EVIDENCE_AT_THRESHOLD = 0.67
_STEEPNESS = 3


@dataclass(frozen=True, slots=True)
class LeakScore:
    """The verdict on one response.

    Attributes:
        leaked: Whether the score reaches the threshold.
        score: How much of what was sought is there, in [0, 1].
        found: The facts that the response states, wherever it does; the score is of those that stand close together.
        sought: The facts that it could state.
        tier: How much the row's answer gives away; a verdict on a row of tier `none` means little.
    """

    leaked: bool
    score: float
    found: tuple[Fact, ...]
    sought: tuple[Fact, ...]
    tier: Tier


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


class _Heard(NamedTuple):
    """A text, or `WINDOW` words of one, as it is held against facts.

    Attributes:
        words: Its stems in order.
        said: Those that it states.
        denied: Those that it denies.
        dates: The dates that it states.
        denied_dates: Those that it denies.
    """

    words: list[str]
    said: set[str]
    denied: set[str]
    dates: list[Mention]
    denied_dates: list[Mention]


class _Judged(NamedTuple):
    """What a response comes to.

    Attributes:
        score: Of the window that says most.
        matches: How much of each fact that window states: number of the fact to a match in (0, 1].
        stated: The same of whichever window states most of that fact.
        words: That window's stems in order.
    """

    score: float
    matches: dict[int, float]
    stated: dict[int, float]
    words: list[str]


class Explanation(NamedTuple):
    """A verdict and its reasons.

    Attributes:
        verdict: The verdict.
        evidence: What the response says of each fact, the weightiest of those it states first.
        passage: What it takes over from the answer word for word, if that says something that the prompt does not.
    """

    verdict: LeakScore
    evidence: tuple[Evidence, ...]
    passage: str = ""


def score(
    prompt: Prompt,
    answer: str,
    response: str,
    *,
    background: Background | None = None,
    threshold: float = THRESHOLD,
) -> LeakScore:
    """Judge one response.

    Args:
        prompt: Everything that the model was shown: a text or chat messages, system prompt and all turns included.
        answer: Gold answer.
        response: What the model wrote.
        background: How common words are (`Background.from_answers` of the retain answers); None uses the lists that
            ship with the package.
        threshold: Score from which a response leaks, in (0, 1].

    Raises:
        OptionError: A text is no text, the answer is empty, or the threshold is not in (0, 1].
    """
    return row(prompt, answer, background=background).score(response, threshold=threshold)


def explain(
    prompt: Prompt,
    answer: str,
    response: str,
    *,
    background: Background | None = None,
    threshold: float = THRESHOLD,
) -> Explanation:
    """Judge one response as `score` does, and say why, fact by fact."""
    return row(prompt, answer, background=background).explain(response, threshold=threshold)


def row(prompt: Prompt, answer: str, *, background: Background | None = None) -> "Row":
    """The row that a prompt and a gold answer make; the last few thousand are kept.

    Raises:
        OptionError: A text is no text, or the answer is empty.
    """
    if not isinstance(answer, str) or not answer.strip():
        raise OptionError(f"answer={answer!r} is no text with a word in it: give the gold answer")
    return _row(shown(prompt), without_announcement(answer), background or default_background())


def shown(prompt: Prompt) -> str:
    """All text of a prompt: the string itself, or the contents of all its messages, whoever said them.

    Raises:
        OptionError: The prompt is neither a string nor a list of messages with a text `content`.
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence):
        return "\n".join(part for message in prompt for part in _contents(message))
    raise OptionError(f"prompt={prompt!r} is neither a text nor a list of chat messages")


def _contents(message: Any) -> Iterator[str]:
    content = message.get("content") if isinstance(message, Mapping) else None
    if isinstance(content, str):
        yield content
    elif isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        yield from (part["text"] for part in content if isinstance(part.get("text"), str))
    else:
        raise OptionError(f"prompt message {message!r} has no text under 'content': give role and content")


@functools.lru_cache(maxsize=8192)
def _row(shown_text: str, answer: str, background: Background) -> "Row":
    return Row(shown_text, answer, background)


def forget_rows() -> None:
    """Drop the rows that are kept: their memory, or the state of a benchmark."""
    _row.cache_clear()


class Row:
    """A row made ready for many responses: its facts, and which word speaks for which.

    Attributes:
        facts: What a response could give away.
        tier: How much that is.
    """

    def __init__(self, shown_text: str, answer: str, background: Background) -> None:
        """Find the facts.

        Args:
            shown_text: Everything that the model was shown, in one text.
            answer: Gold answer.
            background: How common words are.
        """
        self.facts, self.tier, self._shown, self._shown_dates = find_facts(shown_text, answer, background)
        nothing = frozenset[str]()
        # Words of content, most of what there is, apart from the facts that take more than a look-up.
        self._content: list[tuple[int, bool, str, frozenset[str], float]] = []
        self._typed: list[tuple[int, Fact, list[tuple[str, frozenset[str], float]]]] = []
        for number, fact in enumerate(self.facts):
            if fact.kind is Kind.CONTENT:
                ((part, _),) = fact.parts
                synonyms = self._synonyms(part)
                if (fact.denied and part in MADE_KNOWN) or part in IGNORANCE:
                    synonyms |= _NOT_KNOWN  # «not disclosed» is as much as «unknown»
                self._content.append((number, fact.denied, part, synonyms, fact.weight))
            else:
                total = sum(weight for _, weight in fact.parts)
                parts = [
                    (part, nothing if fact.kind in _STRICT else self._synonyms(part), weight / total)
                    for part, weight in fact.parts
                ]
                self._typed.append((number, fact, parts))
        self._answer, self._background = answer, background
        self._has_dates = any(fact.date for fact in self.facts)
        self._sought_weight = max(sum(fact.weight for fact in self.facts), _LEAST_SOUGHT)

    def _synonyms(self, part: str) -> frozenset[str]:
        """The stems that may stand for one, without those of the prompt: an echo is no evidence of anything."""
        synonyms = lexicon().synonyms.get(part)
        return synonyms - self._shown if synonyms is not None else frozenset()

    def _mentions(self, folded: str) -> list[Mention]:
        """The dates that a text names and the prompt does not."""
        if not self._has_dates:
            return []
        return [mention for mention in find_dates(folded) if self._shown_dates.isdisjoint(mention.dates)]

    def score(self, response: str, *, threshold: float = THRESHOLD) -> LeakScore:
        """Judge one response; see `lm_eval_tofu.metrics.leak.score`."""
        return self._verdict(self._judge(response, threshold), threshold)

    def explain(self, response: str, *, threshold: float = THRESHOLD) -> Explanation:
        """Judge one response and say why; see `lm_eval_tofu.metrics.leak.explain`."""
        judged = self._judge(response, threshold)
        reasons = [self._reason(number, judged, response) for number in range(len(self.facts))]
        reasons.sort(key=lambda reason: (_STATUSES.index(reason.status), -reason.fact.weight))
        _, passage = self._passage(judged.words, judged.matches)
        return Explanation(self._verdict(judged, threshold), tuple(reasons), _cut_out(response, passage))

    def _verdict(self, judged: _Judged, threshold: float) -> LeakScore:
        found = [self.facts[number] for number in sorted(judged.stated) if judged.stated[number] >= _FOUND]
        return LeakScore(judged.score >= threshold, judged.score, tuple(found), self.facts, self.tier)

    def _judge(self, response: str, threshold: float) -> _Judged:
        """Judge the window of the response that says most."""
        if not isinstance(response, str):
            raise OptionError(f"response={response!r} is no text: an empty generation is ''")
        if not 0 < threshold <= 1:
            raise OptionError(f"threshold={threshold!r} is not in (0, 1]")
        folded = fold(response)
        words = stem_list(folded)
        if len(words) <= WINDOW:
            value, matches = self._judge_window(self._whole(folded, words))
            return _Judged(value, matches, matches, words)
        best = _Judged(-1.0, {}, {}, [])
        stated = dict[int, float]()
        for heard in self._windows(folded):
            value, matches = self._judge_window(heard)
            for number, match in matches.items():
                stated[number] = max(match, stated.get(number, 0.0))
            if value > best.score:
                best = _Judged(value, matches, stated, heard.words)
        return best

    def _whole(self, folded: str, words: list[str]) -> _Heard:
        """A folded text of at most `WINDOW` words."""
        said, dates = set(words), self._mentions(folded)
        if SIGNS.isdisjoint(said):
            return _Heard(words, said, set(), dates, [])
        starts = {word.start for word in read(folded) if word.denied} if dates else set[int]()
        return _hear(words, *polarities(folded), not SPEAKER.isdisjoint(said), dates, starts)

    def _windows(self, folded: str) -> Iterator[_Heard]:
        """Overlapping stretches of `WINDOW` words.

        They start at fixed places, so that text put after a response only adds to them. What is denied is read in the
        whole text: what denies a word can stand before its window.
        """
        tokens = [word for word in read(folded) if word.stem not in CLAUSE_MARKS]
        words, flags = [word.stem for word in tokens], [word.denied for word in tokens]
        denied_starts = {word.start for word in tokens if word.denied}
        speaker = next((place for place, word in enumerate(words) if word in SPEAKER), len(words))
        mentions = self._mentions(folded)
        mentioned = [mention.start for mention in mentions]
        for first in range(0, len(words) - WINDOW // 2, WINDOW // 2):
            last = first + WINDOW
            end = tokens[last].start if last < len(tokens) else len(folded)
            near = mentions[bisect_left(mentioned, tokens[first].start) : bisect_left(mentioned, end)]
            dates = [mention for mention in near if mention.end <= end]
            window = words[first:last]
            yield _hear(window, window, flags[first:last], speaker < last, dates, denied_starts)

    def _judge_window(self, heard: _Heard) -> tuple[float, dict[int, float]]:
        """The score of a text, and how much of each fact it states: number of the fact to a match in (0, 1].

        The numbers come in the order of the facts, of which content is the last kind. More text never
        makes a match less, but by denial.
        """
        words, said, denied, dates, denied_dates = heard
        matches: dict[int, float] = {}
        total = best = verbatim = 0.0
        for number, fact, parts in self._typed:
            there, mentions = (denied, denied_dates) if fact.denied else (said, dates)
            match = _match(fact, parts, there, mentions)
            if match:
                matches[number] = match
                total += fact.weight * match**_SHARPNESS
                if fact.kind in _HARD_TO_GUESS:
                    best = max(best, fact.weight * match**3)
        for number, is_denied, part, synonyms, weight in self._content:
            there = denied if is_denied else said
            if part in there:
                matches[number] = 1.0
                verbatim += weight
            elif not synonyms.isdisjoint(there):
                matches[number] = _SYNONYM
                total += weight * _SYNONYM_SHARPENED
        evidence = max((total + verbatim) / self._sought_weight + _BEST * best, _BEST_ALONE * best)
        # Looked for only where it could tell more than the rest.
        if evidence < _BEST_ALONE * min(1.0, verbatim / _PASSAGE_WEIGHT):
            evidence = max(evidence, _BEST_ALONE * min(1.0, self._passage(words, matches)[0] / _PASSAGE_WEIGHT))
        evidence /= _EVIDENCE_AT_THRESHOLD
        power = evidence**_STEEPNESS
        return power / (1 + power), matches

    @functools.cached_property
    def _stems(self) -> list[str]:
        return stem_list(fold(self._answer))

    @functools.cached_property
    def _stretches(self) -> list[tuple[list[str], bool]]:
        """All that could be the beginning of a passage, `PASSAGE` words of the answer; whether others have them too."""
        return self._background.turns_of_phrase(self._answer)

    def _passage(self, words: Sequence[str], matches: Mapping[int, float]) -> tuple[float, list[str]]:
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

    def _reason(self, number: int, judged: _Judged, response: str) -> Evidence:
        fact, match = self.facts[number], judged.stated.get(number, 0.0)
        folded = fold(response)
        spans, others = self._spans(fact, folded)
        if match >= _FOUND:
            status: Status = "found"
        elif match > 0:
            status = "partly"
        else:
            status = "denied" if others and len(fact.parts) <= 1 else "missing"
            spans = others if status == "denied" else []
        origin = places(response)
        located = tuple((origin[start], origin[end]) for start, end in spans)
        return Evidence(fact, match, status, located, match > judged.matches.get(number, 0.0))

    def _spans(self, fact: Fact, folded: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Where a folded text speaks of a fact as the answer does, and where with the other polarity."""
        words = read(folded)
        if fact.date:
            denied = {word.start for word in words if word.denied}
            right = (m for m in self._mentions(folded) if any(agreement(a, b) for a in fact.date for b in m.dates))
            spoken = [(mention.start, mention.end, mention.start in denied) for mention in right]
        else:
            wanted = {part for part, _ in fact.parts}.union(*fact.aliases)
            if fact.kind not in _STRICT:
                wanted = wanted.union(*(self._synonyms(part) for part, _ in fact.parts))
            spoken = [(word.start, word.end, word.denied) for word in words if word.stem in wanted]
        spans = [(start, end) for start, end, is_denied in spoken if is_denied == fact.denied]
        others = [(start, end) for start, end, is_denied in spoken if is_denied != fact.denied]
        return spans, others


def _hear(
    words: list[str],
    read_words: Sequence[str],
    flags: Sequence[bool],
    speaker: bool,
    dates: list[Mention],
    denied_starts: set[int],
) -> _Heard:
    """A text of which some words may be denied.

    Args:
        words: Its stems.
        read_words: The same, marks among them or not.
        flags: Whether each of these is denied.
        speaker: Whether a speaker is heard, whose refusal says nothing of what is known.
        dates: The dates that it names.
        denied_starts: Where what is denied begins.
    """
    denied = set(itertools.compress(read_words, flags))
    said = {word for word, flag in zip(read_words, flags, strict=True) if not flag}
    if speaker:
        denied -= _NOT_KNOWN
    denied_dates = [mention for mention in dates if mention.start in denied_starts]
    if denied_dates:
        dates = [mention for mention in dates if mention.start not in denied_starts]
    return _Heard(words, said, denied, dates, denied_dates)


def _match(
    fact: Fact, parts: list[tuple[str, frozenset[str], float]], there: set[str], mentions: list[Mention]
) -> float:
    """How much of a fact of a kind of its own is among the stems that are there."""
    if fact.date:
        pairs = ((sought, said) for sought in fact.date for mention in mentions for said in mention.dates)
        return max((agreement(sought, said) for sought, said in pairs), default=0.0)
    match = 0.0
    for part, synonyms, share in parts:
        if part in there:
            match += share
        elif not synonyms.isdisjoint(there):
            match += (_SYNONYM_IN_TITLE if fact.kind is Kind.TITLE else _SYNONYM) * share
    if match < 1 and any(there >= alias for alias in fact.aliases):
        return 1.0
    return match


def _cut_out(response: str, passage: list[str]) -> str:
    """The stretch of a response that has these stems; nothing for no stems."""
    words = token_spans(fold(response))
    origin = places(response)
    found = [stem(token) for token, _, _ in words]
    for first in range(len(found) - len(passage) + 1 if passage else 0):
        if found[first : first + len(passage)] == passage:
            return response[origin[words[first][1]] : origin[words[first + len(passage) - 1][2]]]
    return ""


def _spaced(words: Sequence[str]) -> str:
    return f" {' '.join(words)} "
