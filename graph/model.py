"""The words that all packages share: types of groups, environments, names of groups, holdings."""

import math
import sys
from array import array
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Environment(StrEnum):
    """Which of the rows of one database are meant; those of one environment never show in another."""

    DEFAULT = "DEFAULT"
    TEST = "TEST"
    UAT = "UAT"
    PROD = "PROD"


class GroupType(StrEnum):
    """What kind of set a group is."""

    ETF = "ETF"
    THEME = "THEME"
    SECTOR = "SECTOR"
    SEGMENT = "SEGMENT"
    CUSTOM = "CUSTOM"
    UNIVERSE = "UNIVERSE"


class GroupName(NamedTuple):
    """A group as a key can name it."""

    id: int
    name: str
    type: str


class Holdings(NamedTuple):
    """Whom a group holds, by symbol."""

    symbols: tuple[str, ...]
    weights: "array[float]"
    """Fractions of the group; NaN where one is not known."""

    @classmethod
    def of(cls, symbols: Sequence[str], weights: Sequence[float | None]) -> "Holdings":
        """Keep members as the database gives them; what is no number is not known."""
        known = (math.nan if weight is None or math.isinf(weight) else weight for weight in weights)
        # many groups hold the same stocks
        return cls(tuple(map(sys.intern, symbols)), array("d", known))
