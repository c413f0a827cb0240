"""Kinds of facts, what each weighs, and how much a row's answer gives away."""

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple


class Kind(StrEnum):
    """What a fact is about."""

    NAME = "name"
    TITLE = "title"
    DATE = "date"
    NUMBER = "number"
    PHONE = "phone"
    WEB = "web"
    ADDRESS = "address"
    IDENTIFIER = "identifier"
    MONEY = "money"
    QUANTITY = "quantity"
    PERCENT = "percent"
    TIME = "time"
    OCCUPATION = "occupation"
    GENRE = "genre"
    PLACE = "place"
    TERM = "term"
    CHOICE = "choice"
    ROLES = "roles"
    CONTENT = "content"


class Tier(StrEnum):
    """How much a row's answer gives away.

    A specific fact, what is right by chance every few times (yes or no), only a gist, or nothing that could leak.
    """

    SPECIFIC = "specific"
    GUESSABLE = "guessable"
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
    **dict.fromkeys((Kind.PHONE, Kind.WEB, Kind.ADDRESS, Kind.IDENTIFIER), 1.0),
    **dict.fromkeys((Kind.MONEY, Kind.QUANTITY, Kind.PERCENT, Kind.TIME), 0.8),
    Kind.TERM: 1.0,
    Kind.CHOICE: 1.0,
    Kind.ROLES: 1.0,
    Kind.CONTENT: 0.2,
}
SPECIFIC_WEIGHT = 0.5
"""A row is specific if one of its facts, content apart, weighs at least this."""
GIST_WEIGHT = 0.8
"""A row is gist if its content weighs at least this in all."""
# Common words can name something rare ("historical romance"); but not every "writer" is a fact.
LEAST_RARITY: Mapping[Kind, float] = {
    Kind.TITLE: 0.8,
    Kind.NAME: 0.8,
    Kind.OCCUPATION: 0.7,
    Kind.PLACE: 0.7,
    Kind.GENRE: 0.65,
}


class Value(NamedTuple):
    """One value.

    Attributes:
        kind: What it is of.
        unit: What is measured, the currency's codes joined by commas, or nothing where it is not said.
        amounts: How much, in the base unit: several where it can be read in several ways; for a time, minutes after
            midnight.
        text: A telephone number or an address on the net in its plain form.
        factor: The base units in one of the unit that was used.
    """

    kind: Kind
    unit: str = ""
    amounts: tuple[Decimal, ...] = ()
    text: str = ""
    factor: Decimal = Decimal(1)


class Mention(NamedTuple):
    """Where a text names a value, and what it can mean: two dates where day and month may be swapped."""

    meanings: tuple[Any, ...]
    start: int
    end: int
