"""The closes of all stocks over some years, in memory: days x symbols, immutable."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from graph.errors import LimitExceeded
from graph.prices.returns import FloatArray, IntArray

MAX_CELLS = 16_000_000
"""Days x symbols of one frame, 9 bytes each: the 756 sessions of three years of 21,000 stocks."""

Series: TypeAlias = tuple[str, bytes, bytes, bytes]
"""A symbol, the days it has a close of (4 bytes each, days since 2000), and 8 bytes each the closes and the opens (NaN
where there is none), all big-endian."""

NO_OPEN = 2
_EPOCH = np.datetime64("2000-01-01", "D").astype(np.int64)


class PriceMatrix(NamedTuple):
    """What each stock cost at the end of each day; days that are no sessions are kept, and passed over.

    A close is missing (NaN) where the stock has none on the day, and always in the last column, which is that of every
    stock without prices. Closes are above zero.
    """

    days: npt.NDArray[np.datetime64]
    """All days on which anything has a close, in their order."""
    sessions: IntArray
    """Which of the days are sessions."""
    columns: Mapping[str, int]
    """Where each symbol is."""
    closes: FloatArray
    """Days x (symbols + 1)."""
    intraday: npt.NDArray[np.int8]
    """Whether each close is above (1), at (0) or below (-1) its day's open; NO_OPEN where one of them is missing."""
    year: int = 0
    """The last of the years that it is of."""
    database: str = ""
    """Which one it was read from."""
    changes: Mapping[str, int] = MappingProxyType({})
    """How often the prices of each month (`prices 2024-03`) had changed; months that never had are left out."""

    def columns_of(self, symbols: Sequence[str]) -> IntArray:
        """Give the columns of some symbols."""
        find = self.columns.get
        return np.array([find(symbol, -1) for symbol in symbols], np.intp)

    def session(self, as_of: date | None) -> int | None:
        """Give the place among the sessions of the last one on or before a day, or of all; None where there is none."""
        if as_of is None:
            return len(self.sessions) - 1 if len(self.sessions) else None
        place = int(np.searchsorted(self.days[self.sessions], np.datetime64(as_of, "D"), side="right"))
        return place - 1 if place else None

    def date_of(self, session: int) -> date:
        """Give the date of a session."""
        day: date = self.days[self.sessions[session]].item()
        return day

    def first_of_year(self, session: int) -> int:
        """Give the first session of the year that a session is of."""
        year = self.days[self.sessions[session]].astype("datetime64[Y]")
        return int(np.searchsorted(self.days[self.sessions], year.astype("datetime64[D]")))

    def close(self, session: int, columns: IntArray) -> FloatArray:
        """Give the closes of a session; those before the first session are missing."""
        if session < 0:
            return np.full(len(columns), np.nan)
        closes: FloatArray = self.closes[self.sessions[session], columns]
        return closes

    def priced(self, session: int, columns: IntArray) -> int:
        """Count those that have a close of a session."""
        return int(np.count_nonzero(~np.isnan(self.close(session, columns))))

    def since_open(self, session: int, columns: IntArray) -> FloatArray:
        """Say whether each close of a session is above (1), at (0) or below (-1) its open, NaN where one is missing."""
        intraday = self.intraday[self.sessions[session], columns]
        return np.where(intraday == NO_OPEN, np.nan, intraday)

    def history(self, session: int, count: int, columns: IntArray) -> FloatArray:
        """Give the closes of as many sessions, the last of them this one: sessions x columns, or fewer sessions."""
        rows = self.sessions[max(0, session + 1 - count) : session + 1]
        closes: FloatArray = self.closes[rows[:, np.newaxis], columns]
        return closes

    def replaced(self, first: date, until: date, rows: Iterable[Series]) -> "PriceMatrix":
        """Make a frame in which the days from `first` up to, and without, `until` are those of the rows.

        LimitExceeded where that is more than memory should hold.
        """
        symbols, days, closes, opens = _columns(rows)
        outside = (self.days < np.datetime64(first, "D")) | (self.days >= np.datetime64(until, "D"))
        # by counting and not by sorting, which takes three times as long
        offset = days - np.datetime64(first, "D").astype(np.int64)
        there = np.bincount(offset) > 0
        before = np.searchsorted(self.days[outside], np.datetime64(first, "D"))
        all_days = np.insert(self.days[outside], before, np.datetime64(first, "D") + np.flatnonzero(there))
        # the columns of stocks that have no close any more go
        lasting = np.flatnonzero(~np.isnan(self.closes[outside, :-1]).all(axis=0))
        old = list(self.columns)
        columns = {old[column]: place for place, column in enumerate(lasting)}
        for symbol, _ in symbols:
            columns.setdefault(symbol, len(columns))
        if len(all_days) * len(columns) > MAX_CELLS:
            raise LimitExceeded(
                f"The closes of {len(columns):,} symbols on {len(all_days):,} days are more than the {MAX_CELLS:,} that"
                " fit into memory here; leave out of ohlcv_daily what no group holds."
            )
        shape = len(all_days), len(columns) + 1
        whole, intraday = np.full(shape, np.nan), np.full(shape, NO_OPEN, np.int8)
        kept = np.searchsorted(all_days, self.days[outside])
        whole[kept, : len(lasting)] = self.closes[np.ix_(outside, lasting)]
        intraday[kept, : len(lasting)] = self.intraday[np.ix_(outside, lasting)]
        at = (
            before + (np.cumsum(there) - 1)[offset],
            np.repeat([columns[symbol] for symbol, _ in symbols], [count for _, count in symbols]).astype(np.intp),
        )
        whole[at] = closes
        intraday[at] = np.where(np.isnan(opens), NO_OPEN, np.sign(closes - opens))
        for array in (all_days, whole, intraday):
            array.flags.writeable = False
        return PriceMatrix(all_days, sessions_of(~np.isnan(whole)), columns, whole, intraday)


def _columns(rows: Iterable[Series]) -> tuple[list[tuple[str, int]], npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Give each symbol and how many days it has, and all of their days (since 1970), closes and opens."""
    symbols: list[tuple[str, int]] = []
    parts: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
    for symbol, *series in rows:
        symbols.append((symbol, len(series[0]) // 4))
        for part, some in zip(parts, series, strict=True):
            part.append(some)
    days, closes, opens = (b"".join(part) for part in parts)
    return (
        symbols,
        _EPOCH + np.frombuffer(days, ">i4"),
        np.frombuffer(closes, ">f8").astype(np.float64),
        np.frombuffer(opens, ">f8").astype(np.float64),
    )


def sessions_of(present: npt.NDArray[np.bool_]) -> IntArray:
    """Say which days are sessions, of days x symbols that have a close.

    The first is; then each on which at least half of the symbols of the session before have one. Where those have
    ended, a day on which twice as many others have one begins anew.
    """
    sessions: list[int] = []
    before, needed = np.zeros(present.shape[1], bool), np.intp(0)
    for day, there in enumerate(present):
        count = np.count_nonzero(there)
        if 2 * np.count_nonzero(there & before) >= needed or count >= 2 * needed:
            sessions.append(day)
            before, needed = there, count
    return np.array(sessions, np.intp)


EMPTY = PriceMatrix(
    np.empty(0, "datetime64[D]"),
    np.empty(0, np.intp),
    {},
    np.empty((0, 1)),
    np.empty((0, 1), np.int8),
)
"""Where there are no prices."""
