"""Amounts as values: money, quantities with their units, percentages."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from lm_eval_tofu.metrics.kinds import Kind, Mention, Value
from lm_eval_tofu.metrics.lexicon import lexicon
from lm_eval_tofu.metrics.words import NUMBER_WORDS, ORDINAL_WORDS, listed, merged_numbers, singular

_SEPARATED = r"\d{1,3}(?P<gap>[ ,.'])\d{3}(?:(?P=gap)\d{3})*(?:[.,]\d+)?(?![\d])"
_NUMBER = rf"{_SEPARATED}|\d+(?:[.,]\d+)?"
_TOKEN = re.compile(rf"(?P<number>{_NUMBER})|us\$|km/h|°[cf]?|m2\b|km2\b|[^\W\d_]+|[$€£¥₹₽₺₩%/]|[.,;:!?()\n]")
_SCALES = {"k": 10**3, "thousand": 10**3, "m": 10**6, "mn": 10**6, "mio": 10**6, "million": 10**6, "millionen": 10**6}
_SCALES |= {"millón": 10**6, "millon": 10**6, "bn": 10**9, "billion": 10**9, "milliarde": 10**9, "trillion": 10**12}
_PERCENT = frozenset(listed("% percent percentage prozent"))
_DIVISORS = frozenset(map(str, (*range(2, 21), 25, 50, 100)))
_DENOMINATORS = {"half": 2, "quarter": 4, "halve": 2} | {
    word: value for word, value in ORDINAL_WORDS.items() if 2 < value <= 20
}
_DIGIT_WORDS = {word: str(value) for word, value in NUMBER_WORDS.items() if value < 10}


class _Number(NamedTuple):
    amounts: tuple[Decimal, ...]
    first: int
    after: int


def find_amounts(folded: str) -> Iterator[Mention]:
    """The amounts of money, quantities, percentages and plain numbers of a folded text."""
    spans = [(_plain(match[0]) if match["number"] else match[0], match) for match in _TOKEN.finditer(folded)]
    tokens = [text for text, _ in spans]
    spots = [(match.start(), match.end()) for _, match in spans]
    lone = [match["number"] or "" for _, match in spans]
    place = 0
    while place < len(tokens):
        number = _read_number(tokens, lone, place)
        if number is None:
            place += 1
            continue
        first, after, values = _with_unit(tokens, number)
        for value in values:
            yield Mention((value,), spots[first][0], spots[after - 1][1])
        place = max(after, number.after)


def _plain(figures: str) -> str:
    """A number in figures as Python reads it; where a separator can mean two things, as thousands."""
    figures = figures.replace(" ", "").replace("'", "")
    if "," in figures and "." in figures:
        thousands, point = (",", ".") if figures.rindex(".") > figures.rindex(",") else (".", ",")
        return figures.replace(thousands, "").replace(point, ".")
    for mark in ",.":
        parts = figures.split(mark)
        if len(parts) > 2 or (mark == "," and len(parts) == 2 and len(parts[1]) == 3):
            return figures.replace(mark, "")
    return figures.replace(",", ".")


def _read_number(tokens: Sequence[str], lone: Sequence[str], place: int) -> _Number | None:
    """The number that begins at a token: figures, words, fractions, with its scale."""
    after, amount = merged_numbers(tokens, place)
    readings: tuple[Decimal, ...]
    if amount is not None:
        readings = (amount,)
        if after == place + 1 and re.fullmatch(r"\d{1,3}\.\d{3}", lone[place]):  # "1.500" is 1500 to many
            readings = (amount, amount * 1000)
        if _at(tokens, after) == "point":
            end, digits = after + 1, ""
            while _at(tokens, end) in _DIGIT_WORDS:
                digits, end = digits + _DIGIT_WORDS[tokens[end]], end + 1
            if digits:
                readings, after = (amount + Decimal(f"0.{digits}"),), end
        if tokens[after : after + 2] == ["and", "a"] and _at(tokens, after + 2) in _DENOMINATORS:
            readings = tuple(each + 1 / Decimal(_DENOMINATORS[tokens[after + 2]]) for each in readings)
            after += 3
        elif _at(tokens, after + 1) == "/" and _at(tokens, after + 2).isdecimal() and int(tokens[after + 2]):
            readings = tuple(each + Decimal(tokens[after]) / int(tokens[after + 2]) for each in readings)  # 12 1/2
            after += 3
        elif _at(tokens, after) == "/" and _at(tokens, after + 1) in _DIVISORS and amount <= int(tokens[after + 1]):
            readings, after = tuple(each / int(tokens[after + 1]) for each in readings), after + 2
        elif (part := _DENOMINATORS.get(singular(_at(tokens, after) or "-"))) and amount < part:
            readings, after = (amount / part,), after + 1  # two thirds
    elif tokens[place] in ("a", "an") and tokens[place + 2 : place + 5] == ["and", "a", "half"]:  # an hour and a half
        unit, _ = _unit(tokens[: place + 2], place + 1)
        return _Number((Decimal("1.5"),), place, place + 1) if unit else None
    elif tokens[place] in ("a", "an", "half", "quarter") or tokens[place] in _DENOMINATORS:
        at = place + (tokens[place] in ("a", "an"))
        if (part := _DENOMINATORS.get(_at(tokens, at))) is None:
            return None
        readings, after = (1 / Decimal(part),), at + 1
        after += _at(tokens, after) in ("a", "an")  # half a gram
    else:
        return None
    scale = _SCALES.get(_at(tokens, after))
    if (scale and not (_at(tokens, after) == "m" and _at(tokens, place - 1) not in _currencies())) or (
        scale and _currency(tokens, after + 1)[0]
    ):
        readings, after = tuple(each * scale for each in readings), after + 1
    return _Number(readings, place, after)


def _with_unit(tokens: Sequence[str], number: _Number) -> tuple[int, int, list[Value]]:
    """A number with what stands before and after it: where that begins and ends, and what it can mean."""
    amounts, first, after = number
    before = _currencies().get(_at(tokens, first - 1)) if first else None
    if before and _at(tokens, first - 1) != "a":
        return first - 1, after, [Value(Kind.MONEY, before, amounts)]
    following = _at(tokens, after)
    if following in _PERCENT or (following == "per" and _at(tokens, after + 1) == "cent"):
        return first, after + 1 + (following == "per"), [Value(Kind.PERCENT, "", amounts)]
    if following in ("pour", "por") and _at(tokens, after + 1) in ("cent", "ciento"):
        return first, after + 2, [Value(Kind.PERCENT, "", amounts)]
    values = []
    end = after
    code, length = _currency(tokens, after)
    if code:
        values.append(Value(Kind.MONEY, code, amounts))
        end = after + length
    unit, length = _unit(tokens, after)
    if unit:
        dimension, factor = unit
        total = tuple(each * factor for each in amounts)
        end = max(end, after + length)
        # "5 feet 8 inches", "2 hours and 10 minutes"
        at = end + (_at(tokens, end) in ("and", ","))
        further, amount = merged_numbers(tokens, at)
        smaller, more = _unit(tokens, further) if amount is not None else (None, 0)
        if amount is not None and smaller and smaller[0] == dimension and smaller[1] < factor:
            total = tuple(each + amount * smaller[1] for each in total)
            end = further + more
        values.append(Value(Kind.QUANTITY, dimension, total, factor=factor))
    further = after + 1 + (_at(tokens, after) == "out")  # "one in eight", "3 out of 4"
    whole = merged_numbers(tokens, further)[1] if _at(tokens, further - 1) in ("in", "of") else None
    if whole and all(0 < each < whole <= 1000 for each in amounts):
        parts = tuple(100 * each / whole for each in amounts)
        return first, further + 1, [Value(Kind.NUMBER, "", amounts), Value(Kind.PERCENT, "rounded", parts)]
    if not values:
        values = [Value(Kind.NUMBER, "", amounts)]
        if all(0 < each < 1 for each in amounts):  # "one eighth" of a company
            values.append(Value(Kind.PERCENT, "rounded", tuple(100 * each for each in amounts)))
    return first, end, values


def _unit(tokens: Sequence[str], place: int) -> tuple[tuple[str, Decimal] | None, int]:
    two = " ".join(map(singular, filter(None, (_at(tokens, place), _at(tokens, place + 1)))))
    if unit := lexicon().units.get(two):
        return unit, 1 + (" " in two)
    one = _at(tokens, place)
    return lexicon().units.get(one) or (lexicon().units.get(singular(one)) if one else None), 1


def _currency(tokens: Sequence[str], place: int) -> tuple[str, int]:
    one, two = _at(tokens, place), _at(tokens, place + 1)
    if one in ("us", "american"):
        return ("usd", 2) if two and singular(two) == "dollar" else ("", 0)
    both = f"{one} {singular(two)}" if two else one
    if code := _currencies().get(both):
        return code, 1 + bool(two)
    return (_currencies().get(one) or _currencies().get(singular(one)) or "", 1) if one else ("", 0)


def _currencies() -> dict[str, str]:
    return lexicon().currencies


def _at(tokens: Sequence[str], place: int) -> str:
    return tokens[place] if 0 <= place < len(tokens) else ""
