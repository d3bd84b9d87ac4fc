"""Sector rotation: the groups of a universe, ranked by change, with relative rotation and contributors."""

from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from itertools import repeat
from typing import NamedTuple

import numpy as np
import strawberry

from graph.api.group_names import group_names
from graph.api.nodes import Group, Stock
from graph.api.universes import Universe, find_universe, universe_holdings
from graph.errors import InvalidArgument
from graph.execution.columns import LazyObjects, ObjectSet
from graph.execution.operation import Info, Operation
from graph.execution.plans import batch_field
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
TREND = (Window.WEEK, Window.MONTH)
"""Windows whose changes have opposite signs if the week goes against the month."""
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
    async def tail(self, info: Info, sessions: int | None = DEFAULT_TAIL) -> Sequence[RelativePoint]:
        """Ratio and momentum in the last sessions, ascending; those without 83 priced sessions up to them are left out.

        Args:
            sessions: The number of sessions, this one included, from 1 to 252.

        """
        sessions = DEFAULT_TAIL if sessions is None else sessions
        if not 1 <= sessions <= MAX_TAIL:
            raise InvalidArgument(f"sessions: {sessions} is not between 1 and {MAX_TAIL}.")
        info.context.charge(sessions)
        days, ratio, momentum = (await self.rotations.points(info.context, sessions)).of(self.row, sessions)
        return LazyObjects(RelativePoint, {"date": days, "ratio": ratio, "momentum": momentum})


class _GroupSlice(NamedTuple):
    """Members of a universe in one group."""

    group: int
    """Id of the group."""
    members: IntArray
    """Indices of the members among those of the universe, which are sorted by symbol."""
    basket: Basket
    weights_of: int | None
    """Id of the group that the weights are of; None if members count the same."""


