"""Performance: changes of stocks and of weighted sets of stocks over windows of sessions."""

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
"""Sessions between a rank and the earlier one that `rankChange` compares it with."""
MEMBERS_PER_CHARGE = 10
"""Members computed with that count as one object of the answer in the budget."""


@strawberry.enum
class Window(StrEnum):
    """The length of a change, counted in sessions back from the last one."""

    DAY = "DAY"
    """1 session."""
    WEEK = "WEEK"
    """5 sessions."""
    MONTH = "MONTH"
    """21 sessions."""
    QUARTER = "QUARTER"
    """63 sessions."""
    HALF_YEAR = "HALF_YEAR"
    """126 sessions."""
    YEAR = "YEAR"
    """252 sessions."""
    YTD = "YTD"
    """Year to date: back to the last session of the previous year."""


_WINDOW_SESSIONS = {
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
    """The weights of members in an average."""

    WEIGHT = "WEIGHT"
    """Members count by their weights in a group."""
    EQUAL = "EQUAL"
    """All members count the same."""


@strawberry.type
class PriceChange:
    """The change of a stock's close over a window."""

    window: Window
    """The window."""
    sessions: int
    """The length of the window in sessions; for YTD, the number of sessions of the year so far."""
    from_: date | None = strawberry.field(name="from")
    """The session the window starts from; null if the prices do not go back that far."""
    to: date | None
    """The session the window ends with; null if there is none."""
    change: float | None
    """The change of the close, a fraction (0.05 = 5 %); null if one of the two closes is missing."""


@strawberry.type
class WindowChange:
    """The change of a set of stocks over a window."""

    window: Window
    """The window."""
    sessions: int
    """The length of the window in sessions; for YTD, the number of sessions of the year so far."""
    from_: date | None = strawberry.field(name="from")
    """The session the window starts from; null if the prices do not go back that far."""
    to: date | None
    """The session the window ends with; null if there is none."""
    change: float | None
    """The members' return, not the fund's: sum(w r) / sum(w) over the members with both closes and a weight, a fraction
    (0.05 = 5 %); null if there are none."""
    weighting: Weighting
    """The weights of the members in the change."""
    members: int
    """The number of members."""
    priced: int
    """The number of members with both closes; all counts that follow are among these."""
    coverage: float
    """priced / members, a fraction; 0 if there are no members."""
    advancers: int
    """The number of members that closed higher."""
    decliners: int
    """The number of members that closed lower."""
    unchanged: int
    """The number of members that closed at the same price."""
    up_share: float | None
    """advancers / priced, a fraction; 0 if none is priced."""
    rank: int | None
    """The rank by change among the listed rows, from 1; equal changes share the better rank. Null outside of a list, or
    if the change is null."""
    rank_change: int | None
    """The number of ranks climbed (below 0: fallen) since five sessions before; null if there was no rank then."""


class Basket(NamedTuple):
    """Stocks to be averaged, as columns of a price matrix."""

    columns: IntArray
    weights: FloatArray
    """Weight of each stock; NaN if unknown."""
    weighting: Weighting
    """Origin of the weights."""


class _Span(NamedTuple):
    """A window that ends with a session."""

    sessions: int
    start: date | None
    """Session the window starts from; None if the prices do not go back that far."""
    end: date


def share(part: int, whole: int) -> float:
    """Return part / whole, or 0 if the whole is 0."""
    return part / whole if whole else 0.0


def unique_windows(windows: Sequence[Window] | None) -> list[Window]:
    """Return each requested window once, or the default windows if None."""
    return list(dict.fromkeys(DEFAULT_WINDOWS if windows is None else windows))


def resolve_weights(holdings: Holdings, weighting: Weighting) -> tuple[FloatArray, Weighting]:
    """Return the weights of holdings, or equal ones if requested or none is known, and say which these are."""
    weights = np.frombuffer(holdings.weights)
    if weighting is Weighting.WEIGHT and not np.isnan(weights).all():
        return weights, Weighting.WEIGHT
    return np.ones(len(weights)), Weighting.EQUAL


HOLDINGS: CacheSpec[tuple[Holdings, ...]] = CacheSpec(
    "holdings",
    deserialize=lambda groups: tuple(map(Holdings.from_json, groups)),
    fits=lambda key, groups: len(groups) == key.count(",") + 1,
)
"""The holdings of groups, by the ids of the groups."""


async def holdings_of(operation: Operation, groups: Sequence[int], day: date | None) -> tuple[Holdings, ...]:
    """Return the holdings of groups by their ids, current or at the end of a UTC day."""
    if not groups:
        return ()
    return await operation.cached_rows(
        HOLDINGS,
        ",".join(map(str, groups)),
        _holdings_from_rows,
        "group_holdings",
        [(group,) for group in groups],
        as_of=day,
    )


def _holdings_from_rows(answers: list[list[Row]]) -> tuple[Holdings, ...]:
    return tuple(Holdings.of(row["symbols"], row["weights"]) for (row,) in answers)


def measure_baskets(
    matrix: PriceMatrix,
    session: int | None,
    baskets: Sequence[Basket],
    windows: Sequence[Window],
    *,
    ranked: bool = False,
) -> list[list[WindowChange]]:
    """Return the changes of each basket over windows that end with a session, in the order of the windows."""
    if session is None or not baskets or not windows:
        return [[_unmeasured(window, basket) for window in windows] for basket in baskets]
    columns, members = Baskets.of([(basket.columns, basket.weights) for basket in baskets]).compact()
    values = np.array([window_changes(matrix, session, window, columns) for window in windows])
    means, priced = members.mean(values), members.count(~np.isnan(values))
    advancers, decliners = members.count(values > 0), members.count(values < 0)
    current_ranks = [ranks(each) for each in means] if ranked else None
    earlier_ranks = []
    if ranked and session >= RANK_SESSIONS:
        earlier = session - RANK_SESSIONS
        earlier_values = np.array([window_changes(matrix, earlier, window, columns) for window in windows])
        earlier_ranks = [ranks(each) for each in members.mean(earlier_values)]
    spans = [_span(matrix, window, session) for window in windows]

    def window_change(row: int, basket: Basket, index: int) -> WindowChange:
        measured, up, down = int(priced[index, row]), int(advancers[index, row]), int(decliners[index, row])
        mean = float(means[index, row])
        rank = current_ranks[index][row] if current_ranks else None
        earlier_rank = earlier_ranks[index][row] if earlier_ranks else None
        span = spans[index]
        return WindowChange(
            window=windows[index],
            sessions=span.sessions,
            from_=span.start,
            to=span.end,
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
            rank_change=None if rank is None or earlier_rank is None else earlier_rank - rank,
        )

    return [[window_change(row, basket, index) for index in range(len(windows))] for row, basket in enumerate(baskets)]


def window_changes(matrix: PriceMatrix, session: int, window: Window, columns: IntArray) -> FloatArray:
    """Return the changes of stocks over a window that ends with a session; NaN if a close is missing."""
    start = _start_session(matrix, window, session)
    if start is None:
        return np.full(len(columns), np.nan)
    return changes(matrix.session_closes(session, columns), matrix.session_closes(start, columns))


def _span(matrix: PriceMatrix, window: Window, session: int) -> _Span:
    start = _start_session(matrix, window, session)
    start_date = None if start is None else matrix.date_of(start)
    return _Span(_window_sessions(matrix, window, session), start_date, matrix.date_of(session))


def _start_session(matrix: PriceMatrix, window: Window, session: int) -> int | None:
    """Return the session that a window starts from; None if the prices do not go back that far."""
    start = session - _window_sessions(matrix, window, session)
    if start < 0 or (window is Window.YTD and matrix.date_of(start).year != matrix.date_of(session).year - 1):
        return None
    return start


def _window_sessions(matrix: PriceMatrix, window: Window, session: int) -> int:
    """Return the number of sessions of a window that ends with a session."""
    return _WINDOW_SESSIONS.get(window) or session + 1 - matrix.first_of_year(session)


def _unmeasured(window: Window, basket: Basket) -> WindowChange:
    """Return the change of a basket over a window without prices."""
    return WindowChange(
        window=window,
        sessions=_WINDOW_SESSIONS.get(window, 0),
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
    """Return the changes of holdings over windows that end with the last session on or before a day, or the latest."""
    matrix = await prices_until(operation, as_of)
    operation.charge(len(holdings.symbols) // MEMBERS_PER_CHARGE)
    weights = resolve_weights(holdings, weighting or Weighting.WEIGHT)
    basket = Basket(matrix.columns_of(holdings.symbols), *weights)
    (measured,) = measure_baskets(matrix, matrix.last_session(as_of), [basket], unique_windows(windows))
    return measured


async def measure_stock(
    operation: Operation, symbol: str, windows: Sequence[Window] | None, as_of: date | None
) -> list[PriceChange]:
    """Return the changes of a stock over windows that end with the last session on or before a day, or the latest."""
    matrix = await prices_until(operation, as_of)
    session, column = matrix.last_session(as_of), matrix.columns_of([symbol])
    requested = unique_windows(windows)
    operation.charge(len(requested))
    measured = []
    for window in requested:
        sessions, start, end = _WINDOW_SESSIONS.get(window, 0), None, None
        change = math.nan
        if session is not None:
            sessions, start, end = _span(matrix, window, session)
            change = float(window_changes(matrix, session, window, column)[0])
        measured.append(
            PriceChange(
                window=window, sessions=sessions, from_=start, to=end, change=None if math.isnan(change) else change
            )
        )
    return measured
