"""Types shared by all packages: group types, environments, callers, group names and holdings."""

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, Self, SupportsIndex


class Environment(StrEnum):
    """A partition of the groups in one database; groups of one environment never appear in another."""

    DEFAULT = "DEFAULT"
    """The environment used unless another is set."""
    TEST = "TEST"
    """The environment for tests."""
    UAT = "UAT"
    """The environment for user acceptance tests."""
    PROD = "PROD"
    """The environment for production."""


class GroupType(StrEnum):
    """The kind of a group."""

    ETF = "ETF"
    """The holdings of an exchange-traded fund, usually with weights."""
    THEME = "THEME"
    """The stocks of an investment theme."""
    SECTOR = "SECTOR"
    """The stocks of an economic sector; a stock should belong to one only."""
    SEGMENT = "SEGMENT"
    """The stocks of a market segment."""
    CUSTOM = "CUSTOM"
    """A group of any other kind."""
    UNIVERSE = "UNIVERSE"
    """The members of an index, such as `nasdaq100`."""


class Caller(NamedTuple):
    """A sender of requests, as far as answers may depend on it."""

    key: str = ""
    """Callers of one key get the same answers; empty for those who are anonymous."""


ANONYMOUS = Caller()


class GroupName(NamedTuple):
    """Id, name and type of a group."""

    id: int
    name: str
    type: str


class Symbols(tuple[str, ...]):
    """Symbols whose texts are interned: all that hold a symbol hold one text of it, which counts towards no cache."""

    __slots__ = ()

    @classmethod
    def of(cls, symbols: Iterable[str]) -> Self:
        """Intern the texts of symbols."""
        return cls(map(sys.intern, symbols))

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        """Return a symbol, or some of them."""
        found = tuple.__getitem__(self, place)
        return Symbols(found) if type(place) is slice else found


class Holdings(NamedTuple):
    """Members of a group with their weights."""

    symbols: Symbols
    weights: "array[float]"
    """Weight of each member, a fraction; NaN if unknown."""

    @classmethod
    def of(cls, symbols: Sequence[str], weights: Sequence[float | None]) -> "Holdings":
        """Build holdings from symbols and weights; None and infinite weights become NaN."""
        known = (math.nan if weight is None or math.isinf(weight) else weight for weight in weights)
        return cls(Symbols.of(symbols), array("d", known))
