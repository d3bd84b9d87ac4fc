"""Breadth: how many members of a universe rose and fell, how far, and against what."""

import asyncio
from collections.abc import Iterator
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
from graph.prices.performance import MEMBERS_A_CHARGE, Window, change_over, share
from graph.prices.returns import FloatArray, IntArray, bins, changes, directions, ema, sma

MAX_SESSIONS = 480
"""How far back bars may go: what two years hold on any exchange."""
DEFAULT_THRESHOLD = 0.05


@strawberry.enum
class BarKind(StrEnum):
    """Into which bins changes are sorted: DIVERGING, four of them with a threshold; SIMPLE, down and up."""

    DIVERGING = "DIVERGING"
    SIMPLE = "SIMPLE"


@strawberry.enum
class Bin(StrEnum):
    """A change x by a threshold t: x < -t, -t <= x < 0, 0 <= x < t, x >= t; or x < 0, x >= 0."""

    SIGNIFICANT_DECLINE = "SIGNIFICANT_DECLINE"
    MINOR_DECLINE = "MINOR_DECLINE"
    MINOR_ADVANCE = "MINOR_ADVANCE"
    SIGNIFICANT_ADVANCE = "SIGNIFICANT_ADVANCE"
    DECLINE = "DECLINE"
    ADVANCE = "ADVANCE"


_BINS = {
    BarKind.DIVERGING: (Bin.SIGNIFICANT_DECLINE, Bin.MINOR_DECLINE, Bin.MINOR_ADVANCE, Bin.SIGNIFICANT_ADVANCE),
    BarKind.SIMPLE: (Bin.DECLINE, Bin.DECLINE, Bin.ADVANCE, Bin.ADVANCE),
}


@strawberry.enum
class Metric(StrEnum):
    """What a close is compared with: an earlier close, the open of its day (OPEN), or an average of closes up to it.

    DAY, WEEK, MONTH, QUARTER, HALF_YEAR and YEAR are the close 1, 5, 21, 63, 126 and 252 sessions before. EMA10 and
    EMA20 are exponential: alpha = 2 / (n + 1), seeded by the mean of the first n closes that the stock has on sessions
    since the beginning of the year before last. SMA50 and SMA200 are the mean of the closes of the last n sessions.
    """

    DAY = "DAY"
    OPEN = "OPEN"
    WEEK = "WEEK"
    MONTH = "MONTH"
    QUARTER = "QUARTER"
    HALF_YEAR = "HALF_YEAR"
    YEAR = "YEAR"
    EMA10 = "EMA10"
    EMA20 = "EMA20"
    SMA50 = "SMA50"
    SMA200 = "SMA200"


_AVERAGES = {Metric.EMA10: (ema, 10), Metric.EMA20: (ema, 20), Metric.SMA50: (sma, 50), Metric.SMA200: (sma, 200)}


@strawberry.type
class Segment:
    """The members whose change lies in a bin."""

    bin: Bin
    """The bin."""
    count: int
    """How many there are."""
    share: float
    """count / priced, a fraction; those of all bins sum to 1, or of nothing to 0."""


@strawberry.type
class ThresholdBars:
    """How many members of a universe rose and fell, and how far."""

    as_of: date | None
    """The session that the changes end with; null where there is none."""
    from_: date | None = strawberry.field(name="from")
    """The session they begin from; null where the data do not go back that far."""
    note: str | None
    """Why there is nothing, and what to do."""
    members: int
    """How many members the universe has."""
    priced: int
    """How many of them have both closes."""
    coverage: float
    """priced / members, a fraction."""
    segments: list[Segment]
    """The bins, the lowest first; empty where there are no prices."""


@strawberry.type
class BreadthMetric:
    """How many members stand above what a metric compares with."""

    metric: Metric
    """The metric."""
    measured: int
    """How many members have all closes that it takes."""
    coverage: float
    """measured / members, a fraction."""
    up: int
    """How many stand above."""
    down: int
    """How many stand below."""
    unchanged: int
    """How many stand where it is, to 12 digits."""
    up_share: float | None
    """up / measured, a fraction; 0 of none."""


@strawberry.type
class Breadth:
    """How many members of a universe take part in its moves."""

    as_of: date | None
    """The session that is measured; null where there is none."""
    note: str | None
    """Why there is nothing, and what to do."""
    members: int
    """How many members the universe has."""
    priced: int
    """How many of them have a close of the session."""
    coverage: float
    """priced / members, a fraction."""
    metrics: list[BreadthMetric]
    """All eleven, in the order of their names' list; empty where there are no prices."""


