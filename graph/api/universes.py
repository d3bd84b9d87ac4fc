"""Universes: sets of stocks given by a key such as `SPY:QQQ:dow30`."""

from bisect import bisect_right
from collections.abc import Sequence
from datetime import date
from operator import attrgetter

import strawberry

from graph.api.group_names import find_groups
from graph.api.nodes import UNIVERSES, Group, Stock, stocks_of
from graph.api.pagination import Connection, page
from graph.api.point_in_time import check_day
from graph.api.universe_keys import GroupRef, Name, canonicalize, evaluate, leaves, parse, render
from graph.execution.dataloaders import Row
from graph.execution.operation import Info, Operation
from graph.model import Environment, Holdings, Symbols
from graph.prices.performance import DEFAULT_WINDOWS, Weighting, Window, WindowChange, holdings_of, measure_holdings


@strawberry.type
class Universe:
    """A set of stocks, given by a key over groups."""

    key: str
    """The key in its canonical form, which does not depend on order, case, repetition or redundant parentheses."""
    symbols: Sequence[str]
    """The symbols of all stocks, sorted."""
    as_of: date | None
    """The UTC date (end of day) this universe and everything below it is shown as of; null means now."""
    refs: strawberry.Private[tuple[GroupRef, ...]]
    environment: strawberry.Private[str]

    @property
    def single_group(self) -> int | None:
        """Id of the group if the key names just one; else None."""
        return self.refs[0].group_id if [self.key] == [ref.label for ref in self.refs] else None

    @strawberry.field
    def size(self) -> int:
        """The number of stocks."""
        return len(self.symbols)

    @strawberry.field
    async def performance(
        self,
        info: Info,
        windows: Sequence[Window] | None = DEFAULT_WINDOWS,
        weighting: Weighting | None = Weighting.WEIGHT,
        as_of: date | None = None,
    ) -> Sequence[WindowChange]:
        """Average change of the stocks over windows of sessions.

        Args:
            windows: The windows, in the order of the result. A repeated window counts once.
            weighting: The weights of the stocks. WEIGHT counts them the same unless the universe is one group with
                weights.
            as_of: The windows end with the last session on or before this date; defaults to the parent's `asOf`, else
                the latest session.

        """
        holdings = await universe_holdings(info.context, self)
        (measured,) = await measure_holdings(info.context, [holdings], windows, weighting, as_of or self.as_of)
        return measured

    @strawberry.field
    async def groups(self, info: Info) -> list[Group]:
        """The groups named in the key, in the order of its canonical form."""
        keys = [(ref.group_id, self.environment) for ref in self.refs]
        answers = await info.context.load_rows_many("groups_by_id", keys, as_of=self.as_of)
        return [Group.of(row, self.as_of) for rows in answers for row in rows]

    @strawberry.field
    async def stocks(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[Stock]:
        """The stocks, sorted by symbol.

        Args:
            first: The maximum number of stocks, up to the server's cap of 5,000, which is also the default.
            after: The `endCursor` of the previous page.

        """
        request = page(first, after, (str,), "universe", self.environment, self.key, self.as_of)
        (last_symbol,) = request.after or [""]
        start = bisect_right(self.symbols, last_symbol)
        symbols = (
            self.symbols[start : start + request.rows] if start or request.rows < len(self.symbols) else self.symbols
        )
        info.context.charge(len(symbols))

        async def count(_: Info) -> int:
            return len(self.symbols)

        return request.connection(stocks_of(symbols, self.environment, self.as_of), [symbols], count)


async def find_universe(
    operation: Operation, key: str, environment: str, day: date | None = None, argument: str = "asOf"
) -> Universe:
    """Resolve a universe key, currently or at the end of a UTC day; errors name the day by `argument`."""
    tree = parse(key)
    if day:
        await check_day(operation, argument, day)
    names = sorted((leaf for leaf in leaves(tree) if isinstance(leaf, Name)), key=attrgetter("position"))
    expression = canonicalize(tree, await find_groups(operation, names, environment, day))
    refs = tuple(leaf for leaf in dict.fromkeys(leaves(expression)) if isinstance(leaf, GroupRef))

    def evaluate_rows(answers: list[list[Row]]) -> Symbols:
        members = {ref.group_id: frozenset(row["symbols"]) for ref, (row,) in zip(refs, answers, strict=True)}
        return Symbols.of(sorted(evaluate(expression, members)))

    symbols = await operation.cached_rows(
        UNIVERSES,
        render(expression, lambda ref: str(ref.group_id)),
        evaluate_rows,
        "group_symbols",
        [(ref.group_id,) for ref in refs],
        as_of=day,
    )
    return Universe(key=render(expression), symbols=symbols, as_of=day, refs=refs, environment=environment)


async def universe_holdings(operation: Operation, universe: Universe) -> Holdings:
    """Return the holdings of a universe; weights are known only if it is a single group."""
    if universe.single_group is None:
        return Holdings.of(universe.symbols, [None] * len(universe.symbols))
    (holdings,) = await holdings_of(operation, [universe.single_group], universe.as_of)
    return holdings


@strawberry.type
class UniverseQuery:
    """Root field of universes."""

    @strawberry.field
    async def universe(
        self, info: Info, key: str, environment: Environment | None = None, as_of: date | None = None
    ) -> Universe | None:
        """A set of stocks by its key: `SPY:QQQ` is in either group, `SPY&QQQ` in both, `SPY-QQQ` in the first only.

        Args:
            key: Names of groups joined by `:`, `&`, `-` and parentheses. A type before a name (`SECTOR/energy`) tells
                apart groups of the same name; a name with operators or white space is written in double quotes.
            environment: The environment of the groups; defaults to the server's setting.
            as_of: The UTC date whose end-of-day groups are used; defaults to the current groups. The error before the
                first known day of a group is NO_HISTORY.

        """
        operation = info.context
        found = await find_universe(operation, key, environment or operation.environment, as_of)
        operation.charge(len(found.symbols))
        return found
