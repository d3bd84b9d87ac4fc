"""Performance: changes of stocks and of weighted sets of stocks over windows of sessions."""

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import strawberry

from graph.caching.data_cache import CacheSpec
from graph.execution.columns import LazyObjects
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

DEFAULT_WINDOWS = (Window.DAY, Window.WEEK, Window.MONTH, Window.QUARTER)


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
) -> list[LazyObjects]:
    """Return the `WindowChange` of each basket over windows that end with a session, in the order of the windows."""
    count = len(baskets)
    means, (priced, advancers, decliners) = (
        np.full((len(windows), count), np.nan),
        np.zeros((3, len(windows), count), int),
    )
    current_ranks: list[list[int | None]] = [[None] * count for _ in windows]
    earlier_ranks = current_ranks
    if session is not None and baskets and windows:
        columns, members = Baskets.of([(basket.columns, basket.weights) for basket in baskets]).compact()
        values = _all_window_changes(matrix, session, windows, columns)
        means, priced = members.mean(values), members.count(~np.isnan(values))
        advancers, decliners = members.count(values > 0), members.count(values < 0)
        if ranked:
            current_ranks = list(map(ranks, means))
            if session >= RANK_SESSIONS:
                earlier = _all_window_changes(matrix, session - RANK_SESSIONS, windows, columns)
                earlier_ranks = list(map(ranks, members.mean(earlier)))
    sizes = np.array([len(basket.columns) for basket in baskets])
    rank_pairs = zip(_by_row(current_ranks), _by_row(earlier_ranks), strict=True)
    columns_of_changes = {
        **_spans(matrix, session, windows, count),
        "change": _none_for_nan(means.T),
        "weighting": [basket.weighting for basket in baskets for _ in windows],
        "members": np.repeat(sizes, len(windows)).tolist(),
        "priced": priced.T.ravel().tolist(),
        "coverage": _shares(priced, sizes),
        "advancers": advancers.T.ravel().tolist(),
        "decliners": decliners.T.ravel().tolist(),
        "unchanged": (priced - advancers - decliners).T.ravel().tolist(),
        "up_share": _shares(advancers, priced),
        "rank": _by_row(current_ranks),
        "rank_change": [None if None in pair else pair[1] - pair[0] for pair in rank_pairs],
    }
    return LazyObjects(WindowChange, columns_of_changes).split(len(windows), count)


