"""Dates as values: «12 March 1956», «March 12th, 1956», «12/03/1956» and «1956-03-12» are one date."""

import re
from typing import NamedTuple

from lm_eval_tofu.metrics.words import NUMBER_WORDS, ORDINAL_WORDS, listed

_NAMES = listed("january february march april may june july august september october november december")
_MONTHS = {name: number for number, name in enumerate(_NAMES, start=1)} | {
    name[:3]: number for number, name in enumerate(_NAMES, start=1)
}
_MONTHS["sept"] = 9
_DAYS = {word: value for word, value in ORDINAL_WORDS.items() if value <= 31} | {
    f"{tens}-{word}": NUMBER_WORDS[tens] + value
    for tens in ("twenty", "thirty")
    for word, value in ORDINAL_WORDS.items()
    if value < 10
}

_MONTH = r"(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2}(?:st|nd|rd|th)?|" + "|".join(sorted(_DAYS, key=len, reverse=True)).replace("-", "[- ]") + ")"
_YEAR = r"(?P<year>\d{4})\b"
_TO_YEAR = r"(?:[\s,]{1,3}(?:(?:in|of|the|year)\s){0,3}" + _YEAR + ")?"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})\b",
        r"\b(?P<first>\d{1,2})[-/.](?P<second>\d{1,2})[-/.](?P<year>\d{4})\b",
        rf"\b{_DAY}\s(?:day\s)?(?:of\s)?{_MONTH}{_TO_YEAR}",
        rf"\b{_MONTH}\s(?:the\s)?{_DAY}\b(?!\d){_TO_YEAR}",
        rf"\b{_MONTH}[\s,]{{1,2}}(?:of\s)?{_YEAR}",
        r"\b(?P<year>1[0-9]\d\d|20\d\d)\b",
    )
)
_WORTH_LOOKING = re.compile(r"\d|" + "|".join(_NAMES[:4] + _NAMES[5:]))


class Date(NamedTuple):
    """A date whose unknown parts are 0."""

    year: int
    month: int
    day: int


class Mention(NamedTuple):
    """Where a text names a date, and what it can mean: two dates where day and month cannot be told apart."""

    dates: tuple[Date, ...]
    start: int
    end: int


def find_dates(folded: str) -> list[Mention]:
    """All dates, months with a year, and bare years (1000 to 2099) of a folded text, in its order."""
    if _WORTH_LOOKING.search(folded) is None:
        return []
    mentions: list[Mention] = []
    taken: set[int] = set()
    for pattern in _PATTERNS:
        for match in pattern.finditer(folded):
            dates = _meanings(match.groupdict())
            if dates and taken.isdisjoint(range(match.start(), match.end())):
                taken.update(range(match.start(), match.end()))
                mentions.append(Mention(dates, match.start(), match.end()))
    return sorted(mentions, key=lambda mention: mention.start)


def agreement(sought: Date, said: Date) -> float:
    """How far a date that was said is the one that is sought, in [0, 1].

    1 if all parts of `sought` are there; less where `said` leaves some out; 0 as soon as one part differs, but for a
    wrong day of the right month and year, which no guess would hit.
    """
    asked = [(a, b) for a, b in zip(sought, said, strict=True) if a]
    if any(b and a != b for a, b in asked):
        return 0.5 if sought.year and sought.month and sought[:2] == said[:2] else 0.0
    return 1.0 if all(b for _, b in asked) else (0.0, 0.55, 0.85)[sum(1 for _, b in asked if b)]


def _meanings(parts: dict[str, str | None]) -> tuple[Date, ...]:
    year = int(parts.get("year") or 0)
    if parts.get("first"):
        first, second = int(parts["first"] or 0), int(parts["second"] or 0)
        options = [Date(year, first, second), Date(year, second, first)]
    else:
        month, day = parts.get("month") or "0", parts.get("day") or "0"
        number = _MONTHS.get(month) or (int(month) if month.isdecimal() else 0)
        options = [Date(year, number, _day(day))]
    return tuple(dict.fromkeys(date for date in options if date.month <= 12 and date.day <= 31))


def _day(text: str) -> int:
    return _DAYS.get(text.replace(" ", "-")) or int(text.rstrip("stndrh"))
