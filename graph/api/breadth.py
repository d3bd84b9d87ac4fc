"""Breadth of a universe: counts of its members by the size of their change, and against eleven metrics."""

from collections.abc import Iterator, Sequence
from datetime import date
from enum import StrEnum

import numpy as np
import strawberry

from graph.api.universes import find_universe
from graph.errors import InvalidArgument
from graph.execution.operation import Info
from graph.model import Environment
from graph.prices.closes import no_prices_reason, prices_until
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import MEMBERS_PER_CHARGE, Window, share, window_changes
from graph.prices.returns import FloatArray, IntArray, bin_indices, changes, directions, ema, sma

MAX_SESSIONS = 480
"""Maximum length of the changes of threshold bars; any exchange has as many sessions in two years."""
DEFAULT_THRESHOLD = 0.05


@strawberry.enum(name="BarKind")
class BinScheme(StrEnum):
    """The bins that changes are sorted into."""

    DIVERGING = "DIVERGING"
    """Four bins, split at zero and at the threshold in both directions."""
    SIMPLE = "SIMPLE"
    """Two bins, split at zero."""


@strawberry.enum
class Bin(StrEnum):
    """A range of changes x, given the threshold t."""

    SIGNIFICANT_DECLINE = "SIGNIFICANT_DECLINE"
    """x < -t."""
    MINOR_DECLINE = "MINOR_DECLINE"
    """-t <= x < 0."""
    MINOR_ADVANCE = "MINOR_ADVANCE"
    """0 <= x < t."""
    SIGNIFICANT_ADVANCE = "SIGNIFICANT_ADVANCE"
    """x >= t."""
    DECLINE = "DECLINE"
    """x < 0, without a threshold."""
    ADVANCE = "ADVANCE"
    """x >= 0, without a threshold."""


_BINS = {
    BinScheme.DIVERGING: (Bin.SIGNIFICANT_DECLINE, Bin.MINOR_DECLINE, Bin.MINOR_ADVANCE, Bin.SIGNIFICANT_ADVANCE),
    BinScheme.SIMPLE: (Bin.DECLINE, Bin.DECLINE, Bin.ADVANCE, Bin.ADVANCE),
}


@strawberry.enum
class Metric(StrEnum):
    """The price that a close is compared with: an earlier close, an open, or an average of closes up to it.

    Exponential averages have alpha = 2 / (n + 1), and are seeded by the mean of the first n closes of the stock in
    sessions since the beginning of the year before last.
    """

    DAY = "DAY"
    """The close 1 session before."""
    OPEN = "OPEN"
    """The open of the same session."""
    WEEK = "WEEK"
    """The close 5 sessions before."""
    MONTH = "MONTH"
    """The close 21 sessions before."""
    QUARTER = "QUARTER"
    """The close 63 sessions before."""
    HALF_YEAR = "HALF_YEAR"
    """The close 126 sessions before."""
    YEAR = "YEAR"
    """The close 252 sessions before."""
    EMA10 = "EMA10"
    """The exponential average of closes with n = 10."""
    EMA20 = "EMA20"
    """The exponential average of closes with n = 20."""
    SMA50 = "SMA50"
    """The mean of the closes of the last 50 sessions."""
    SMA200 = "SMA200"
    """The mean of the closes of the last 200 sessions."""


_AVERAGES = {Metric.EMA10: (ema, 10), Metric.EMA20: (ema, 20), Metric.SMA50: (sma, 50), Metric.SMA200: (sma, 200)}


@strawberry.type
class Segment:
    """The members of a universe whose change lies in a bin."""

    bin: Bin
    """The bin."""
    count: int
    """The number of members."""
    share: float
    """count / priced, a fraction; 0 if none is priced. The shares of all bins sum to 1."""


@strawberry.type
class ThresholdBars:
    """The members of a universe, counted by the size of their change."""

    as_of: date | None
    """The session the changes end with; null if there is none."""
    from_: date | None = strawberry.field(name="from")
    """The session the changes start from; null if the prices do not go back that far."""
    note: str | None
    """The reason if prices are missing or the last session is long ago, and what to do about it; otherwise null."""
    members: int
    """The number of members of the universe."""
    priced: int
    """The number of members with both closes."""
    coverage: float
    """priced / members, a fraction; 0 if there are no members."""
    segments: list[Segment]
    """The bins, lowest first; empty if there are no prices."""


@strawberry.type
class BreadthMetric:
    """The members of a universe, counted by their close against one metric."""

    metric: Metric
    """The metric that closes are compared with."""
    measured: int
    """The number of members with all prices that the metric needs."""
    coverage: float
    """measured / members, a fraction; 0 if there are no members."""
    up: int
    """The number of members above the metric."""
    down: int
    """The number of members below the metric."""
    unchanged: int
    """The number of members equal to the metric, to 12 digits."""
    up_share: float | None
    """up / measured, a fraction; 0 if none is measured."""


@strawberry.type
class Breadth:
    """The breadth of a universe: the number of its members that take part in its moves."""

    as_of: date | None
    """The session measured; null if there is none."""
    note: str | None
    """The reason if prices are missing or the last session is long ago, and what to do about it; otherwise null."""
    members: int
    """The number of members of the universe."""
    priced: int
    """The number of members with a close in the session."""
    coverage: float
    """priced / members, a fraction; 0 if there are no members."""
    metrics: list[BreadthMetric]
    """All eleven metrics, in the order of the enum; empty if there are no prices."""


