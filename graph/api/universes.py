"""Universes: the symbols that a key such as `SPY:QQQ:dow30` stands for."""

import difflib
from bisect import bisect_right
from collections.abc import Sequence
from datetime import date

import strawberry

from graph.api.nodes import UNIVERSES, Group, Stock, stocks_of
from graph.api.pagination import Connection, page
from graph.api.point_in_time import check_day, check_known
from graph.api.universe_keys import GroupRef, Name, canonical, evaluate, leaves, parse, render, resolve_name, write_name
from graph.caching.data_cache import CacheSpec
from graph.errors import UnknownGroup
from graph.execution.dataloaders import Row
from graph.execution.operation import Info, Operation
from graph.model import Environment, GroupName, Holdings
from graph.prices.performance import DEFAULT_WINDOWS, Weighting, Window, WindowChange, holdings_of, measure_holdings

GROUP_NAMES: CacheSpec[tuple[GroupName, ...]] = CacheSpec(
    "group_names", deserialize=lambda rows: tuple(GroupName(*row) for row in rows)
)
"""The names of all groups of an environment, by the environment."""

NEAR = 3
"""How many near matches an unknown name is answered with."""


async def group_names(operation: Operation, environment: str, day: date | None) -> tuple[GroupName, ...]:
    """Give the names of all groups of an environment, now or as a day ended."""
    return await operation.cached_rows(GROUP_NAMES, environment, _directory, "group_names", [(environment,)], as_of=day)


async def find_groups(
    operation: Operation, parts: Sequence[Name], environment: str, day: date | None = None
) -> dict[Name | GroupRef, GroupRef]:
    """Find the group that each part of a key names, now or as a day ended.

    UnknownGroup or AmbiguousGroup where a part names none or several; NoHistory where it names none yet.
    """
    directory = await group_names(operation, environment, day)
    bearing: dict[str, list[GroupName]] = {part.name.casefold(): [] for part in parts}
    for group in directory:
        namesakes = bearing.get(group.name.casefold())
        if namesakes is not None:
            namesakes.append(group)
    found: dict[Name | GroupRef, GroupRef] = {}
    for part in parts:
        namesakes = bearing[part.name.casefold()]
        chosen = resolve_name(part.name, [each for each in namesakes if part.type in (None, each.type)])
        if chosen is None:
            if day:
                await check_known(operation, part.name, part.type, environment, day)
            raise _unknown(part, namesakes, directory, day)
        name = write_name(chosen.name)
        found[part] = GroupRef(name if len(namesakes) == 1 else f"{chosen.type}/{name}", chosen.id)
    return found


def _directory(answers: list[list[Row]]) -> tuple[GroupName, ...]:
    return tuple(GroupName(row["id"], row["name"], row["type"]) for row in answers[0])


def _unknown(
    part: Name, namesakes: Sequence[GroupName], directory: Sequence[GroupName], day: date | None
) -> UnknownGroup:
    spelled = {group.name.casefold(): group.name for group in directory if part.type in (None, group.type)}
    near = [f"{group.type}/{write_name(group.name)}" for group in namesakes] or [
        write_name(spelled[name]) for name in difflib.get_close_matches(part.name.casefold(), spelled, NEAR)
    ]
    written = write_name(part.name) if part.type is None else f"{part.type}/{write_name(part.name)}"
    hint = f"did you mean {' or '.join(near)}?" if near else "`groups` lists those there are."
    there = f"On {day} there was" if day else "There is"
    return UnknownGroup(f"{there} no group {written}; {hint}", group=written, near=near)