def _by_row(rows: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the values of windows x baskets, basket by basket."""
    return [value for values in zip(*rows, strict=True) for value in values]


def _shares(parts: IntArray, wholes: IntArray) -> list[float]:
    """Return part / whole, or 0 if the whole is 0, of windows x baskets, basket by basket."""
    shares: list[float] = np.divide(parts, wholes, out=np.zeros(parts.shape), where=wholes != 0).T.ravel().tolist()
    return shares


def _none_for_nan(values: FloatArray) -> list[float | None]:
    """Return the values of an array, row by row, with None for NaN."""
    known = values.astype(object)
    known[np.isnan(values)] = None
    listed: list[float | None] = known.ravel().tolist()
    return listed


def _all_window_changes(matrix: PriceMatrix, session: int, windows: Sequence[Window], columns: IntArray) -> FloatArray:
    """Return the changes of stocks over windows that end with a session: windows x columns."""
    return np.array([window_changes(matrix, session, window, columns) for window in windows])


def window_changes(matrix: PriceMatrix, session: int, window: Window, columns: IntArray) -> FloatArray:
    """Return the changes of stocks over a window that ends with a session; NaN if a close is missing."""
    start = _start_session(matrix, window, session)
    if start is None:
        return np.full(len(columns), np.nan)
    return changes(matrix.session_closes(session, columns), matrix.session_closes(start, columns))


def _spans(matrix: PriceMatrix, session: int | None, windows: Sequence[Window], count: int) -> dict[str, list[Any]]:
    """Return the windows that end with a session as attributes of their changes, for each of so many stocks or sets."""
    spans: list[tuple[int, date | None, date | None]] = [
        (_WINDOW_SESSIONS.get(each, 0), None, None) for each in windows
    ]
    if session is not None:
        starts = [_start_session(matrix, each, session) for each in windows]
        spans = [
            (
                _window_sessions(matrix, each, session),
                None if start is None else matrix.date_of(start),
                matrix.date_of(session),
            )
            for each, start in zip(windows, starts, strict=True)
        ]
    sessions, starts_on, ends_on = ([span[place] for span in spans] * count for place in range(3))
    return {"window": [*windows] * count, "sessions": sessions, "from_": starts_on, "to": ends_on}


def _start_session(matrix: PriceMatrix, window: Window, session: int) -> int | None:
    """Return the session that a window starts from; None if the prices do not go back that far."""
    start = session - _window_sessions(matrix, window, session)
    if start < 0 or (window is Window.YTD and matrix.date_of(start).year != matrix.date_of(session).year - 1):
        return None
    return start


def _window_sessions(matrix: PriceMatrix, window: Window, session: int) -> int:
    """Return the number of sessions of a window that ends with a session."""
    return _WINDOW_SESSIONS.get(window) or session + 1 - matrix.first_of_year(session)


async def measure_groups(
    operation: Operation,
    groups: Sequence[int],
    day: date | None,
    windows: Sequence[Window] | None,
    weighting: Weighting | None,
    as_of: date | None,
) -> Sequence[Sequence[WindowChange]]:
    """Return the changes of each group, with its members at the end of a UTC day, over windows as below."""
    holdings = await holdings_of(operation, groups, day)
    return await measure_holdings(operation, holdings, windows, weighting, as_of or day)


async def measure_holdings(
    operation: Operation,
    holdings: Sequence[Holdings],
    windows: Sequence[Window] | None,
    weighting: Weighting | None,
    as_of: date | None,
) -> Sequence[Sequence[WindowChange]]:
    """Return the changes of some holdings over windows that end with the last session up to a day, or of all."""
    requested, sizes = unique_windows(windows), [len(each.symbols) for each in holdings]
    operation.charge_each([size // MEMBERS_PER_CHARGE + len(requested) for size in sizes])
    matrix = await prices_until(operation, as_of)
    return await operation.compute(
        sum(sizes) * len(requested),
        _changes_of_holdings,
        matrix,
        matrix.last_session(as_of),
        holdings,
        requested,
        weighting or Weighting.WEIGHT,
    )


def _changes_of_holdings(
    matrix: PriceMatrix,
    session: int | None,
    holdings: Sequence[Holdings],
    windows: Sequence[Window],
    weighting: Weighting,
) -> list[LazyObjects]:
    baskets = [Basket(matrix.columns_of(each.symbols), *resolve_weights(each, weighting)) for each in holdings]
    return measure_baskets(matrix, session, baskets, windows)


async def measure_stocks(
    operation: Operation, symbols: Sequence[str], windows: Sequence[Window] | None, as_of: date | None
) -> Sequence[Sequence[PriceChange]]:
    """Return the changes of each stock over windows that end with the last session up to a day, or of all."""
    requested = unique_windows(windows)
    operation.charge_each([len(requested)] * len(symbols))
    matrix = await prices_until(operation, as_of)
    return await operation.compute(
        len(symbols) * len(requested), _changes_of_stocks, matrix, matrix.last_session(as_of), symbols, requested
    )


def _changes_of_stocks(
    matrix: PriceMatrix, session: int | None, symbols: Sequence[str], windows: Sequence[Window]
) -> list[LazyObjects]:
    change = np.full((len(windows), len(symbols)), np.nan)
    if session is not None and windows:
        change = _all_window_changes(matrix, session, windows, matrix.columns_of(symbols))
    columns = {**_spans(matrix, session, windows, len(symbols)), "change": _none_for_nan(change.T)}
    return LazyObjects(PriceChange, columns).split(len(windows), len(symbols))