@strawberry.type
class BreadthQuery:
    """Root fields of breadth."""

    @strawberry.field
    async def threshold_bars(
        self,
        info: Info,
        universe: str,
        threshold: float | None = DEFAULT_THRESHOLD,
        sessions: int | None = 1,
        kind: BinScheme | None = BinScheme.DIVERGING,
        as_of: date | None = None,
        members_as_of: date | None = None,
        environment: Environment | None = None,
    ) -> ThresholdBars | None:
        """Threshold bars of a universe: its members counted by the size of their change.

        Args:
            universe: The universe key, such as `SPY` or `SPY:QQQ`.
            threshold: The size from which a change is significant, a fraction (0.05 = 5 %) from 0 to 1.
            sessions: The length of the changes in sessions, from 1 to 480.
            kind: The bins that changes are sorted into.
            as_of: The changes end with the last session on or before this date; defaults to the latest session.
            members_as_of: The UTC date whose end-of-day members are used; defaults to the current members.
            environment: The environment of the groups; defaults to the server's setting.

        """
        threshold = DEFAULT_THRESHOLD if threshold is None else threshold
        sessions = 1 if sessions is None else sessions
        if not 0 <= threshold <= 1:
            raise InvalidArgument(f"threshold: {threshold} is not between 0 and 1; 0.05 is 5 %.")
        if not 1 <= sessions <= MAX_SESSIONS:
            raise InvalidArgument(f"sessions: {sessions} is not between 1 and {MAX_SESSIONS}.")
        operation = info.context
        found = await find_universe(
            operation, universe, environment or operation.environment, members_as_of, "membersAsOf"
        )
        members = len(found.symbols)
        operation.charge(members // MEMBERS_PER_CHARGE)
        matrix = await prices_until(operation, as_of)
        session = matrix.last_session(as_of)
        return await operation.compute(
            members, _bars, matrix, as_of, session, found.symbols, sessions, threshold, kind or BinScheme.DIVERGING
        )

    @strawberry.field
    async def breadth(
        self,
        info: Info,
        universe: str,
        as_of: date | None = None,
        members_as_of: date | None = None,
        environment: Environment | None = None,
    ) -> Breadth | None:
        """Breadth of a universe by eleven metrics.

        Args:
            universe: The universe key, such as `SPY` or `SPY:QQQ`.
            as_of: The last session on or before this date is measured; defaults to the latest session.
            members_as_of: The UTC date whose end-of-day members are used; defaults to the current members.
            environment: The environment of the groups; defaults to the server's setting.

        """
        operation = info.context
        found = await find_universe(
            operation, universe, environment or operation.environment, members_as_of, "membersAsOf"
        )
        members = len(found.symbols)
        operation.charge(members // MEMBERS_PER_CHARGE * len(Metric))
        matrix = await prices_until(operation, as_of)
        session = matrix.last_session(as_of)
        cells = members * (1 if session is None else session + 1)
        return await operation.compute(cells, _breadth, matrix, as_of, session, found.symbols)


def _bars(
    matrix: PriceMatrix,
    as_of: date | None,
    session: int | None,
    symbols: Sequence[str],
    sessions: int,
    threshold: float,
    kind: BinScheme,
) -> ThresholdBars:
    members, change, counts = len(symbols), np.empty(0), dict.fromkeys(_BINS[kind], 0)
    if session is not None:
        columns = matrix.columns_of(symbols)
        change = changes(matrix.session_closes(session, columns), matrix.session_closes(session - sessions, columns))
        change = change[~np.isnan(change)]
        bins = np.bincount(bin_indices(change, threshold), minlength=4).tolist()
        for each, count in zip(_BINS[kind], bins, strict=True):
            counts[each] += count
    return ThresholdBars(
        as_of=None if session is None else matrix.date_of(session),
        from_=None if session is None or session < sessions else matrix.date_of(session - sessions),
        note=no_prices_reason(matrix, session, as_of),
        members=members,
        priced=len(change),
        coverage=share(len(change), members),
        segments=[]
        if session is None
        else [Segment(bin=each, count=count, share=share(count, len(change))) for each, count in counts.items()],
    )


def _breadth(matrix: PriceMatrix, as_of: date | None, session: int | None, symbols: Sequence[str]) -> Breadth:
    members, priced, metrics = len(symbols), 0, []
    if session is not None:
        columns = matrix.columns_of(symbols)
        columns = columns[columns >= 0]
        priced = matrix.count_priced(session, columns)
        metrics = [_count(metric, against, members) for metric, against in _directions(matrix, session, columns)]
    return Breadth(
        as_of=None if session is None else matrix.date_of(session),
        note=no_prices_reason(matrix, session, as_of),
        members=members,
        priced=priced,
        coverage=share(priced, members),
        metrics=metrics,
    )


def _directions(matrix: PriceMatrix, session: int, columns: IntArray) -> Iterator[tuple[Metric, FloatArray]]:
    """Yield each metric with 1, 0 or -1 for closes above, at or below it; NaN if a price is missing."""
    close = matrix.session_closes(session, columns)
    history = matrix.history(session, session + 1, columns)
    for metric in Metric:
        if metric is Metric.OPEN:
            yield metric, matrix.intraday_directions(session, columns)
        elif metric in _AVERAGES:
            average, count = _AVERAGES[metric]
            yield metric, directions(close, average(history, count))
        else:
            yield metric, np.sign(window_changes(matrix, session, Window(metric.value), columns))


def _count(metric: Metric, directions: FloatArray, members: int) -> BreadthMetric:
    up, down, measured = (
        int(np.count_nonzero(each)) for each in (directions > 0, directions < 0, ~np.isnan(directions))
    )
    return BreadthMetric(
        metric=metric,
        measured=measured,
        coverage=share(measured, members),
        up=up,
        down=down,
        unchanged=measured - up - down,
        up_share=share(up, measured),
    )