class _RotationContext(NamedTuple):
    """Data shared by the rows of one rotation."""

    matrix: PriceMatrix
    session: int
    symbols: Sequence[str]
    """The members of the universe."""
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
    windows: Sequence[WindowChange]
    """The changes over the requested windows, in their order; rank and rankChange are among the rows."""
    week_against_month: bool
    """True if the changes of the week and the month have opposite signs."""
    slice: strawberry.Private[_GroupSlice]
    index: strawberry.Private[int]
    context: strawberry.Private[_RotationContext]

    @strawberry.field
    async def relative(self, info: Info) -> RelativeRotation | None:
        """Relative rotation against the benchmark; null if either lacks prices in the last 83 sessions."""
        rotations = self.context.relative_rotations
        _, ratios, momenta = (await rotations.points(info.context, 1)).of(self.index, 1)
        if not ratios:
            return None
        (ratio,), (momentum,) = ratios, momenta
        quadrant = _QUADRANTS[ratio >= HIGH, momentum >= HIGH]
        return RelativeRotation(ratio=ratio, momentum=momentum, quadrant=quadrant, rotations=rotations, row=self.index)

    @batch_field
    @staticmethod
    async def contributors(
        rows: ObjectSet, operation: Operation, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[list[Contribution]]:
        """The stocks that raised the change of the row most, largest contribution first.

        Args:
            top: The maximum number of stocks, from 0 to 100.
            window: The window of the change.

        """
        return await RotationRow._contributions(rows, operation, 1, top, window)

    @batch_field
    @staticmethod
    async def detractors(
        rows: ObjectSet, operation: Operation, top: int | None = DEFAULT_TOP, window: Window | None = Window.DAY
    ) -> list[list[Contribution]]:
        """The stocks that lowered the change of the row most, largest contribution first.

        Args:
            top: The maximum number of stocks, from 0 to 100.
            window: The window of the change.

        """
        return await RotationRow._contributions(rows, operation, -1, top, window)

    @staticmethod
    async def _contributions(
        rows: ObjectSet, operation: Operation, sign: int, top: int | None, window: Window | None
    ) -> list[list[Contribution]]:
        top = DEFAULT_TOP if top is None else top
        if not 0 <= top <= MAX_TOP:
            raise InvalidArgument(f"top: {top} is not between 0 and {MAX_TOP}.")
        context, slices = rows.first("context"), rows.values("slice")
        sizes = [len(each.members) for each in slices]
        operation.charge(sum(size // MEMBERS_PER_CHARGE + 1 for size in sizes))
        found = await operation.compute(
            sum(sizes),
            _largest_contributions,
            context.matrix,
            context.session,
            context.symbols,
            slices,
            sign,
            top,
            window or Window.DAY,
        )
        keys = [(symbol, context.environment) for each in found for symbol, *_ in each]
        answers = iter(await operation.load_rows_many("stocks", keys, as_of=context.members_as_of))
        return [
            [
                Contribution(
                    stock=Stock.of(row, context.environment, context.members_as_of),
                    weight=weight,
                    change=change,
                    contribution=contribution,
                )
                for _, weight, change, contribution in each
                for row in next(answers)
            ]
            for each in found
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
        windows: Sequence[Window] | None = DEFAULT_WINDOWS,
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
        groups = [
            each.id
            for each in await group_names(operation, environment, members_as_of)
            if each.type == (by or GroupType.SECTOR)
        ]
        held = await holdings_of(operation, groups, members_as_of)
        members, requested = len(holdings.symbols), unique_windows(windows)
        measured, sizes = _with_trend(requested), [len(each.symbols) for each in held]
        # the most that can be, since the members in each group are not known yet
        operation.charge(members + sum(min(size, members) for size in sizes) // MEMBERS_PER_CHARGE)
        matrix = await prices_until(operation, as_of)
        session = matrix.last_session(as_of)
        measures = await operation.compute(
            sum(sizes) * len(measured),
            _measure,
            matrix,
            session,
            holdings,
            benchmark_holdings,
            weighting or Weighting.WEIGHT,
            found.single_group,
            groups,
            held,
            measured,
        )
        rows: list[RotationRow] = []
        if session is not None:
            baskets = [*(each.basket for each in measures.slices), measures.benchmark]
            relative_rotations = RelativeRotations(matrix, session, baskets)
            context = _RotationContext(
                matrix, session, holdings.symbols, relative_rotations, environment, members_as_of
            )
            rows = await _rows(operation, context, measures, requested)
        return SectorRotation(
            as_of=None if session is None else matrix.date_of(session),
            note=no_prices_reason(matrix, session, as_of),
            universe=found,
            members=members,
            priced=measures.priced,
            coverage=share(measures.priced, members),
            ungrouped=measures.ungrouped,
            rows=rows,
        )


class _Measures(NamedTuple):
    """Everything computed of the members of a universe, sorted into groups."""

    slices: list[_GroupSlice]
    """The groups with members."""
    priced_of: list[int]
    """The number of members of each slice with a close in the session."""
    changes: list[LazyObjects]
    """The `WindowChange` of each slice over the requested windows, then over the week and the month."""
    benchmark: Basket
    priced: int
    ungrouped: int


def _measure(
    matrix: PriceMatrix,
    session: int | None,
    universe: Holdings,
    benchmark: Holdings,
    weighting: Weighting,
    universe_group: int | None,
    groups: Sequence[int],
    held: Sequence[Holdings],
    windows: Sequence[Window],
) -> _Measures:
    columns = matrix.columns_of(universe.symbols)
    slices = _slice_by_group(universe, columns, weighting, universe_group, groups, held)
    benchmark_columns = columns if benchmark is universe else matrix.columns_of(benchmark.symbols)
    priced, grouped = np.zeros((2, len(columns)), bool)
    if session is not None:
        priced = ~np.isnan(matrix.session_closes(session, columns))
    for each in slices:
        grouped[each.members] = True
    return _Measures(
        slices,
        [int(np.count_nonzero(priced[each.members])) for each in slices],
        measure_baskets(matrix, session, [each.basket for each in slices], windows, ranked=True),
        Basket(benchmark_columns, *resolve_weights(benchmark, weighting)),
        int(np.count_nonzero(priced)),
        int(np.count_nonzero(~grouped)),
    )


def _slice_by_group(
    universe: Holdings,
    columns: IntArray,
    weighting: Weighting,
    universe_group: int | None,
    groups: Sequence[int],
    held: Sequence[Holdings],
) -> list[_GroupSlice]:
    """Sort the members of a universe into groups with the given holdings, and leave out groups without any."""
    universe_weights, universe_weighting = resolve_weights(universe, weighting)
    indices = {symbol: index for index, symbol in enumerate(universe.symbols)}
    slices = []
    for group, holdings in zip(groups, held, strict=True):
        found = np.fromiter(map(indices.get, holdings.symbols, repeat(-1)), np.intp, len(holdings.symbols))
        members = found[found >= 0]
        if not len(members):
            continue
        weights_of: int | None
        if universe_weighting is Weighting.WEIGHT:
            basket = Basket(columns[members], universe_weights[members], universe_weighting)
            weights_of = universe_group
        else:
            weights, used_weighting = resolve_weights(holdings, weighting)
            basket = Basket(columns[members], weights[found >= 0], used_weighting)
            weights_of = group if used_weighting is Weighting.WEIGHT else None
        slices.append(_GroupSlice(group, members, basket, weights_of))
    return slices


def _largest_contributions(
    matrix: PriceMatrix,
    session: int,
    symbols: Sequence[str],
    slices: Sequence[_GroupSlice],
    sign: int,
    top: int,
    window: Window,
) -> list[list[tuple[str, float, float, float]]]:
    """Return symbol, weight, change and contribution of the stocks of each slice that contribute most one way."""
    found = []
    for _, members, basket, _ in slices:
        change = window_changes(matrix, session, window, basket.columns)
        shares, contributed = contributions(change, basket.weights)
        # the members are sorted by symbol, and so are equal contributions
        places = largest(sign * contributed, top)
        values = (each[places].tolist() for each in (shares, change, contributed))
        found.append(list(zip((symbols[member] for member in members[places]), *values, strict=True)))
    return found


async def _rows(
    operation: Operation, context: _RotationContext, measures: _Measures, windows: Sequence[Window]
) -> list[RotationRow]:
    """Build the rows of a rotation, ordered by rank in the first window and by name."""
    groups = await _load_groups(operation, context, measures.slices)
    week, month = map(_with_trend(windows).index, TREND)
    rows, ordered = [], []
    for index, (each, changes, priced) in enumerate(
        zip(measures.slices, measures.changes, measures.priced_of, strict=True)
    ):
        change, members = changes.values("change"), len(each.members)
        rows.append(
            RotationRow(
                group=groups[each.group],
                members=members,
                priced=priced,
                coverage=share(priced, members),
                weighting=each.basket.weighting,
                weights_of=None if each.weights_of is None else groups[each.weights_of],
                windows=changes[: len(windows)],
                week_against_month=(change[week] or 0) * (change[month] or 0) < 0,
                slice=each,
                index=index,
                context=context,
            )
        )
        ordered.append((windows and changes.first("rank")) or len(measures.slices) + 1)
    return [row for _, row in sorted(zip(ordered, rows, strict=True), key=lambda pair: (pair[0], pair[1].group.name))]


def _with_trend(windows: Sequence[Window]) -> list[Window]:
    """Return windows with the week and the month, which tell the trend of a row, after those that are requested."""
    return list(dict.fromkeys([*windows, *TREND]))


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