@strawberry.type
class Universe:
    """A set of stocks, written as a key over groups."""

    key: str
    """The key in its canonical form, in which order, case, repetition and needless parentheses are gone."""
    symbols: list[str]
    """All symbols, sorted."""
    as_of: date | None
    """The day, in UTC, that it and all that is reached from it is of, as that day ended; null is now."""
    atoms: strawberry.Private[tuple[GroupRef, ...]]
    environment: strawberry.Private[str]

    @property
    def only_group(self) -> int | None:
        """The group that it is, where it is one and not made of several."""
        return self.atoms[0].group if [self.key] == [atom.label for atom in self.atoms] else None

    @strawberry.field
    def size(self) -> int:
        """How many symbols it has."""
        return len(self.symbols)

    @strawberry.field
    async def performance(
        self,
        info: Info,
        windows: list[Window] | None = DEFAULT_WINDOWS,
        weighting: Weighting | None = Weighting.WEIGHT,
        as_of: date | None = None,
    ) -> list[WindowChange]:
        """How far its stocks have come over windows of sessions; by weight where it is one group with weights.

        Args:
            windows: The windows, each once.
            weighting: What the members count for.
            as_of: The windows end with the last session on or before this day; unless given, on the day it was asked of
                itself, or the latest.

        """
        held = await holdings_in(info.context, self)
        return await measure_holdings(info.context, held, windows, weighting, as_of or self.as_of)

    @strawberry.field
    async def groups(self, info: Info) -> list[Group]:
        """The groups that the key names, in the order of its canonical form."""
        keys = [(atom.group, self.environment) for atom in self.atoms]
        answers = await info.context.load_rows_many("groups_by_id", keys, as_of=self.as_of)
        return [Group.of(row, self.as_of) for rows in answers for row in rows]

    @strawberry.field
    async def stocks(self, info: Info, first: int | None = None, after: str | None = None) -> Connection[Stock]:
        """Its stocks, by symbol.

        Args:
            first: How many at most; without it all of them, up to the server's cap.
            after: The `endCursor` of the page before.

        """
        asked = page(first, after, (str,), "universe", self.environment, self.key, self.as_of)
        (passed,) = asked.after or [""]
        start = bisect_right(self.symbols, passed)
        symbols = self.symbols[start : start + asked.rows]
        info.context.charge(len(symbols))

        async def count(_: Info) -> int:
            return len(self.symbols)

        return asked.connection(stocks_of(symbols, self.environment, self.as_of), [symbols], count)


async def find_universe(
    operation: Operation, key: str, environment: str, day: date | None = None, argument: str = "asOf"
) -> Universe:
    """Find what a key stands for, now or as a day ended; the argument is the day's name where it is wrong."""
    tree = parse(key)
    if day:
        await check_day(operation, argument, day)
    parts = [leaf for leaf in dict.fromkeys(leaves(tree)) if isinstance(leaf, Name)]
    expression = canonical(tree, await find_groups(operation, parts, environment, day))
    atoms = tuple(atom for atom in dict.fromkeys(leaves(expression)) if isinstance(atom, GroupRef))

    def shape(answers: list[list[Row]]) -> tuple[str, ...]:
        members = {atom.group: frozenset(row["symbols"]) for atom, (row,) in zip(atoms, answers, strict=True)}
        return tuple(sorted(evaluate(expression, members)))

    symbols = await operation.cached_rows(
        UNIVERSES,
        render(expression, lambda atom: str(atom.group)),
        shape,
        "group_symbols",
        [(atom.group,) for atom in atoms],
        as_of=day,
    )
    return Universe(key=render(expression), symbols=list(symbols), as_of=day, atoms=atoms, environment=environment)


async def holdings_in(operation: Operation, universe: Universe) -> Holdings:
    """Give the members of a universe, with their weights where it is one group."""
    if universe.only_group is None:
        return Holdings.of(universe.symbols, [None] * len(universe.symbols))
    (held,) = await holdings_of(operation, [universe.only_group], universe.as_of)
    return held


@strawberry.type
class UniverseQuery:
    """The query of universes."""

    @strawberry.field
    async def universe(
        self, info: Info, key: str, environment: Environment | None = None, as_of: date | None = None
    ) -> Universe:
        """The stocks that a key stands for: `SPY:QQQ` in either, `SPY&QQQ` in both, `SPY-QQQ` in the first only.

        Args:
            key: Names of groups with `:`, `&`, `-` and parentheses between them; `SECTOR/energy` where a name alone is
                ambiguous, double quotes around a name with signs or white space.
            environment: Whose groups are meant; the server's setting unless given.
            as_of: A day, in UTC: the groups as that day ended. Before the first known day of one of them the error is
                NO_HISTORY.

        """
        operation = info.context
        found = await find_universe(operation, key, environment or operation.environment, as_of)
        operation.charge(len(found.symbols))
        return found
