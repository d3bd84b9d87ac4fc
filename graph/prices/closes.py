"""Closes that an operation computes with: loaded into a price matrix, cached, and refreshed month by month."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import strawberry

from graph.caching.data_cache import CachedValue, CacheSpec
from graph.errors import LimitExceeded
from graph.execution.dataloaders import Read, Row
from graph.execution.operation import Info, Operation
from graph.prices.matrix import EMPTY, PriceMatrix

YEARS_BEFORE = 2
"""Years of closes before the requested one, so that the longest window fits wherever in that year it ends."""
FIRST_YEAR = 1900
"""Year that earlier dates are treated as."""
MAX_BARS = 5_000
"""Maximum number of bars that `prices` of a stock returns."""
DEFAULT_BARS = 252
"""Number of bars that `prices` returns if no first day is given."""

READING_SECONDS = 60.0
"""Time limit for reading a year of closes; a request times out sooner, and later ones find the closes in the cache."""

PRICES: CacheSpec[PriceMatrix] = CacheSpec("prices", family="prices", updated=True)
"""Price matrices by the last of their years; three years of 3,500 stocks take 24 MB.

In the process alone, since a Redis would have to send all of it each time.
"""

_LATEST = "latest"
"""Cache key of the matrix that ends with the latest session; others have their year as key."""
_ALL_MONTHS = "prices all"
"""Change counter of changes that concern no single month."""
_STALE_AFTER = timedelta(days=7)
"""Gap between the last session and the last close that no weekend or holidays explain."""


async def prices_until(operation: Operation, as_of: date | None) -> PriceMatrix:
    """Return the closes of the year of a day, or of the latest session if None, and of the two years before it."""
    latest = await operation.cached(PRICES, _LATEST, lambda: _load(operation, _LATEST, None))
    if as_of is None or as_of.year >= latest.year:
        return latest
    year = max(as_of.year, FIRST_YEAR)
    return await operation.cached(PRICES, str(year), lambda: _load(operation, str(year), year))


async def _load(operation: Operation, name: str, year: int | None) -> CachedValue[PriceMatrix]:
    """Load the matrix of a year, or of the latest session's year if None, starting from the one last cached."""
    runtime = operation.runtime
    async with operation.snapshot() as read:
        table_read = await read("price_table")
        (table,), generation = table_read.rows, table_read.generation
        matrix = EMPTY
        # loads run one by one, so that the next reads only the months changed meanwhile; the snapshot is opened before
        # the lock is taken, since those waiting for the lock may hold the last connection of the pool
        async with runtime.prices_lock:
            previous = await runtime.data_caches[PRICES].last(name) or EMPTY
            if previous.database != table["database"]:
                previous = EMPTY
            last_day = (await read("last_price_day")).rows[0]["day"] if table["there"] else None
            if last_day:
                tracked = generation is not None
                matrix = await _load_years(read, previous, year or last_day.year, tracked=tracked)
                if year is None and len(matrix.sessions) and (end_year := matrix.date_of(-1).year) < last_day.year:
                    # if most stocks have ended and a few go on, the days of those few are not sessions
                    matrix = await _load_years(read, previous, end_year, tracked=tracked)
    return CachedValue(matrix._replace(database=table["database"]), generation)


async def _load_years(read: Read, previous: PriceMatrix, year: int, *, tracked: bool) -> PriceMatrix:
    """Build the matrix of a year and the two before it, reading only the months changed since `previous` if it can."""
    months = [date(each, month, 1) for each in range(year - YEARS_BEFORE, year + 1) for month in range(1, 13)]
    months_by_counter = {f"prices {month:%Y-%m}": month for month in months}
    counts = {row["family"]: row["changes"] for row in (await read("price_changes")).rows} if tracked else {}
    counts = {name: count for name, count in counts.items() if name in months_by_counter or name == _ALL_MONTHS}
    matrix = EMPTY
    if tracked and previous.year == year and previous.change_counts.get(_ALL_MONTHS) == counts.get(_ALL_MONTHS):
        matrix = previous
        months = [
            month for name, month in months_by_counter.items() if previous.change_counts.get(name) != counts.get(name)
        ]
    if months:
        first, last = months[0], months[-1]
        until = date(last.year + last.month // 12, last.month % 12 + 1, 1)
        # a year at a time: the database passes over the table for each, and all years at once take it too much memory
        starts = [month for month in months_by_counter.values() if first <= month < until][::12]
        rows: list[Row] = []
        for start, end in pairwise([*starts, until]):
            rows += (await read("closes", start, end, seconds=READING_SECONDS)).rows
        packed = ((row["symbol"], row["days"], row["closes"], row["opens"]) for row in rows)
        # in a thread, since it would block the event loop
        matrix = await asyncio.to_thread(matrix.replace_days, first, until, packed)
    return matrix._replace(year=year, change_counts=counts)


def no_prices_reason(matrix: PriceMatrix, session: int | None, as_of: date | None) -> str | None:
    """Explain why there is no session on or before a day, or why the latest is long before the last close, if so."""
    load = "`stockgraph load` loads files of symbol,date,open,high,low,close,volume, or as Yahoo and Nasdaq write them"
    if session is None:
        if as_of is None or not matrix.year:
            return f"There are no prices; {load}."
        return f"There are no prices of {as_of} or of the two years before it; {load}."
    last_day: date = matrix.days[-1].item()
    session_date = matrix.date_of(session)
    if as_of is None and last_day - session_date > _STALE_AFTER:
        return (
            f"The last session is {session_date}: on the days after it, up to {last_day} at least, fewer than half of"
            " its stocks have a close; see that the prices are whole."
        )
    return None


@strawberry.type
class Bar:
    """The prices of a stock on one day, split-adjusted if the loaded data were."""

    date: date
    """The day, which need not be a session."""
    open: float | None
    """The opening price; null if unknown."""
    high: float | None
    """The highest price of the day; null if unknown."""
    low: float | None
    """The lowest price of the day; null if unknown."""
    close: float
    """The closing price."""
    volume: float | None
    """The number of shares traded; null if unknown."""


async def bars(info: Info, symbol: str, first: date | None, last: date | None) -> list[Bar]:
    """Return the bars of a stock between two days, ascending; without `first`, the last DEFAULT_BARS.

    Raises LimitExceeded if there are more than MAX_BARS.
    """
    operation = info.context
    # the budget is reserved before the bars are read, and they are counted afterwards
    until = last or datetime.now(UTC).date()
    most = DEFAULT_BARS if first is None else min(MAX_BARS, max(0, (until - first).days + 1))
    operation.charge(most)
    rows = await operation.load_rows("bars", symbol, first, last, DEFAULT_BARS if first is None else MAX_BARS + 1)
    operation.charge(-most)
    if len(rows) > MAX_BARS:
        raise LimitExceeded(f"{symbol} has more than {MAX_BARS:,} prices since {first}; give a later `from` or a `to`.")
    return [
        Bar(
            date=row["date"],
            open=row["open"],
            high=row["high"],
            low=row["low"],
            close=row["close"],
            volume=row["volume"],
        )
        for row in rows
    ]
