"""Performance: how far stocks, and baskets of them, have come over windows of sessions."""

import math
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import strawberry

from graph.caching.data_cache import CacheSpec
from graph.execution.dataloaders import Row
from graph.execution.operation import Operation
from graph.model import Holdings
from graph.prices.closes import prices_until
from graph.prices.matrix import PriceMatrix
from graph.prices.returns import Baskets, FloatArray, IntArray, changes, ranks

RANK_SESSIONS = 5
"""How far back the rank lies that a rank is compared with."""
MEMBERS_A_CHARGE = 10
"""Members that are computed with at the price of one object of the answer."""


@strawberry.enum
class Window(StrEnum):
    """How far back a change goes, in sessions: DAY 1, WEEK 5, MONTH 21, QUARTER 63, HALF_YEAR 126, YEAR 252.

    YTD goes back to the last session of the year before.
    """

    DAY = "DAY"
    WEEK = "WEEK"
    MONTH = "MONTH"
    QUARTER = "QUARTER"
    HALF_YEAR = "HALF_YEAR"
    YEAR = "YEAR"
    YTD = "YTD"


_SESSIONS = {
    Window.DAY: 1,
    Window.WEEK: 5,
    Window.MONTH: 21,
    Window.QUARTER: 63,
    Window.HALF_YEAR: 126,
    Window.YEAR: 252,
}

DEFAULT_WINDOWS = [Window.DAY, Window.WEEK, Window.MONTH, Window.QUARTER]


@strawberry.enum
class Weighting(StrEnum):
    """What members count for: their weights in a group, or all the same."""

    WEIGHT = "WEIGHT"
    EQUAL = "EQUAL"


@strawberry.type
class PriceChange:
    """How far a stock has come over a window: its close against the one so many sessions before."""

    window: Window
    """The window."""
    sessions: int
    """How many sessions it is; of YTD, those of the year so far."""
    from_: date | None = strawberry.field(name="from")
    """The session it begins from; null where the data do not go back that far."""
    to: date | None
    """The session it ends with; null where there is none."""
    change: float | None
    """A fraction (0.05 = 5 %); null where one of the two closes is missing."""


@strawberry.type
class WindowChange:
    """How far a set of stocks has come over a window: each close against the one so many sessions before."""

    window: Window
    """The window."""
    sessions: int
    """How many sessions it is; of YTD, those of the year so far."""
    from_: date | None = strawberry.field(name="from")
    """The session it begins from; null where the data do not go back that far."""
    to: date | None
    """The session it ends with; null where there is none."""
    change: float | None
    """The members' return, not the fund's: sum(w r) / sum(w) over those that have both closes and a weight, a fraction;
    null where none has."""
    weighting: Weighting
    """What the members count for in the change."""
    members: int
    """How many members there are."""
    priced: int
    """How many of them have both closes; all that follows is of these."""
    coverage: float
    """priced / members, a fraction; 0 of none."""
    advancers: int
    """How many closed higher."""
    decliners: int
    """How many closed lower."""
    unchanged: int
    """How many closed at the same price."""
    up_share: float | None
    """advancers / priced, a fraction; 0 of none."""
    rank: int | None
    """Its place by change among the rows it is listed with, from 1; equal changes share the better one. Null where it
    is in no list, and where there is no change."""
    rank_change: int | None
    """By how many places it climbed (or, below 0, fell) since five sessions before; null where it had no rank then."""


class Basket(NamedTuple):
    """Members to be averaged."""

    columns: IntArray
    weights: FloatArray
    weighting: Weighting


def share(part: int, whole: int) -> float:
    """Give a part as a fraction; of nothing it is 0."""
    return part / whole if whole else 0.0


def distinct(windows: Sequence[Window] | None) -> list[Window]:
    """Give each window that is asked for once; where nothing is, the usual ones."""
    return list(dict.fromkeys(DEFAULT_WINDOWS if windows is None else windows))


def weigh(holdings: Holdings, weighting: Weighting) -> tuple[FloatArray, Weighting]:
    """Give the weights of a group where they are wanted and it has any, else equal ones, and say which these are."""
    weights = np.frombuffer(holdings.weights)
    if weighting is Weighting.WEIGHT and not np.isnan(weights).all():
        return weights, Weighting.WEIGHT
    return np.ones(len(weights)), Weighting.EQUAL


HOLDINGS: CacheSpec[tuple[Holdings, ...]] = CacheSpec(
    "holdings", deserialize=lambda groups: tuple(Holdings.of(*group) for group in groups)
)
"""The holdings of groups, by the ids of the groups."""


async def holdings_of(operation: Operation, groups: Sequence[int], day: date | None) -> tuple[Holdings, ...]:
    """Give the members of groups by their ids, now or as a day ended."""
    if not groups:
        return ()
    return await operation.cached_rows(
        HOLDINGS,
        ",".join(map(str, groups)),
        _shape_holdings,
        "group_holdings",
        [(group,) for group in groups],
        as_of=day,
    )


def _shape_holdings(answers: list[list[Row]]) -> tuple[Holdings, ...]:
    return tuple(Holdings.of(row["symbols"], row["weights"]) for (row,) in answers)