@strawberry.type
class BreadthQuery:
    """The queries of breadth."""

    @strawberry.field
    async def threshold_bars(
        self,
        info: Info,
        universe: str,
        threshold: float | None = DEFAULT_THRESHOLD,
        sessions: int | None = 1,
        kind: BarKind | None = BarKind.DIVERGING,
        as_of: date | None = None,
        members_as_of: date | None = None,
        environment: Environment | None = None,
    ) -> ThresholdBars:
        """How many members of a universe rose and fell, and how far.

        Args:
            universe: A universe key.
            threshold: From which change on, a fraction, one is significant; up to 1.
            sessions: How many sessions the changes go back; up to 480.
            kind: The bins.
            as_of: The changes end with the last session on or before this day; the latest unless given.
            members_as_of: A day, in UTC: the members as that day ended; today's unless given.
            environment: Whose groups are meant; the server's setting unless given.

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
        operation.charge(members // MEMBERS_A_CHARGE)
        frame = await prices_until(operation, as_of)
        session = frame.session(as_of)
        if session is None:
            return ThresholdBars(
                as_of=None,
                from_=None,
                note=no_prices_reason(frame, session, as_of),
                members=members,
                priced=0,
                coverage=0.0,
                segments=[],
            )
        columns = frame.columns_of(found.symbols)
        change = changes(frame.close(session, columns), frame.close(session - sessions, columns))
        change = change[~np.isnan(change)]
        kinds = _BINS[kind or BarKind.DIVERGING]
        counts = dict.fromkeys(kinds, 0)
        for each, count in zip(kinds, np.bincount(bins(change, threshold), minlength=4), strict=True):
            counts[each] += int(count)
        return ThresholdBars(
            as_of=frame.date_of(session),
            from_=frame.date_of(session - sessions) if sessions <= session else None,
            note=no_prices_reason(frame, session, as_of),
            members=members,
            priced=len(change),
            coverage=share(len(change), members),
            segments=[
                Segment(bin=each, count=count, share=share(count, len(change))) for each, count in counts.items()
            ],
        )

    @strawberry.field
    async def breadth(
        self,
        info: Info,
        universe: str,
        as_of: date | None = None,
        members_as_of: date | None = None,
        environment: Environment | None = None,
    ) -> Breadth:
        """How many members of a universe take part in its moves, by eleven metrics.

        Args:
            universe: A universe key.
            as_of: The last session on or before this day is measured; the latest unless given.
            members_as_of: A day, in UTC: the members as that day ended; today's unless given.
            environment: Whose groups are meant; the server's setting unless given.

        """
        operation = info.context
        found = await find_universe(
            operation, universe, environment or operation.environment, members_as_of, "membersAsOf"
        )
        members = len(found.symbols)
        operation.charge(members // MEMBERS_A_CHARGE * len(Metric))
        frame = await prices_until(operation, as_of)
        session = frame.session(as_of)
        if session is None:
            return Breadth(
                as_of=None,
                note=no_prices_reason(frame, session, as_of),
                members=members,
                priced=0,
                coverage=0.0,
                metrics=[],
            )
        # whoever waits goes first: what follows takes a while, and a query may ask for many of it
        await asyncio.sleep(0)
        columns = frame.columns_of(found.symbols)
        columns = columns[columns >= 0]
        priced = frame.priced(session, columns)
        return Breadth(
            as_of=frame.date_of(session),
            note=no_prices_reason(frame, session, as_of),
            members=members,
            priced=priced,
            coverage=share(priced, members),
            metrics=[_breadth(metric, each, members) for metric, each in _measure(frame, session, columns)],
        )


def _measure(frame: PriceMatrix, session: int, columns: IntArray) -> Iterator[tuple[Metric, FloatArray]]:
    """Say for each metric whether each close is above (1), at (0) or below (-1) what it is compared with, or NaN."""
    close = frame.close(session, columns)
    history = frame.history(session, session + 1, columns)
    for metric in Metric:
        if metric is Metric.OPEN:
            yield metric, frame.since_open(session, columns)
        elif metric in _AVERAGES:
            average, count = _AVERAGES[metric]
            yield metric, directions(close, average(history, count))
        else:
            yield metric, np.sign(change_over(frame, session, Window(metric.value), columns))


def _breadth(metric: Metric, direction: FloatArray, members: int) -> BreadthMetric:
    up, down, measured = (int(np.count_nonzero(each)) for each in (direction > 0, direction < 0, ~np.isnan(direction)))
    return BreadthMetric(
        metric=metric,
        measured=measured,
        coverage=share(measured, members),
        up=up,
        down=down,
        unchanged=measured - up - down,
        up_share=share(up, measured),
    )
