"""Sector rotation: which groups of a universe lead, which turn, and the stocks that make them do it."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import strawberry

from graph.api.nodes import Group, Stock
from graph.api.universes import Universe, find_universe, group_names, holdings_in
from graph.errors import InvalidArgument
from graph.execution.operation import Info, Operation
from graph.model import Environment, GroupType, Holdings
from graph.prices.closes import no_prices_reason, prices_until
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import (
    DEFAULT_WINDOWS,
    MEMBERS_A_CHARGE,
    Basket,
    Weighting,
    Window,
    WindowChange,
    change_over,
    distinct,
    holdings_of,
    measure,
    share,
    weigh,
)
from graph.prices.returns import (
    RELATIVE_SESSIONS,
    Baskets,
    IntArray,
    changes,
    contributions,
    largest,
    relative_rotation,
)

MAX_TOP = 100
"""Contributors of a row."""
DEFAULT_TOP = 5
MAX_TAIL = 252
"""Points of a tail."""
DEFAULT_TAIL = 21
MEMBER_SESSIONS_A_CHARGE = 500
"""Members x sessions that are computed with at the price of one object of the answer."""
HIGH = 100.0
"""From here on a ratio or momentum is high."""


@strawberry.enum
class Quadrant(StrEnum):
    """Where ratio and momentum stand: LEADING, both high; WEAKENING, the ratio alone; LAGGING, none; IMPROVING."""

    LEADING = "LEADING"
    WEAKENING = "WEAKENING"
    LAGGING = "LAGGING"
    IMPROVING = "IMPROVING"


_Point: TypeAlias = tuple[date, float, float]
"""A session, the ratio and the momentum."""

_QUADRANTS = {
    (True, True): Quadrant.LEADING,
    (True, False): Quadrant.WEAKENING,
    (False, False): Quadrant.LAGGING,
    (False, True): Quadrant.IMPROVING,
}


@strawberry.type
class RelativePoint:
    """Where a relative rotation stood."""

    date: date
    """The session."""
    ratio: float
    """100 RS / SMA63(RS)."""
    momentum: float
    """100 ratio / SMA21(ratio)."""


@strawberry.type
class RelativeRotation:
    """How strong a row is against the benchmark, and whether that grows: an open form of the relative rotation.

    The relative strength RS is the row's index, rebalanced daily, over the benchmark's. The published idea is Julius de
    Kempenaer's, whose own formulas are not open.
    """

    ratio: float
    """100 RS / SMA63(RS): strength against its average of 63 sessions; 100 and above is high."""
    momentum: float
    """100 ratio / SMA21(ratio): the ratio against its average of 21 sessions; 100 and above is high."""
    quadrant: Quadrant
    """Which of the two are high."""
    relative: strawberry.Private["_Relative"]
    place: strawberry.Private[int]

    @strawberry.field
    async def tail(self, info: Info, sessions: int | None = DEFAULT_TAIL) -> list[RelativePoint]:
        """Where it stood in the last sessions, oldest first; those without the 83 sessions each takes are left out.

        Args:
            sessions: How many sessions, this one included; at most 252.

        """
        sessions = DEFAULT_TAIL if sessions is None else sessions
        if not 1 <= sessions <= MAX_TAIL:
            raise InvalidArgument(f"sessions: {sessions} is not between 1 and {MAX_TAIL}.")
        return [
            RelativePoint(date=day, ratio=ratio, momentum=momentum)
            for day, ratio, momentum in await self.relative.points(info.context, self.place, sessions)
        ]


@dataclass(frozen=True, slots=True)
class _Rotation:
    """What the rows of one rotation share."""

    frame: PriceMatrix
    session: int
    relative: "_Relative"
    environment: str
    members_as_of: date | None


class _Relative:
    """The relative rotations of all rows, computed together when the first is asked for."""

    def __init__(self, frame: PriceMatrix, session: int, baskets: Sequence[Basket]) -> None:
        """The last of the baskets is the benchmark."""
        self._frame = frame
        self._session = session
        self._baskets = [(basket.columns, basket.weights) for basket in baskets]
        self._series: dict[int, asyncio.Future[list[list[_Point]]]] = {}

    async def points(self, operation: Operation, row: int, count: int) -> list[_Point]:
        """Give those of a row's last sessions that are known."""
        most = DEFAULT_TAIL if count <= DEFAULT_TAIL else MAX_TAIL
        if most not in self._series:
            members = sum(len(columns) for columns, _ in self._baskets)
            operation.charge(members * (RELATIVE_SESSIONS + most) // MEMBER_SESSIONS_A_CHARGE)
            # not on the event loop, which others wait for meanwhile
            self._series[most] = asyncio.ensure_future(asyncio.to_thread(self._compute, most))
        series = await asyncio.shield(self._series[most])
        since = self._frame.date_of(max(0, self._session + 1 - count))
        return [point for point in series[row] if point[0] >= since]

    def _compute(self, count: int) -> list[list[_Point]]:
        columns, laid = Baskets.of(self._baskets).compact()
        closes = self._frame.history(self._session, RELATIVE_SESSIONS + count - 1, columns)
        daily = laid.mean(changes(closes[1:], closes[:-1]))
        ratio, momentum = relative_rotation(daily[:, :-1], daily[:, -1])
        days = [self._frame.date_of(self._session - back) for back in range(len(ratio) - 1, -1, -1)]
        return [
            [
                (day, float(x), float(y))
                for day, x, y in zip(days, ratio[:, row], momentum[:, row], strict=True)
                if not math.isnan(x)
            ]
            for row in range(daily.shape[1] - 1)
        ]


@strawberry.type
class Contribution:
    """What a stock contributed to the change of its row."""

    stock: Stock
    """The stock."""
    weight: float
    """Its share of the weight of the members that have both closes, a fraction."""
    change: float
    """Its own change, a fraction."""
    contribution: float
    """weight x change, a fraction; those of all members sum to the change of the row."""


@strawberry.type
class RotationRow:
    """The universe's members that lie in a group, and how far they have come."""

    group: Group
    """The group."""
    members: int
    """How many of the universe's members lie in it."""
    priced: int
    """How many of them have a close of the session."""
    coverage: float
    """priced / members, a fraction."""
    weighting: Weighting
    """What they count for: WEIGHT, or EQUAL where that was asked for or there are no weights."""
    weights_of: Group | None
    """The group whose weights they are: the universe's where it is one group with weights, else the row's."""
    windows: list[WindowChange]
    """The windows in the order asked for; rank and rankChange are among these rows."""
    week_against_month: bool
    """Whether the week went up and the month down, or the other way round."""
    basket: strawberry.Private[Basket]
    symbols: strawberry.Private[list[str]]
    place: strawberry.Private[int]
    rotation: strawberry.Private["_Rotation"]

    @strawberry.field
    async def relative(self, info: Info) -> RelativeRotation | None:
        """How strong it is against the benchmark; null with fewer than 83 sessions, or one without prices."""
        relative = self.rotation.relative
        points = await relative.points(info.context, self.place, 1)
        if not points:
            return None
        ((_, ratio, momentum),) = points
        quadrant = _QUADRANTS[ratio >= HIGH, momentum >= HIGH]
        return RelativeRotation(ratio=ratio, momentum=momentum, quadrant=quadrant, relative=relative, place=self.place)

    @strawberry.field
    async def contributors(
        self, info: Info, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[Contribution]:
        """The stocks that raised its change most, the first first.

        Args:
            top: How many at most; up to 100.
            window: Over which window.

        """
        return await self._contributions(info, 1, top, window)

    @strawberry.field
    async def detractors(
        self, info: Info, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[Contribution]:
        """The stocks that lowered its change most, the first first.

        Args:
            top: How many at most; up to 100.
            window: Over which window.

        """
        return await self._contributions(info, -1, top, window)

    async def _contributions(self, info: Info, sign: int, top: int | None, window: Window | None) -> list[Contribution]:
        top = DEFAULT_TOP if top is None else top
        if not 0 <= top <= MAX_TOP:
            raise InvalidArgument(f"top: {top} is not between 0 and {MAX_TOP}.")
        rotation = self.rotation
        change = change_over(rotation.frame, rotation.session, window or Window.DAY, self.basket.columns)
        shares, parts = contributions(change, self.basket.weights)
        # equal ones by symbol, which is the order they come in
        first = largest(sign * parts, top)
        keys = [(self.symbols[place], rotation.environment) for place in first]
        answers = await info.context.load_rows_many("stocks", keys, as_of=rotation.members_as_of)
        return [
            Contribution(
                stock=Stock.of(row, rotation.environment, rotation.members_as_of),
                weight=float(shares[place]),
                change=float(change[place]),
                contribution=float(parts[place]),
            )
            for place, rows in zip(first, answers, strict=True)
            for row in rows
        ]


@strawberry.type
class SectorRotation:
    """Which groups of a universe lead, and which turn."""

    as_of: date | None
    """The session that all windows end with; null where there is none."""
    note: str | None
    """Why there is nothing, and what to do."""
    universe: Universe
    """Whose members it is of."""
    members: int
    """How many members the universe has."""
    priced: int
    """How many of them have a close of the session."""
    coverage: float
    """priced / members, a fraction."""
    ungrouped: int
    """How many members lie in no group of the type."""
    rows: list[RotationRow]
    """The groups that hold any: the best of the first window first, then by name; none where there are no prices."""


@strawberry.type
class RotationQuery:
    """The queries of rotation."""

    @strawberry.field
    async def sector_rotation(
        self,
        info: Info,
        universe: str,
        by: GroupType | None = GroupType.SECTOR,
        windows: list[Window] | None = DEFAULT_WINDOWS,
        as_of: date | None = None,
        members_as_of: date | None = None,
        weighting: Weighting | None = Weighting.WEIGHT,
        benchmark: str | None = None,
        environment: Environment | None = None,
    ) -> SectorRotation:
        """Which groups of a universe lead over windows of sessions, which turn, and the stocks that make them do it.

        Args:
            universe: A universe key.
            by: The type of the groups that its members are sorted into.
            windows: The windows, each once; rows are sorted by the first.
            as_of: The windows end with the last session on or before this day; the latest unless given.
            members_as_of: A day, in UTC: the members and weights as that day ended; today's unless given.
            weighting: What members count for: WEIGHT takes their weights in the universe where it is one group with
                weights, else in the row's group, else they count the same.
            benchmark: A universe key that rows are compared with in `relative`; the universe itself unless given.
            environment: Whose groups are meant; the server's setting unless given.

        """
        operation = info.context
        named = environment or operation.environment
        found = await find_universe(operation, universe, named, members_as_of, "membersAsOf")
        held = against = await holdings_in(operation, found)
        if benchmark is not None:
            other = await find_universe(operation, benchmark, named, members_as_of, "membersAsOf")
            against = await holdings_in(operation, other)
        frame = await prices_until(operation, as_of)
        session = frame.session(as_of)
        groups = [
            each.id
            for each in await group_names(operation, named, members_as_of)
            if each.type == (by or GroupType.SECTOR)
        ]
        # whoever waits goes first: what follows takes a while, and a query may ask for many of it
        await asyncio.sleep(0)
        columns = frame.columns_of(held.symbols)
        parts = _parts(
            held,
            columns,
            weighting or Weighting.WEIGHT,
            found.only_group,
            groups,
            await holdings_of(operation, groups, members_as_of),
        )
        operation.charge(len(found.symbols) + sum(len(part.symbols) for part in parts) // MEMBERS_A_CHARGE)
        rows: list[RotationRow] = []
        if session is not None:
            compared = columns if against is held else frame.columns_of(against.symbols)
            compared_with = Basket(compared, *weigh(against, weighting or Weighting.WEIGHT))
            relative = _Relative(frame, session, [*(part.basket for part in parts), compared_with])
            rotation = _Rotation(frame, session, relative, named, members_as_of)
            rows = await _rows(operation, rotation, parts, distinct(windows))
        priced = 0 if session is None else frame.priced(session, columns)
        return SectorRotation(
            as_of=None if session is None else frame.date_of(session),
            note=no_prices_reason(frame, session, as_of),
            universe=found,
            members=len(held.symbols),
            priced=priced,
            coverage=share(priced, len(held.symbols)),
            ungrouped=len(held.symbols) - len({symbol for part in parts for symbol in part.symbols}),
            rows=rows,
        )


class _Part(NamedTuple):
    """The members of a universe that lie in a group."""

    group: int
    symbols: list[str]
    basket: Basket
    weights_of: int | None


def _parts(
    held: Holdings,
    columns: IntArray,
    weighting: Weighting,
    universe: int | None,
    groups: Sequence[int],
    holdings: Sequence[Holdings],
) -> list[_Part]:
    """Sort the members of a universe into groups, and leave out those that none lies in."""
    weights, used = weigh(held, weighting)
    places = {symbol: place for place, symbol in enumerate(held.symbols)}
    parts = []
    for group, those in zip(groups, holdings, strict=True):
        symbols = [symbol for symbol in those.symbols if symbol in places]
        if not symbols:
            continue
        inside = np.array([places[symbol] for symbol in symbols], np.intp)
        if used is Weighting.WEIGHT:
            basket, owner = Basket(columns[inside], weights[inside], used), universe
        else:
            own, owned = weigh(those, weighting)
            here = np.array([symbol in places for symbol in those.symbols])
            basket, owner = Basket(columns[inside], own[here], owned), group if owned is Weighting.WEIGHT else None
        parts.append(_Part(group, symbols, basket, owner))
    return parts


async def _rows(
    operation: Operation, rotation: _Rotation, parts: Sequence[_Part], windows: Sequence[Window]
) -> list[RotationRow]:
    ids = list({part.group for part in parts} | {part.weights_of for part in parts if part.weights_of})
    keys = [(group, rotation.environment) for group in ids]
    answers = await operation.load_rows_many("groups_by_id", keys, as_of=rotation.members_as_of)
    groups = {
        group: Group.of(row, rotation.members_as_of) for group, rows in zip(ids, answers, strict=True) for row in rows
    }
    measured = list(dict.fromkeys([*windows, Window.WEEK, Window.MONTH]))
    all_changes = measure(rotation.frame, rotation.session, [part.basket for part in parts], measured, ranked=True)
    rows = []
    for place, (part, measures) in enumerate(zip(parts, all_changes, strict=True)):
        by_window = {each.window: each for each in measures}
        week, month = by_window[Window.WEEK].change, by_window[Window.MONTH].change
        members, priced = len(part.symbols), rotation.frame.priced(rotation.session, part.basket.columns)
        rows.append(
            RotationRow(
                group=groups[part.group],
                members=members,
                priced=priced,
                coverage=share(priced, members),
                weighting=part.basket.weighting,
                weights_of=None if part.weights_of is None else groups[part.weights_of],
                windows=measures[: len(windows)],
                week_against_month=week is not None and month is not None and week * month < 0,
                basket=part.basket,
                symbols=part.symbols,
                place=place,
                rotation=rotation,
            )
        )
    return sorted(rows, key=lambda row: (row.windows[0].rank or len(rows) + 1 if windows else 0, row.group.name))
