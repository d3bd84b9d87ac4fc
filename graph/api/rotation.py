"""Sector rotation: the groups of a universe, ranked by change, with relative rotation and contributors."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import strawberry

from graph.api.group_names import group_names
from graph.api.nodes import Group, Stock
from graph.api.universes import Universe, find_universe, universe_holdings
from graph.errors import InvalidArgument
from graph.execution.operation import Info, Operation
from graph.model import Environment, GroupType, Holdings
from graph.prices.closes import no_prices_reason, prices_until
from graph.prices.matrix import PriceMatrix
from graph.prices.performance import (
    DEFAULT_WINDOWS,
    MEMBERS_PER_CHARGE,
    Basket,
    Weighting,
    Window,
    WindowChange,
    holdings_of,
    measure_baskets,
    resolve_weights,
    share,
    unique_windows,
    window_changes,
)
from graph.prices.relative_rotation import DEFAULT_TAIL, MAX_TAIL, RelativeRotations
from graph.prices.returns import IntArray, contributions, largest

MAX_TOP = 100
"""Maximum number of contributors or detractors of a row."""
DEFAULT_TOP = 5
HIGH = 100.0
"""Least ratio or momentum that is high."""


@strawberry.enum
class Quadrant(StrEnum):
    """The quadrant of a relative rotation, by its ratio and momentum; 100 and above is high."""

    LEADING = "LEADING"
    """Ratio and momentum are high."""
    WEAKENING = "WEAKENING"
    """The ratio is high, the momentum is not."""
    LAGGING = "LAGGING"
    """Neither ratio nor momentum is high."""
    IMPROVING = "IMPROVING"
    """The momentum is high, the ratio is not."""


_QUADRANTS = {
    (True, True): Quadrant.LEADING,
    (True, False): Quadrant.WEAKENING,
    (False, False): Quadrant.LAGGING,
    (False, True): Quadrant.IMPROVING,
}


@strawberry.type
class RelativePoint:
    """The ratio and momentum of a row in one session."""

    date: date
    """The session."""
    ratio: float
    """100 RS / SMA63(RS); 100 and above is high."""
    momentum: float
    """100 ratio / SMA21(ratio); 100 and above is high."""


@strawberry.type
class RelativeRotation:
    """The relative strength RS of a row against the benchmark, and its trend: an open form of relative rotation.

    RS is the row's index, rebalanced daily, over the benchmark's. Julius de Kempenaer introduced relative rotation; his
    own formulas are not published.
    """

    ratio: float
    """100 RS / SMA63(RS): the strength relative to its average of 63 sessions; 100 and above is high."""
    momentum: float
    """100 ratio / SMA21(ratio): the ratio relative to its average of 21 sessions; 100 and above is high."""
    quadrant: Quadrant
    """The quadrant of ratio and momentum."""
    rotations: strawberry.Private[RelativeRotations]
    row: strawberry.Private[int]

    @strawberry.field
    async def tail(self, info: Info, sessions: int | None = DEFAULT_TAIL) -> list[RelativePoint]:
        """Ratio and momentum in the last sessions, ascending; those without 83 priced sessions up to them are left out.

        Args:
            sessions: The number of sessions, this one included, from 1 to 252.

        """
        sessions = DEFAULT_TAIL if sessions is None else sessions
        if not 1 <= sessions <= MAX_TAIL:
            raise InvalidArgument(f"sessions: {sessions} is not between 1 and {MAX_TAIL}.")
        return [
            RelativePoint(date=day, ratio=ratio, momentum=momentum)
            for day, ratio, momentum in await self.rotations.points(info.context, self.row, sessions)
        ]


@dataclass(frozen=True, slots=True)
class _RotationContext:
    """Data shared by the rows of one rotation."""

    matrix: PriceMatrix
    session: int
    relative_rotations: RelativeRotations
    environment: str
    members_as_of: date | None


@strawberry.type
class Contribution:
    """The contribution of a stock to the change of its row."""

    stock: Stock
    """The stock."""
    weight: float
    """The stock's share of the weight of all members with both closes, a fraction."""
    change: float
    """The change of the stock, a fraction."""
    contribution: float
    """weight x change, a fraction; the contributions of all members sum to the change of the row."""


