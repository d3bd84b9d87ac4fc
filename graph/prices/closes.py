"""Prices: which closes an operation computes with, how they come into memory and stay fresh there, and bars by date."""

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
"""Years of closes before that of the day asked: more than the longest window takes, wherever in its year it ends."""
FIRST_YEAR = 1900
"""Of which prices are taken."""
MAX_BARS = 5_000
"""Bars of one answer."""
DEFAULT_BARS = 252
"""Bars that are given where no first day is."""

READING_SECONDS = 60.0
"""How long a year of closes may take to be read; a request does not wait as long, and the next finds them."""

PRICES: CacheSpec[PriceMatrix] = CacheSpec("prices", family="prices", max_bytes=256 * 1024 * 1024)
"""Closes by the last of their years, `latest` for those up to the last session: 24 MB for three years of 3,500 stocks.

In the process alone, since a Redis would have to send all of them each time.
"""

_LATEST = "latest"
_NO_MONTH = "prices all"
_LONG = timedelta(days=7)  # after the last session: no weekend and no holidays


async def prices_until(operation: Operation, as_of: date | None) -> PriceMatrix:
    """Give the closes up to a day, or up to the last session: those of its year and of the two years before."""
    latest = await operation.cached(PRICES, _LATEST, lambda: _load(operation, _LATEST, None))
    if as_of is None or as_of.year >= latest.year:
        return latest
    year = max(as_of.year, FIRST_YEAR)
    return await operation.cached(PRICES, str(year), lambda: _load(operation, str(year), year))


async def _load(operation: Operation, name: str, year: int | None) -> CachedValue[PriceMatrix]:
    runtime = operation.runtime
    async with operation.snapshot() as read:
        (table,), generation, _ = await read("price_table")
        frame = EMPTY
        # who comes while it is read reads no more than what changed meanwhile; inside of the snapshot, since whoever
        # waits must not have the last connection, which the other needs
        async with runtime.prices_lock:
            before = await runtime.data_caches[PRICES].last(name) or EMPTY
            if before.database != table["database"]:
                before = EMPTY
            day = (await read("last_price_day")).rows[0]["day"] if table["there"] else None
            if day:
                tracked = generation is not None
                frame = await _read(read, before, year or day.year, tracked=tracked)
                if year is None and len(frame.sessions) and (ends := frame.date_of(-1).year) < day.year:
                    # where most stocks have ended and a few go on, the days of those are no sessions
                    frame = await _read(read, before, ends, tracked=tracked)
    return CachedValue(frame._replace(database=table["database"]), generation)


async def _read(read: Read, before: PriceMatrix, year: int, *, tracked: bool) -> PriceMatrix:
    """Make the frame of a year out of the one before, by reading the months that changed since, or all of them."""
    months = [date(each, month, 1) for each in range(year - YEARS_BEFORE, year + 1) for month in range(1, 13)]
    names = {f"prices {month:%Y-%m}": month for month in months}
    changes = {row["family"]: row["changes"] for row in (await read("price_changes")).rows} if tracked else {}
    changes = {name: count for name, count in changes.items() if name in names or name == _NO_MONTH}
    frame = EMPTY
    if tracked and before.year == year and before.changes.get(_NO_MONTH) == changes.get(_NO_MONTH):
        frame = before
        months = [month for name, month in names.items() if before.changes.get(name) != changes.get(name)]
    if months:
        first, last = months[0], months[-1]
        until = date(last.year + last.month // 12, last.month % 12 + 1, 1)
        # a year at a time, since each takes another turn through the table, and all at once too much memory there
        starts = [month for month in names.values() if first <= month < until][::12]
        rows: list[Row] = []
        for start, end in pairwise([*starts, until]):
            rows += (await read("closes", start, end, seconds=READING_SECONDS)).rows
        series = ((row["symbol"], row["days"], row["closes"], row["opens"]) for row in rows)
        # not on the event loop, which others wait for meanwhile
        frame = await asyncio.to_thread(frame.replaced, first, until, series)
    return frame._replace(year=year, changes=changes)


def no_prices_reason(frame: PriceMatrix, session: int | None, as_of: date | None) -> str | None:
    """Say why there is no session on or before a day, or that it is long before the last prices, and what to do."""
    load = "`stockgraph load` loads files of symbol,date,open,high,low,close,volume, or as Yahoo and Nasdaq write them"
    if session is None:
        if as_of is None or not frame.year:
            return f"There are no prices; {load}."
        return f"There are no prices of {as_of} or of the two years before it; {load}."
    last: date = frame.days[-1].item()
    ended = frame.date_of(session)
    if as_of is None and last - ended > _LONG:
        return (
            f"The last session is {ended}: on the days after it, up to {last} at least, fewer than half of its stocks"
            " have a close; see that the prices are whole."
        )
    return None


@strawberry.type
class Bar:
    """What a stock cost on a day; split-adjusted as far as whoever loaded it did that."""

    date: date
    """The day, which need be no session."""
    open: float | None
    """The first price; null where it is not known."""
    high: float | None
    """The highest price."""
    low: float | None
    """The lowest price."""
    close: float
    """The last price."""
    volume: float | None
    """How many shares were traded."""


async def bars(info: Info, symbol: str, first: date | None, last: date | None) -> list[Bar]:
    """Give the bars of a stock between two days; LimitExceeded where they are too many."""
    operation = info.context
    # reserved before all of them are read, and counted after
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
