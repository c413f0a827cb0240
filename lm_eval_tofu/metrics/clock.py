"""Times of day as values: "7:45 pm", "19:45" and "a quarter to eight in the evening" are one time."""

import re
from collections.abc import Iterator
from decimal import Decimal

from lm_eval_tofu.metrics.kinds import Kind, Mention, Value
from lm_eval_tofu.metrics.words import NUMBER_WORDS

_HOURS = {word: value for word, value in NUMBER_WORDS.items() if 1 <= value <= 12}
_HOUR = rf"(?P<hour>\d{{1,2}}|{'|'.join(_HOURS)})"
_SPOKEN = "|".join(word for word, value in NUMBER_WORDS.items() if value in (5, 10, 20))
_MINUTES = rf"(?P<minute>\d{{1,2}}(?= min)|{_SPOKEN}|twenty[- ]five|(?:a )?quarter|half)"
_HALF = r"a\.?\s?m\b\.?|p\.?\s?m\b\.?"
_PART = rf"(?:\s*(?P<part>{_HALF}|(?:in the|at|this|that) (?:\w+ )?(?:morning|afternoon|evening|night)))?"
_FIGURES = r"(?<![\d.:])(?P<hour>\d{1,2})(?P<gap>[:.h])(?P<minute>[0-5]\d)(?![\d:]|\.\d)(?::\d\d)?"
_TIME_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?P<named>noon|midday|midnight|mittag|mitternacht|midi|minuit)\b",
        rf"\b{_MINUTES}(?: minutes?)? (?P<side>past|after|to|before) {_HOUR}\b(?: o'?clock)?{_PART}",
        rf"{_FIGURES}(?: ?(?:uhr|hours|hrs))?{_PART}",
        rf"\b(?P<hour>{'|'.join(_HOURS)})[ -](?P<minute>thirty|fifteen|forty[- ]five|ten|twenty|forty|fifty)\b{_PART}",
        rf"(?<![\d.:])\b{_HOUR} ?(?P<sign>o'?clock|uhr|h\b|heures|{_HALF})(?: ?(?:midday|noon))?{_PART}",
        rf"\b{_HOUR} (?P<part>in the (?:morning|afternoon|evening)|at night)",
    )
)
_DAY = 24 * 60


def find_times(folded: str) -> Iterator[Mention]:
    """The times of day that a folded text names, in minutes after midnight."""
    taken = set[int]()
    for pattern in _TIME_PATTERNS:
        for match in pattern.finditer(folded):
            if taken.isdisjoint(range(*match.span())) and (minutes := _minutes(match.groupdict())):
                taken.update(range(*match.span()))
                yield Mention((Value(Kind.TIME, amounts=tuple(map(Decimal, minutes))),), *match.span())


def _minutes(parts: dict[str, str | None]) -> tuple[int, ...]:
    """Minutes after midnight, two readings where neither a half of the day nor an hour above 12 tells them apart."""
    if named := parts.get("named"):
        return (0,) if named in ("midnight", "mitternacht", "minuit") else (_DAY // 2,)
    hour_text, minute_text = parts["hour"] or "", (parts.get("minute") or "0").removeprefix("a ")
    hour = int(hour_text) if hour_text.isdecimal() else _HOURS[hour_text]
    minute = {"quarter": 15, "half": 30}.get(minute_text) or _number_of(minute_text)
    if hour > 24 or minute > 59:
        return ()
    total = 60 * hour + (-minute if parts.get("side") in ("to", "before") else minute)
    half = f"{parts.get('sign') or ''} {parts.get('part') or ''}".strip().replace(".", "").replace(" ", "")
    if hour > 12 or hour_text.startswith("0") or (parts.get("gap") == "h") or half == "uhr":
        return (total % _DAY,)
    if half.endswith("night") and hour == 12:
        return (total % (_DAY // 2),)
    if half.endswith(("am", "morning")):
        return (total % (_DAY // 2),)
    if half.endswith(("pm", "afternoon", "evening")) or (half.endswith("night") and hour >= 6):
        return (total % (_DAY // 2) + _DAY // 2,)
    return (total % _DAY, (total + _DAY // 2) % _DAY)


def _number_of(text: str) -> int:
    if text.isdecimal():
        return int(text)
    tens, _, unit = text.replace("-", " ").partition(" ")
    return NUMBER_WORDS[tens] + NUMBER_WORDS.get(unit, 0)
