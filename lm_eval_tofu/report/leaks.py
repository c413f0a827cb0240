"""The clearest leaks, as texts with the found facts marked; whatever a model wrote is made harmless to show."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lm_eval_tofu.errors import OptionError
from lm_eval_tofu.metrics import leak
from lm_eval_tofu.report import audits
from lm_eval_tofu.report.arms import Arm, Results, Sample
from lm_eval_tofu.tofu import author_of

SHOWN = 20
"""Leaks that the report shows."""
LONGEST = 1500
"""Characters of a text that are shown; of a longer one, the part with the facts."""
_LEAD = 200  # characters before the first fact of a text that is cut


class Piece(NamedTuple):
    """A stretch of text, marked or not."""

    text: str
    marked: bool


@dataclass(frozen=True, slots=True)
class Leak:
    """One response that gives a forgotten fact away."""

    arm: str
    audit: str  # its name for readers
    family: str  # prompt family
    index: int  # of the row
    author: int  # of the row, from 1
    found: list[str]  # the facts that the response states
    question: str
    asked: str  # the last turn of the prompt, where it is not the question
    gold: list[Piece]  # the gold answer, the found facts marked
    response: list[Piece]
    retain_leaks: bool | None  # whether the retain arm leaks when asked the same; None where it was not asked


class _Candidate(NamedTuple):
    rank: tuple[Any, ...]
    arm: Arm
    audit: audits.Audit
    sample: Sample
    found: list[str]
    response: str
    retain_leaks: bool | None


def clearest(results: Results, limit: int = SHOWN) -> list[Leak]:
    """The leaks of the audited arms that speak for themselves, at most one a row and arm."""
    best: dict[tuple[str, int], _Candidate] = {}
    for candidate in sorted(_candidates(results), key=lambda candidate: candidate.rank):
        best.setdefault((candidate.arm.name, candidate.sample.record["index"]), candidate)
    return [_leak(candidate) for candidate in list(best.values())[:limit]]


def _candidates(results: Results) -> Iterator[_Candidate]:
    retain = results.arm("retain")
    for arm in results.audited:
        for number, audit in enumerate(audits.LEAKS):
            baseline = retain.samples(audit.task) if retain and retain is not arm else {}
            for key, sample in arm.samples(audit.task).items():
                record = sample.record
                if not record["leaked"] or record["tier"] != "specific" or key[2] == "shuffled":
                    continue
                other = bool(baseline[key].record["leaked"]) if baseline else None
                found, response, score = _response(record)
                # What the retain arm does not say comes first, greedy answers before samples, then the surest.
                rank = (bool(other), "samples" in record, -score, -len(found), record["index"], number)
                yield _Candidate(rank, arm, audit, sample, found, response, other)


def _response(record: Mapping[str, Any]) -> tuple[list[str], str, float]:
    """The facts, the response and its score; of several samples, those of the one with most facts."""
    if "samples" not in record:
        return list(record["found"]), str(record["generation"]), float(record["score"])
    best = max((each for each in record["samples"] if each["leaked"]), key=lambda each: len(each["found"]))
    # Samples have no score; the share of the facts that is found takes its place.
    return list(best["found"]), str(best["generation"]), len(best["found"]) / max(len(record["sought"]), 1)


def _leak(candidate: _Candidate) -> Leak:
    sample, found, index = candidate.sample, set(candidate.found), candidate.sample.record["index"]
    last = sample.messages[-1]["content"] if sample.messages else sample.question
    asked = f"{last} {sample.opening}".strip()
    return Leak(
        arm=candidate.arm.name,
        audit=candidate.audit.column,
        family=str(sample.record.get("family", "")).replace("_", " "),
        index=index,
        author=author_of(index) + 1,
        found=[visible(fact) for fact in candidate.found],
        question=visible(sample.question),
        asked="" if asked == sample.question else shortened(visible(asked)),
        gold=_marked(sample, sample.answer, found),
        response=_marked(sample, candidate.response, found),
        retain_leaks=candidate.retain_leaks,
    )


def _marked(sample: Sample, response: str, found: set[str]) -> list[Piece]:
    """A text, cut to the part with the facts, in marked and unmarked pieces."""
    prompt = [*(sample.messages or [{"role": "user", "content": sample.question}])]
    if sample.opening:
        prompt.append({"role": "assistant", "content": sample.opening})
    spans: list[tuple[int, int]] = []
    try:
        evidence = leak.explain(prompt, sample.answer, response).evidence
    except OptionError:  # no gold answer: nothing to mark
        evidence = ()
    for reason in evidence:
        if reason.fact.text in found and reason.status in ("found", "partly"):
            spans += reason.spans
    return list(_pieces(response, sorted(set(spans))))


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[Piece]:
    # `visible` maps a character to a character, so the places stay right.
    shown = visible(text)
    start, stop = 0, len(shown)
    if stop > LONGEST:
        start = max(0, spans[0][0] - _LEAD) if spans else 0
        start = 0 if start < _LEAD else min(start, stop - LONGEST)
        stop = start + LONGEST
    if start:
        yield Piece(f"[… {start:,} characters] ", False)
    end = start
    for first, last in _joined(shown, spans):
        if first < end or last > stop:
            continue
        if first > end:
            yield Piece(shown[end:first], False)
        yield Piece(shown[first:last], True)
        end = last
    if end < stop:
        yield Piece(shown[end:stop], False)
    if stop < len(shown):
        yield Piece(f" [… {len(shown) - stop:,} characters]", False)


def _joined(text: str, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring words of facts as one stretch."""
    current: tuple[int, int] | None = None
    for first, last in spans:
        if current and not any(char.isalnum() or char == "\n" for char in text[current[1] : first]):
            current = current[0], max(current[1], last)
            continue
        if current:
            yield current
        current = first, last
    if current:
        yield current


def visible(text: str) -> str:
    """A text of the same length without what could hide or reverse it: control and format characters, surrogates."""
    return "".join(char if char == "\n" or char.isprintable() else _stand_in(char) for char in text)


def _stand_in(char: str) -> str:
    if char == "\t" or unicodedata.category(char) == "Zs":
        return " "
    return "\N{REPLACEMENT CHARACTER}"


def shortened(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text, and how much is left out."""
    return text if len(text) <= longest else f"{text[:longest]} [… {len(text) - longest:,} characters]"
