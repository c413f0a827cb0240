"""Facts that are values: what was meant counts, however it is written.

Each kind is read only where a row seeks it, so that "7.45" is a time only to someone who asks for one.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from lm_eval_tofu.metrics.clock import find_times
from lm_eval_tofu.metrics.contacts import find_phones, find_web, pattern_of, same_phone, with_digits
from lm_eval_tofu.metrics.dates import Date, date_agreement, find_dates
from lm_eval_tofu.metrics.kinds import Kind, Mention, Value
from lm_eval_tofu.metrics.measures import find_amounts

_MEASURED = frozenset((Kind.MONEY, Kind.QUANTITY, Kind.PERCENT))
KEYED = frozenset((Kind.IDENTIFIER, Kind.ADDRESS))
"""Kinds that are looked for as they are sought: anything could be an identifier."""
_BARE = 0.85
"""Agreement of a number without a unit, "at ninety-one", with one that has the right amount in its unit."""


def find_values(folded: str, kinds: frozenset[Kind]) -> list[Mention]:
    """All values of some kinds in a folded text, in its order; see `find_keys` for identifiers and postal addresses."""
    found: list[Mention] = []
    if Kind.WEB in kinds:
        found += find_web(folded)
    if Kind.PHONE in kinds:
        found += find_phones(folded)
    if Kind.TIME in kinds:
        found += find_times(folded)
    if Kind.DATE in kinds:
        found += find_dates(folded)
    if not kinds.isdisjoint(_MEASURED):
        found += (each for each in find_amounts(folded) if each.meanings[0].kind in kinds | {Kind.NUMBER})
    return sorted(found, key=lambda each: each.start)


def find_keys(folded: str, sought: Iterable[Value]) -> Iterator[Mention]:
    """Where a folded text has identifiers or postal addresses."""
    text = with_digits(folded)
    for value in sought:
        yield from (Mention((value,), *match.span()) for match in pattern_of(value).finditer(text))


def agreement(sought: Date | Value, said: Date | Value) -> float:
    """How far a value that was said is the one that is sought, in [0, 1]."""
    if isinstance(sought, Date) or isinstance(said, Date):
        return date_agreement(sought, said) if isinstance(sought, Date) and isinstance(said, Date) else 0.0
    if Kind.NUMBER in (sought.kind, said.kind) and sought.kind is not said.kind:
        plain = {amount / sought.factor for amount in sought.amounts}
        whole = sought.kind is Kind.QUANTITY or (sought.kind is Kind.MONEY and max(sought.amounts) >= 1000)
        return _BARE if whole and not plain.isdisjoint(said.amounts) else 0.0
    if sought.kind is not said.kind:
        return 0.0
    if sought.kind is Kind.PHONE:
        return same_phone(sought.text, said.text)
    if sought.text or said.text:
        return float(sought == said)
    if sought.kind is Kind.PERCENT and sought.unit != said.unit:  # a third is 33 %
        return float(any(abs(a - b) < Decimal("0.5") for a in sought.amounts for b in said.amounts))
    if sought.kind is Kind.MONEY:
        if sought.unit and said.unit and set(sought.unit.split(",")).isdisjoint(said.unit.split(",")):
            return 0.0
    elif sought.unit != said.unit:
        return 0.0
    if not set(sought.amounts).isdisjoint(said.amounts):
        return 1.0
    if sought.kind is Kind.QUANTITY and _is_metric(sought.factor) != _is_metric(said.factor):
        pairs = ((a, b) for a in sought.amounts for b in said.amounts)
        return float(any(abs(a - b) <= Decimal("0.01") * abs(a) for a, b in pairs))  # converted and rounded
    return 0.0


def _is_metric(factor: Decimal) -> bool:
    return factor.normalize().as_tuple().digits == (1,)