def measure(
    frame: PriceMatrix,
    session: int | None,
    baskets: Sequence[Basket],
    windows: Sequence[Window],
    *,
    ranked: bool = False,
) -> list[list[WindowChange]]:
    """Measure baskets over windows that end with a session: for each its changes, in the order of the windows."""
    if session is None or not baskets or not windows:
        return [[_unmeasured(window, basket) for window in windows] for basket in baskets]
    columns, laid = Baskets.of([(basket.columns, basket.weights) for basket in baskets]).compact()
    values = np.array([change_over(frame, session, window, columns) for window in windows])
    means, priced = laid.mean(values), laid.tally(~np.isnan(values))
    advancers, decliners = laid.tally(values > 0), laid.tally(values < 0)
    places = [ranks(each) for each in means] if ranked else None
    before = []
    if ranked and session >= RANK_SESSIONS:
        earlier = np.array([change_over(frame, session - RANK_SESSIONS, window, columns) for window in windows])
        before = [ranks(each) for each in laid.mean(earlier)]
    spans = [_span(frame, window, session) for window in windows]

    def change(place: int, basket: Basket, at: int) -> WindowChange:
        measured, up, down = int(priced[at, place]), int(advancers[at, place]), int(decliners[at, place])
        mean = float(means[at, place])
        rank = places[at][place] if places else None
        former = before[at][place] if before else None
        return WindowChange(
            window=windows[at],
            sessions=spans[at][0],
            from_=spans[at][1],
            to=spans[at][2],
            change=None if math.isnan(mean) else mean,
            weighting=basket.weighting,
            members=len(basket.columns),
            priced=measured,
            coverage=share(measured, len(basket.columns)),
            advancers=up,
            decliners=down,
            unchanged=measured - up - down,
            up_share=share(up, measured),
            rank=rank,
            rank_change=None if rank is None or former is None else former - rank,
        )

    return [[change(place, basket, at) for at in range(len(windows))] for place, basket in enumerate(baskets)]


def _length(frame: PriceMatrix, window: Window, session: int) -> int:
    """Say how many sessions a window that ends with one of them is."""
    return _SESSIONS.get(window) or session + 1 - frame.first_of_year(session)


def _begin(frame: PriceMatrix, window: Window, session: int) -> int | None:
    """Give the session that a window begins from; None where there is none."""
    begin = session - _length(frame, window, session)
    if begin < 0 or (window is Window.YTD and frame.date_of(begin).year != frame.date_of(session).year - 1):
        return None
    return begin


def _span(frame: PriceMatrix, window: Window, session: int) -> tuple[int, date | None, date]:
    """Give how many sessions a window is, the day that it begins from, if there is one, and the one that it ends on."""
    begin = _begin(frame, window, session)
    return _length(frame, window, session), None if begin is None else frame.date_of(begin), frame.date_of(session)


def change_over(frame: PriceMatrix, session: int, window: Window, columns: IntArray) -> FloatArray:
    """Give how far stocks have come over a window that ends with a session, NaN where a close is missing."""
    begin = _begin(frame, window, session)
    if begin is None:
        return np.full(len(columns), np.nan)
    return changes(frame.close(session, columns), frame.close(begin, columns))


def _unmeasured(window: Window, basket: Basket) -> WindowChange:
    return WindowChange(
        window=window,
        sessions=_SESSIONS.get(window, 0),
        from_=None,
        to=None,
        change=None,
        weighting=basket.weighting,
        members=len(basket.columns),
        priced=0,
        coverage=0.0,
        advancers=0,
        decliners=0,
        unchanged=0,
        up_share=0.0,
        rank=None,
        rank_change=None,
    )


async def measure_holdings(
    operation: Operation,
    holdings: Holdings,
    windows: Sequence[Window] | None,
    weighting: Weighting | None,
    as_of: date | None,
) -> list[WindowChange]:
    """Measure one set of members over windows that end with the last session on or before a day, or of all."""
    frame = await prices_until(operation, as_of)
    operation.charge(len(holdings.symbols) // MEMBERS_A_CHARGE)
    basket = Basket(frame.columns_of(holdings.symbols), *weigh(holdings, weighting or Weighting.WEIGHT))
    (measured,) = measure(frame, frame.session(as_of), [basket], distinct(windows))
    return measured


async def measure_stock(
    operation: Operation, symbol: str, windows: Sequence[Window] | None, as_of: date | None
) -> list[PriceChange]:
    """Measure a stock over windows that end with the last session on or before a day, or of all."""
    frame = await prices_until(operation, as_of)
    session, column = frame.session(as_of), frame.columns_of([symbol])
    asked = distinct(windows)
    operation.charge(len(asked))
    measured = []
    for window in asked:
        sessions, begin, end = _SESSIONS.get(window, 0), None, None
        change = math.nan
        if session is not None:
            sessions, begin, end = _span(frame, window, session)
            change = float(change_over(frame, session, window, column)[0])
        measured.append(
            PriceChange(
                window=window, sessions=sessions, from_=begin, to=end, change=None if math.isnan(change) else change
            )
        )
    return measured
