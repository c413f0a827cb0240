"""Dates as values: "12 March 1956", "12. März 1956", "12/03/1956" and "1956-03-12" are one; decades are periods."""

import re
from typing import NamedTuple

from lm_eval_tofu.metrics.kinds import Mention
from lm_eval_tofu.metrics.words import NUMBER_WORDS, ORDINAL_WORDS, listed

_NAMES = listed("january february march april may june july august september october november december")
_FOREIGN = (  # folded: German, French, Spanish
    listed("januar februar marz april mai juni juli august september oktober november dezember"),
    listed("janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre"),
    listed("enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre"),
)
_MONTHS = {name: number for names in (_NAMES, *_FOREIGN) for number, name in enumerate(names, start=1)} | {
    name[:3]: number for number, name in enumerate(_NAMES, start=1)
}
_MONTHS["sept"] = 9
_DAYS = {word: value for word, value in ORDINAL_WORDS.items() if value <= 31} | {
    f"{tens}-{word}": NUMBER_WORDS[tens] + value
    for tens in ("twenty", "thirty")
    for word, value in ORDINAL_WORDS.items()
    if value < 10
}

# A word may stick to a month ("onOctober 31"), and the number of a footnote to a year ("March 6, 20181").
_MONTH = r"(?:\b|(?<=\bon)|(?<=\bin))(?P<month>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(?P<day>\d{1,2}(?:st|nd|rd|th|er|\.)?|"
_DAY += "|".join(sorted(_DAYS, key=len, reverse=True)).replace("-", "[- ]") + ")"
_YEAR = r"(?P<year>\d{4})(?:\b|(?=\d{1,2}\b))"
_TO_YEAR = r"(?:[\s,]{1,3}(?:(?:in|of|the|year|de|del)\s){0,3}" + _YEAR + ")?"
_CENTURIES = {word: NUMBER_WORDS[word] for word in listed("fifteen sixteen seventeen eighteen nineteen twenty")}
_TENS = {word: value for word, value in NUMBER_WORDS.items() if value >= 20}
_DECADES = {f"{word[:-1]}ies": value for word, value in _TENS.items()}
_TEENS = "|".join(word for word, value in NUMBER_WORDS.items() if 10 <= value < 20)
_UNITS = "|".join(word for word, value in NUMBER_WORDS.items() if 0 < value < 10)
_REST = rf"(?:{'|'.join(_TENS)})(?:[- ](?:{_UNITS}))?|{_TEENS}|oh[- ](?:{_UNITS})|{'|'.join(_DECADES)}"
_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})\b",
        r"\b(?P<first>\d{1,2})[-/.]\s?(?P<second>\d{1,2})[-/.]\s?(?P<year>\d{4})\b",
        rf"\b{_DAY}\s?(?:day\s)?(?:of\s|de\s)?{_MONTH}{_TO_YEAR}",
        rf"{_MONTH}\s(?:the\s)?{_DAY}\b(?!\d){_TO_YEAR}",
        rf"{_MONTH}[\s,]{{1,2}}(?:(?:of|de|del)\s)?{_YEAR}",
        r"(?<![\d/])(?P<month>0?[1-9]|1[0-2])/(?P<year>1\d{3}|20\d\d)\b",
        r"(?<![\d/.])(?P<first>\d{2})/(?P<second>\d{2})(?![\d/])",
        r"\b(?P<decade>1\d\d0|20\d0)'?s\b",
        rf"\b(?P<century>{'|'.join(_CENTURIES)})[- ](?P<rest>{_REST})\b",
        r"\b(?P<year>1\d{3}|20\d\d)\b",
        r"(?<=\bin )(?P<year>1[5-9]\d\d|20\d\d)(?=\d{1,2}\.(?:\s|$))",
    )
)
_WORTH_LOOKING = re.compile(r"\d|" + "|".join(dict.fromkeys(name for name in (*_MONTHS, *_CENTURIES) if len(name) > 3)))


class Date(NamedTuple):
    """A date whose unknown parts are 0.

    `span` is the number of years of a decade, and 0 of a date for which its year alone is an answer.
    """

    year: int
    month: int
    day: int
    span: int = 1


def find_dates(folded: str) -> list[Mention]:
    """All dates, months with a year, decades and bare years (1000 to 2099) of a folded text, in its order."""
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


_IN_DECADE = 0.9
_OF_DECADE = 0.4
_YEAR_OF_DATE = 0.8


def date_agreement(sought: Date, said: Date) -> float:
    """How far a date that was said is the one that is sought, in [0, 1].

    1 if all parts of `sought` are there; less where `said` leaves some out; 0 as soon as one part differs, but for a
    wrong day of the right month and year, which no guess would hit.
    """
    if sought.span > 1 or said.span > 1:
        if sought.span == said.span:
            return float(sought.year == said.year)
        decade, date = (sought, said) if sought.span > 1 else (said, sought)
        inside = decade.year <= date.year < decade.year + decade.span
        return (_IN_DECADE if sought.span > 1 else _OF_DECADE) * inside
    if sought.span == 0 and said[1:3] == (0, 0):
        return _YEAR_OF_DATE * (sought.year == said.year)
    asked = [(a, b) for a, b in zip(sought[:3], said[:3], strict=True) if a]
    if any(b and a != b for a, b in asked):
        return 0.5 if sought.year and sought.month and sought[:2] == said[:2] else 0.0
    return 1.0 if all(b for _, b in asked) else (0.0, 0.55, 0.85)[sum(1 for _, b in asked if b)]


def _meanings(parts: dict[str, str | None]) -> tuple[Date, ...]:
    year = int(parts.get("year") or 0)
    if parts.get("decade"):
        options = [Date(int(parts["decade"] or 0), 0, 0, 10)]
    elif parts.get("century"):
        words = (parts["rest"] or "").replace("-", " ").removeprefix("oh ").split()
        rest = sum(_DECADES.get(word) or NUMBER_WORDS[word] for word in words)
        span = 10 if words[0] in _DECADES else 1
        options = [Date(100 * _CENTURIES[parts["century"] or ""] + rest, 0, 0, span)]
    elif parts.get("first"):
        first, second = int(parts["first"] or 0), int(parts["second"] or 0)
        options = [Date(year, first, second), Date(year, second, first)]
    else:
        month, day = parts.get("month") or "0", parts.get("day") or "0"
        number = _MONTHS.get(month) or (int(month) if month.isdecimal() else 0)
        options = [Date(year, number, _day(day))]
    return tuple(dict.fromkeys(date for date in options if date.month <= 12 and date.day <= 31))


def _day(text: str) -> int:
    return _DAYS.get(text.replace(" ", "-")) or int(text.rstrip("stndrhe."))