@strawberry.type
class RotationRow:
    """The members of the universe that lie in one group, and their changes."""

    group: Group
    """The group."""
    members: int
    """The number of the universe's members in the group."""
    priced: int
    """The number of members with a close in the session."""
    coverage: float
    """priced / members, a fraction; 0 if there are no members."""
    weighting: Weighting
    """The weights of the members: WEIGHT, or EQUAL if that was requested or no weights are known."""
    weights_of: Group | None
    """The group of the weights: the universe if it is one group with weights, else the row's; null for EQUAL."""
    windows: list[WindowChange]
    """The changes over the requested windows, in their order; rank and rankChange are among the rows."""
    week_against_month: bool
    """True if the changes of the week and the month have opposite signs."""
    basket: strawberry.Private[Basket]
    symbols: strawberry.Private[list[str]]
    index: strawberry.Private[int]
    context: strawberry.Private[_RotationContext]

    @strawberry.field
    async def relative(self, info: Info) -> RelativeRotation | None:
        """Relative rotation against the benchmark; null if either lacks prices in the last 83 sessions."""
        rotations = self.context.relative_rotations
        points = await rotations.points(info.context, self.index, 1)
        if not points:
            return None
        ((_, ratio, momentum),) = points
        quadrant = _QUADRANTS[ratio >= HIGH, momentum >= HIGH]
        return RelativeRotation(ratio=ratio, momentum=momentum, quadrant=quadrant, rotations=rotations, row=self.index)

    @strawberry.field
    async def contributors(
        self, info: Info, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[Contribution]:
        """The stocks that raised the change of the row most, largest contribution first.

        Args:
            top: The maximum number of stocks, from 0 to 100.
            window: The window of the change.

        """
        return await self._contributions(info, 1, top, window)

    @strawberry.field
    async def detractors(
        self, info: Info, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[Contribution]:
        """The stocks that lowered the change of the row most, largest contribution first.

        Args:
            top: The maximum number of stocks, from 0 to 100.
            window: The window of the change.

        """
        return await self._contributions(info, -1, top, window)

    async def _contributions(self, info: Info, sign: int, top: int | None, window: Window | None) -> list[Contribution]:
        top = DEFAULT_TOP if top is None else top
        if not 0 <= top <= MAX_TOP:
            raise InvalidArgument(f"top: {top} is not between 0 and {MAX_TOP}.")
        context = self.context
        change = window_changes(context.matrix, context.session, window or Window.DAY, self.basket.columns)
        shares, contributed = contributions(change, self.basket.weights)
        # the members are sorted by symbol, and so are equal contributions
        indices = largest(sign * contributed, top)
        keys = [(self.symbols[index], context.environment) for index in indices]
        answers = await info.context.load_rows_many("stocks", keys, as_of=context.members_as_of)
        return [
            Contribution(
                stock=Stock.of(row, context.environment, context.members_as_of),
                weight=float(shares[index]),
                change=float(change[index]),
                contribution=float(contributed[index]),
            )
            for index, rows in zip(indices, answers, strict=True)
            for row in rows
        ]


@strawberry.type
class SectorRotation:
    """The groups of a universe, ranked by the change of the universe's members in them."""

    as_of: date | None
    """The session that all windows end with; null if there is none."""
    note: str | None
    """The reason if prices are missing or the last session is long ago, and what to do about it; otherwise null."""
    universe: Universe
    """The universe whose members are sorted into groups."""
    members: int
    """The number of members of the universe."""
    priced: int
    """The number of members with a close in the session."""
    coverage: float
    """priced / members, a fraction; 0 if there are no members."""
    ungrouped: int
    """The number of members in no group of the type."""
    rows: list[RotationRow]
    """The groups with members, ordered by rank in the first window, then by name; empty if there are no prices."""


@strawberry.type
class RotationQuery:
    """Root fields of rotation."""

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
    ) -> SectorRotation | None:
        """Rotation of a universe: the groups of its members ranked by change, with trends and top contributors.

        Args:
            universe: The universe key, such as `SPY` or `SPY:QQQ`.
            by: The type of the groups that members are sorted into.
            windows: The windows; rows are sorted by the first. A repeated window counts once.
            as_of: The windows end with the last session on or before this date; defaults to the latest session.
            members_as_of: The UTC date whose end-of-day members and weights are used; defaults to the current ones.
            weighting: The weights of members. WEIGHT uses the weights in the universe if it is one group with weights,
                else those in the row's group; if there are none, members count the same.
            benchmark: The universe key that `relative` compares rows with; defaults to the universe itself.
            environment: The environment of the groups; defaults to the server's setting.

        """
        operation = info.context
        environment = environment or operation.environment
        found = await find_universe(operation, universe, environment, members_as_of, "membersAsOf")
        holdings = benchmark_holdings = await universe_holdings(operation, found)
        if benchmark is not None:
            other = await find_universe(operation, benchmark, environment, members_as_of, "membersAsOf")
            benchmark_holdings = await universe_holdings(operation, other)
        matrix = await prices_until(operation, as_of)
        session = matrix.last_session(as_of)
        groups = [
            each.id
            for each in await group_names(operation, environment, members_as_of)
            if each.type == (by or GroupType.SECTOR)
        ]
        # let other requests run first: what follows blocks the event loop, and a query may contain it many times
        await asyncio.sleep(0)
        columns = matrix.columns_of(holdings.symbols)
        slices = _slice_by_group(
            holdings,
            columns,
            weighting or Weighting.WEIGHT,
            found.single_group,
            groups,
            await holdings_of(operation, groups, members_as_of),
        )
        operation.charge(len(found.symbols) + sum(len(each.symbols) for each in slices) // MEMBERS_PER_CHARGE)
        rows: list[RotationRow] = []
        if session is not None:
            same = benchmark_holdings is holdings
            benchmark_columns = columns if same else matrix.columns_of(benchmark_holdings.symbols)
            weights = resolve_weights(benchmark_holdings, weighting or Weighting.WEIGHT)
            baskets = [*(each.basket for each in slices), Basket(benchmark_columns, *weights)]
            relative_rotations = RelativeRotations(matrix, session, baskets)
            context = _RotationContext(matrix, session, relative_rotations, environment, members_as_of)
            rows = await _rows(operation, context, slices, unique_windows(windows))
        priced = 0 if session is None else matrix.count_priced(session, columns)
        return SectorRotation(
            as_of=None if session is None else matrix.date_of(session),
            note=no_prices_reason(matrix, session, as_of),
            universe=found,
            members=len(holdings.symbols),
            priced=priced,
            coverage=share(priced, len(holdings.symbols)),
            ungrouped=len(holdings.symbols) - len({symbol for each in slices for symbol in each.symbols}),
            rows=rows,
        )


class _GroupSlice(NamedTuple):
    """Members of a universe in one group."""

    group: int
    """Id of the group."""
    symbols: list[str]
    basket: Basket
    weights_of: int | None
    """Id of the group that the weights are of; None if members count the same."""


def _slice_by_group(
    universe_members: Holdings,
    columns: IntArray,
    weighting: Weighting,
    universe_group: int | None,
    groups: Sequence[int],
    holdings: Sequence[Holdings],
) -> list[_GroupSlice]:
    """Sort the members of a universe into groups with the given holdings, and leave out groups without any."""
    universe_weights, universe_weighting = resolve_weights(universe_members, weighting)
    indices = {symbol: index for index, symbol in enumerate(universe_members.symbols)}
    slices = []
    for group, group_holdings in zip(groups, holdings, strict=True):
        symbols = [symbol for symbol in group_holdings.symbols if symbol in indices]
        if not symbols:
            continue
        members = np.array([indices[symbol] for symbol in symbols], np.intp)
        weights_of: int | None
        if universe_weighting is Weighting.WEIGHT:
            basket = Basket(columns[members], universe_weights[members], universe_weighting)
            weights_of = universe_group
        else:
            weights, used_weighting = resolve_weights(group_holdings, weighting)
            in_universe = np.array([symbol in indices for symbol in group_holdings.symbols])
            basket = Basket(columns[members], weights[in_universe], used_weighting)
            weights_of = group if used_weighting is Weighting.WEIGHT else None
        slices.append(_GroupSlice(group, symbols, basket, weights_of))
    return slices


async def _rows(
    operation: Operation, context: _RotationContext, slices: Sequence[_GroupSlice], windows: Sequence[Window]
) -> list[RotationRow]:
    """Build the rows of a rotation, ordered by rank in the first window and by name."""
    groups = await _load_groups(operation, context, slices)
    measured = list(dict.fromkeys([*windows, Window.WEEK, Window.MONTH]))
    baskets = [each.basket for each in slices]
    all_changes = measure_baskets(context.matrix, context.session, baskets, measured, ranked=True)
    rows = []
    for index, (each, measures) in enumerate(zip(slices, all_changes, strict=True)):
        by_window = {measure.window: measure for measure in measures}
        week, month = by_window[Window.WEEK].change, by_window[Window.MONTH].change
        members = len(each.symbols)
        priced = context.matrix.count_priced(context.session, each.basket.columns)
        rows.append(
            RotationRow(
                group=groups[each.group],
                members=members,
                priced=priced,
                coverage=share(priced, members),
                weighting=each.basket.weighting,
                weights_of=None if each.weights_of is None else groups[each.weights_of],
                windows=measures[: len(windows)],
                week_against_month=week is not None and month is not None and week * month < 0,
                basket=each.basket,
                symbols=each.symbols,
                index=index,
                context=context,
            )
        )
    return sorted(rows, key=lambda row: (row.windows[0].rank or len(rows) + 1 if windows else 0, row.group.name))


async def _load_groups(
    operation: Operation, context: _RotationContext, slices: Sequence[_GroupSlice]
) -> dict[int, Group]:
    """Load the groups of slices and of their weights, by id."""
    ids = list({each.group for each in slices} | {each.weights_of for each in slices if each.weights_of})
    keys = [(group, context.environment) for group in ids]
    answers = await operation.load_rows_many("groups_by_id", keys, as_of=context.members_as_of)
    return {
        group: Group.of(row, context.members_as_of) for group, rows in zip(ids, answers, strict=True) for row in rows
    }
