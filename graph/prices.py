"""Prices: which closes an operation computes with, how they come into memory and stay fresh there, and bars by date."""

import asyncio
from datetime import date
from itertools import pairwise

import strawberry

from graph.context import Info, Operation, Read, Row
from graph.errors import LimitExceeded
from graph.frame import EMPTY, Frame
from graph.memo import Remembered

YEARS_BEFORE = 2
"""Years of closes before that of the day asked: more than the longest window takes, wherever in its year it ends."""
FIRST_YEAR = 1900
"""Of which prices are taken."""
MAX_BARS = 5_000
"""Bars of one answer."""
DEFAULT_BARS = 252
"""Bars that are given where no first day is."""

_LATEST = "latest"


async def frame_for(operation: Operation, as_of: date | None) -> Frame:
    """Give the closes up to a day, or up to the last session: those of its year and of the two years before."""
    frames = operation.runtime.frames
    latest = await operation.remember(frames, _LATEST, lambda: _load(operation, _LATEST, None))
    if as_of is None or as_of.year >= latest.year:
        return latest
    year = max(as_of.year, FIRST_YEAR)
    return await operation.remember(frames, str(year), lambda: _load(operation, str(year), year))


async def _load(operation: Operation, name: str, year: int | None) -> Remembered[Frame]:
    before = await operation.runtime.frames.last(name) or EMPTY
    async with operation.snapshot() as read:
        last = await read("last_price_day")
        day = last.rows[0]["day"]
        tracked = last.generation is not None
        frame = EMPTY
        if day:
            frame = await _read(read, before, year or day.year, tracked=tracked)
        if day and year is None and len(frame.sessions) and (ends := frame.date_of(-1).year) < day.year:
            # where most stocks have ended and a few go on, the days of those are no sessions
            frame = await _read(read, before, ends, tracked=tracked)
    return Remembered(frame, last.generation)


async def _read(read: Read, before: Frame, year: int, *, tracked: bool) -> Frame:
    """Make the frame of a year out of the one before, by reading the months that changed since, or all of them."""
    months = [date(each, month, 1) for each in range(year - YEARS_BEFORE, year + 1) for month in range(1, 13)]
    names = {f"prices {month:%Y-%m}": month for month in months}
    changes = {row["family"]: row["changes"] for row in (await read("price_changes")).rows} if tracked else {}
    changes = {name: count for name, count in changes.items() if name in names or name == "prices all"}
    if tracked and before.year == year and before.changes.get("prices all") == changes.get("prices all"):
        frame = before
        months = [month for name, month in names.items() if before.changes.get(name) != changes.get(name)]
    else:
        frame = EMPTY
    if months:
        first, last = months[0], months[-1]
        until = date(last.year + last.month // 12, last.month % 12 + 1, 1)
        # year by year, since a statement has only so much time
        ends = [
            first,
            *(date(each, 1, 1) for each in range(first.year + 1, until.year + 1) if date(each, 1, 1) < until),
            until,
        ]
        rows: list[Row] = []
        for start, end in pairwise(ends):
            rows += (await read("closes", start, end)).rows
        # not on the event loop, which others wait for meanwhile
        series = ((row["symbol"], row["days"], row["closes"], row["opens"]) for row in rows)
        frame = await asyncio.to_thread(frame.replaced, first, until, series)
    return frame._replace(year=year, changes=changes)


def why_nothing(frame: Frame, as_of: date | None) -> str:
    """Say why there is no session on or before a day, and what to do."""
    load = "`stockgraph load` loads files of symbol,date,open,high,low,close,volume, or as Yahoo and Nasdaq write them"
    if as_of is None or not frame.year:
        return f"There are no prices; {load}."
    return f"There are no prices of {as_of} or of the two years before it; {load}."


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
    rows = await info.context.many("bars", symbol, first, last, DEFAULT_BARS if first is None else MAX_BARS + 1)
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
