"""Types shared by all packages: group types, environments, callers, group names and holdings."""

import math
import sys
from array import array
from collections.abc import Iterable, Sequence
from enum import StrEnum
from ipaddress import IPv6Address, IPv6Network
from itertools import pairwise
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


def network_of(address: str | None) -> str:
    """Return the part of an address that tells clients apart: of an IPv6 address the first 64 bits."""
    if address is None or ":" not in address:
        return str(address)
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))


_IDS = 2**31  # of the database are below
_NOT_OURS = "It is not what was written."


class GroupName(NamedTuple):
    """Id, name and type of a group."""

    id: int
    name: str
    type: str

    @classmethod
    def from_json(cls, value: object) -> "GroupName":
        """Return a name that was written as JSON; raise ValueError if it is anything else."""
        match value:
            case [int(id), str(name), str(type)] if 0 < id < _IDS and id is not True and "\0" not in name + type:
                return cls(id, name, type)
        raise ValueError(_NOT_OURS)


class Symbols(tuple[str, ...]):
    """Symbols whose texts are interned: all that hold a symbol hold one text of it, which counts towards no cache."""

    __slots__ = ()

    @classmethod
    def of(cls, symbols: Iterable[str]) -> Self:
        """Intern the texts of symbols."""
        return cls(map(sys.intern, symbols))

    @classmethod
    def from_json(cls, value: object) -> Self:
        """Return sorted symbols that were written as JSON; raise ValueError if it is anything else."""
        if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
            raise ValueError(_NOT_OURS)
        if any(symbol >= after for symbol, after in pairwise(value)):
            raise ValueError(_NOT_OURS)
        return cls.of(value)

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

    @classmethod
    def from_json(cls, value: Any) -> "Holdings":
        """Return holdings that were written as JSON; raise ValueError if it is anything else."""
        match value:
            case [symbols, [*weights]] if all(each is None or isinstance(each, float) for each in weights):
                held = cls.of(Symbols.from_json(symbols), weights)
                if len(held.symbols) == len(held.weights):
                    return held
        raise ValueError(_NOT_OURS)
