"""The price matrix: the closes of all stocks over some years as an immutable array of days x symbols."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import repeat
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from graph.errors import LimitExceeded
from graph.prices.returns import FloatArray, IntArray

MAX_CELLS = 16_000_000
"""Days x symbols of one matrix, 9 bytes each: the 756 sessions of three years of 21,000 stocks."""

PackedPrices: TypeAlias = tuple[str, bytes, bytes, bytes]
"""A symbol, then its days with a close (4 bytes each, days since 2000), closes and opens (8 bytes each, NaN for a
missing open), all big-endian."""

NO_OPEN = 2
"""Value of `PriceMatrix.intraday` for a missing close or open."""
_EPOCH = np.datetime64("2000-01-01", "D").astype(np.int64)


class PriceMatrix(NamedTuple):
    """Close of each stock on each day, including days that are not sessions.

    A close is NaN if the stock has none on that day, and always in the last column, which stands for every stock
    without prices. Closes are above zero. A session is identified by its index among the sessions.
    """

    days: npt.NDArray[np.datetime64]
    """All days on which any stock has a close, ascending."""
    sessions: IntArray
    """Indices of the days that are sessions."""
    columns: Mapping[str, int]
    """Column of each symbol."""
    closes: FloatArray
    """Closes, days x (symbols + 1)."""
    intraday: npt.NDArray[np.int8]
    """1, 0 or -1 for a close above, at or below the open of its day; NO_OPEN if one of them is missing."""
    year: int = 0
    """Last of the years covered; 0 if there are no prices."""
    database: str = ""
    """Identity of the database that the closes were read from."""
    change_counts: Mapping[str, int] = MappingProxyType({})
    """Number of changes of each month (`prices 2024-03`) when it was read; months that never changed are left out."""

    def columns_of(self, symbols: Sequence[str]) -> IntArray:
        """Return the columns of symbols."""
        return np.fromiter(map(self.columns.get, symbols, repeat(-1)), np.intp, len(symbols))

    def last_session(self, as_of: date | None) -> int | None:
        """Return the last session on or before a day, or of all days if None; None if there is no such session."""
        if as_of is None:
            return len(self.sessions) - 1 if len(self.sessions) else None
        count = int(np.searchsorted(self.days[self.sessions], np.datetime64(as_of, "D"), side="right"))
        return count - 1 if count else None

    def date_of(self, session: int) -> date:
        """Return the date of a session."""
        day: date = self.days[self.sessions[session]].item()
        return day

    def first_of_year(self, session: int) -> int:
        """Return the first session of the year of a session."""
        year = self.days[self.sessions[session]].astype("datetime64[Y]")
        return int(np.searchsorted(self.days[self.sessions], year.astype("datetime64[D]")))

    def session_closes(self, session: int, columns: IntArray) -> FloatArray:
        """Return the closes of a session; NaN for a negative session, which is before the first."""
        if session < 0:
            return np.full(len(columns), np.nan)
        closes: FloatArray = self.closes[self.sessions[session], columns]
        return closes

    def count_priced(self, session: int, columns: IntArray) -> int:
        """Count the columns that have a close in a session."""
        return int(np.count_nonzero(~np.isnan(self.session_closes(session, columns))))

    def intraday_directions(self, session: int, columns: IntArray) -> FloatArray:
        """Return 1, 0 or -1 for closes of a session above, at or below their open; NaN if one of them is missing."""
        intraday = self.intraday[self.sessions[session], columns]
        return np.where(intraday == NO_OPEN, np.nan, intraday)

    def history(self, session: int, count: int, columns: IntArray) -> FloatArray:
        """Return the closes of the last `count` sessions up to a session: sessions x columns, fewer at the start."""
        rows = self.sessions[max(0, session + 1 - count) : session + 1]
        # five times as fast as indexing with rows and columns together
        closes: FloatArray = self.closes[rows[0] : rows[-1] + 1].take(columns, axis=1)
        return closes if len(closes) == len(rows) else closes[rows - rows[0]]

    def replace_days(self, first: date, until: date, rows: Iterable[PackedPrices]) -> "PriceMatrix":
        """Return a matrix with the days from `first` up to, but without, `until` replaced by those of `rows`.

        Raises LimitExceeded if the matrix would have more than MAX_CELLS cells.
        """
        symbols, days, closes, opens = _unpack(rows)
        outside = (self.days < np.datetime64(first, "D")) | (self.days >= np.datetime64(until, "D"))
        # counting the days takes a third of the time that sorting them does
        day_offsets = days - np.datetime64(first, "D").astype(np.int64)
        present = np.bincount(day_offsets) > 0
        insert_at = np.searchsorted(self.days[outside], np.datetime64(first, "D"))
        all_days = np.insert(self.days[outside], insert_at, np.datetime64(first, "D") + np.flatnonzero(present))
        # stocks without any close left lose their column
        kept_columns = np.flatnonzero(~np.isnan(self.closes[outside, :-1]).all(axis=0))
        old_symbols = list(self.columns)
        columns = {old_symbols[column]: index for index, column in enumerate(kept_columns)}
        for symbol, _ in symbols:
            columns.setdefault(symbol, len(columns))
        if len(all_days) * len(columns) > MAX_CELLS:
            raise LimitExceeded(
                f"The closes of {len(columns):,} symbols on {len(all_days):,} days are more than the {MAX_CELLS:,} that"
                " fit into memory here; leave out of ohlcv_daily what no group holds."
            )
        shape = len(all_days), len(columns) + 1
        all_closes, intraday = np.full(shape, np.nan), np.full(shape, NO_OPEN, np.int8)
        kept_rows = np.searchsorted(all_days, self.days[outside])
        all_closes[kept_rows, : len(kept_columns)] = self.closes[np.ix_(outside, kept_columns)]
        intraday[kept_rows, : len(kept_columns)] = self.intraday[np.ix_(outside, kept_columns)]
        cells = (
            insert_at + (np.cumsum(present) - 1)[day_offsets],
            np.repeat([columns[symbol] for symbol, _ in symbols], [count for _, count in symbols]).astype(np.intp),
        )
        all_closes[cells] = closes
        intraday[cells] = np.where(np.isnan(opens), NO_OPEN, np.sign(closes - opens))
        for array in (all_days, all_closes, intraday):
            array.flags.writeable = False
        return PriceMatrix(all_days, sessions_of(~np.isnan(all_closes)), columns, all_closes, intraday)


def _unpack(
    rows: Iterable[PackedPrices],
) -> tuple[list[tuple[str, int]], npt.NDArray[np.int64], FloatArray, FloatArray]:
    """Return each symbol with its number of days, and the days (since 1970), closes and opens of all, concatenated."""
    symbols: list[tuple[str, int]] = []
    buffers: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
    for symbol, *packed in rows:
        symbols.append((symbol, len(packed[0]) // 4))
        for buffer, values in zip(buffers, packed, strict=True):
            buffer.append(values)
    days, closes, opens = (b"".join(buffer) for buffer in buffers)
    return (
        symbols,
        _EPOCH + np.frombuffer(days, ">i4"),
        np.frombuffer(closes, ">f8").astype(np.float64),
        np.frombuffer(opens, ">f8").astype(np.float64),
    )


def sessions_of(present: npt.NDArray[np.bool_]) -> IntArray:
    """Return the indices of the days that are sessions; `present` says which symbols have a close, days x symbols.

    The first day is a session, and so is each day on which at least half of the symbols of the previous session have a
    close. If those stocks have ended, a day on which twice as many symbols have a close starts a new run of sessions.
    """
    sessions: list[int] = []
    previous, count_before = np.zeros(present.shape[1], bool), np.intp(0)
    for day, row in enumerate(present):
        count = np.count_nonzero(row)
        if 2 * np.count_nonzero(row & previous) >= count_before or count >= 2 * count_before:
            sessions.append(day)
            previous, count_before = row, count
    return np.array(sessions, np.intp)


EMPTY = PriceMatrix(
    np.empty(0, "datetime64[D]"),
    np.empty(0, np.intp),
    {},
    np.empty((0, 1)),
    np.empty((0, 1), np.int8),
)
"""Matrix without any prices."""
