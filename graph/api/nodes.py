"""Stock, Group and Membership: the bidirectional graph, and the queries that enter it."""

import base64
import binascii
import math
from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

import orjson
import strawberry
from strawberry.scalars import JSON

from graph.api.pagination import MAX_PAGE, Connection, page
from graph.api.point_in_time import check_day, check_known, check_since
from graph.api.universe_keys import resolve_name
from graph.errors import InvalidArgument
from graph.execution.columns import LazyObjects, ObjectSet, UniqueObjects
from graph.execution.dataloaders import DataLoader, Key, Row
from graph.execution.operation import Info, Operation
from graph.execution.plans import batch_field
from graph.model import Environment, GroupName, GroupType
from graph.prices.closes import Bar, bars
from graph.prices.performance import (
    DEFAULT_WINDOWS,
    PriceChange,
    Weighting,
    Window,
    WindowChange,
    holdings_of,
    measure_holdings,
    measure_stock,
)

ID: TypeAlias = strawberry.ID

strawberry.enum(Environment)
strawberry.enum(GroupType)


# ten times as fast as calling them
_TYPES, _ENVIRONMENTS = {each.value: each for each in GroupType}, {each.value: each for each in Environment}


@strawberry.enum
class GroupOrder(StrEnum):
    """The order of a list of groups."""

    NAME_ASC = "NAME_ASC"
    MEMBER_COUNT_DESC = "MEMBER_COUNT_DESC"


@strawberry.enum
class MemberOrder(StrEnum):
    """The order of a list of members: heaviest first and then by symbol, or by symbol."""

    WEIGHT_DESC = "WEIGHT_DESC"
    SYMBOL_ASC = "SYMBOL_ASC"


@strawberry.interface
class Node:
    """Anything with an id of its own."""

    environment_name: strawberry.Private[str]
    key: strawberry.Private[str | int]  # what tells it from others of its type and environment
    day: strawberry.Private[date | None]  # that it and what is reached from it is of; None is now

    @strawberry.field
    def id(self) -> ID:
        """Opaque, and good for `node`; it carries the environment, and the day where one was asked."""
        return _write_id(self)

    @batch_field(id)  # noqa: A003 - the field
    @staticmethod
    async def _ids(nodes: "Sequence[Node]", _: Operation) -> list[ID]:
        return list(map(_write_id, nodes))


def _write_id(node: Node) -> ID:
    parts = [type(node).__name__, node.environment_name, node.key, *([node.day] if node.day else [])]
    return ID(base64.urlsafe_b64encode(orjson.dumps(parts)).decode())


@strawberry.type
class Stock(Node):
    """A stock, known by its symbol, and the groups that hold it."""

    symbol: str
    """The ticker; share classes come after a dot, as in `BRK.B`."""
    row: strawberry.Private[Row | None]  # with what else is known of it, where that was read with the symbol

    @classmethod
    def of(cls, row: Row, environment: str, day: date | None) -> "Stock":
        """Make a stock of a row that has its columns."""
        symbol = row["symbol"]
        return cls(environment_name=environment, key=symbol, day=day, symbol=symbol, row=row)

    @staticmethod
    async def _details(stocks: ObjectSet, operation: Operation, name: str) -> list[str | None]:
        rows = list(stocks.values("row"))
        if None in rows:
            keys = [(symbol,) for symbol in stocks.values("symbol")]
            answers = await operation.load_many(DataLoader("stock_details"), keys)
            rows = [row or next(iter(found), None) for row, found in zip(rows, answers, strict=True)]
        return [row and row[name] for row in rows]

    @strawberry.field
    async def name(self, info: Info) -> str | None:
        """The company's name."""
        (name,) = await Stock._names(ObjectSet([self]), info.context)
        return name

    @batch_field(name)
    @staticmethod
    async def _names(stocks: ObjectSet, operation: Operation) -> list[str | None]:
        return await Stock._details(stocks, operation, "stock_name")

    @strawberry.field
    async def industry(self, info: Info) -> str | None:
        """The industry within its sector."""
        (industry,) = await Stock._industries(ObjectSet([self]), info.context)
        return industry

    @batch_field(industry)
    @staticmethod
    async def _industries(stocks: ObjectSet, operation: Operation) -> list[str | None]:
        return await Stock._details(stocks, operation, "stock_industry")

    @staticmethod
    async def _held(stocks: ObjectSet, operation: Operation, types: Sequence[GroupType] | None) -> "list[StockGroups]":
        keys = [(symbol,) for symbol in stocks.values("symbol")]
        environment, day = stocks.first("environment_name"), stocks.first("day")
        answers = await operation.load_many(
            DataLoader("stock_memberships", day, (environment, _written(types)), _group_by_stock), keys
        )
        operation.charge_each([len(held.groups) for held in answers])
        return answers

    @strawberry.field
    async def sector(self, info: Info) -> "Group | None":
        """The SECTOR group that holds it; null where none does."""
        (group,) = await Stock._sectors(ObjectSet([self]), info.context)
        return group

    @batch_field(sector)
    @staticmethod
    async def _sectors(stocks: ObjectSet, operation: Operation) -> "list[Group | None]":
        answers = await Stock._held(stocks, operation, [GroupType.SECTOR])
        return [held.groups[0] if held.groups else None for held in answers]

    @strawberry.field
    async def groups(self, info: Info, type: list[GroupType] | None = None) -> "list[Group]":
        """The groups that hold it: the one that it weighs most in first, then by name.

        Args:
            type: Of these types only.

        """
        (groups,) = await Stock._groups(ObjectSet([self]), info.context, type)
        return groups

    @batch_field(groups)
    @staticmethod
    async def _groups(
        stocks: ObjectSet, operation: Operation, type: Sequence[GroupType] | None = None
    ) -> "list[list[Group]]":
        return [held.groups for held in await Stock._held(stocks, operation, type)]

    @strawberry.field
    async def memberships(self, info: Info, type: list[GroupType] | None = None) -> "list[Membership]":
        """Its memberships: heaviest first, then by the group's name.

        Args:
            type: In groups of these types only.

        """
        (memberships,) = await Stock._memberships(ObjectSet([self]), info.context, type)
        return cast("list[Membership]", memberships)

    @batch_field(memberships)
    @staticmethod
    async def _memberships(
        stocks: ObjectSet, operation: Operation, type: Sequence[GroupType] | None = None
    ) -> list[LazyObjects]:
        answers = await Stock._held(stocks, operation, type)
        return [
            LazyObjects(Membership, {"weight": held.weights, "group": UniqueObjects(held.groups)}, symbol=symbol)
            for symbol, held in zip(stocks.values("symbol"), answers, strict=True)
        ]

    @strawberry.field
    async def performance(
        self, info: Info, windows: list[Window] | None = DEFAULT_WINDOWS, as_of: date | None = None
    ) -> list[PriceChange]:
        """How far it has come over windows of sessions.

        Args:
            windows: The windows, each once.
            as_of: The windows end with the last session on or before this day; unless given, on the day it was asked of
                itself, or the latest.

        """
        return await measure_stock(info.context, self.symbol, windows, as_of or self.day)

    @strawberry.field
    async def prices(
        self,
        info: Info,
        first: Annotated[date | None, strawberry.argument(name="from")] = None,
        last: Annotated[date | None, strawberry.argument(name="to")] = None,
    ) -> list[Bar]:
        """What it cost, day by day, oldest first.

        Args:
            first: The first day; without it the 252 last bars are given.
            last: The last day; unless given, the day it was asked of itself, or the latest.

        """
        return await bars(info, self.symbol, first, last or self.day)


@strawberry.type
class Exposure:
    """What share of a group lies in another."""

    group: "Group | None"
    """Where it lies; null for the members that lie in no group of that type."""
    weight: float | None
    """The sum of these members' weights, a fraction; groups that overlap may exceed the total. Null if none has one."""
    count: int
    """How many members these are."""


@strawberry.type
class Group(Node):
    """A named set of stocks: an ETF's holdings, a sector, a theme, an index universe."""

    name: str
    """As spelled in the database; look-ups ignore case."""
    type: GroupType
    """What kind of set it is."""
    description: str | None
    """What it is, in words."""
    environment: Environment
    """The environment whose rows it is of."""
    timestamps: strawberry.Private[tuple[datetime | None, datetime | None, datetime | None]]

    @classmethod
    def of(cls, row: Row, day: date | None) -> "Group":
        """Make a group of a row that has its columns."""
        return cls(
            environment_name=row["environment"],
            key=row["id"],
            day=day,
            name=row["name"],
            type=_TYPES[row["type"]],
            description=row["description"],
            environment=_ENVIRONMENTS[row["environment"]],
            timestamps=(row["created_at"], row["updated_at"], row["last_update"]),
        )

    @strawberry.field
    def as_of(self) -> date | None:
        """The day, in UTC, that it and all that is reached from it is of, as that day ended; null is now."""
        return self.day

    async def _document(self, info: Info, name: str) -> JSON | None:
        row = await info.context.one("group_details", self.key, as_of=self.day)
        return None if row is None or row[name] is None else JSON(orjson.loads(row[name]))

    @strawberry.field
    async def metadata(self, info: Info) -> JSON | None:
        """Whatever its source said of it beside the members."""
        return await self._document(info, "metadata")

    @strawberry.field
    async def liquidity_filter(self, info: Info) -> JSON | None:
        """The filter that its members passed."""
        return await self._document(info, "liquidity_filter")

    @strawberry.field
    def created_at(self, info: Info) -> datetime | None:
        """When the group was made, in UTC."""
        return info.context.utc(self.timestamps[0])

    @strawberry.field
    def updated_at(self, info: Info) -> datetime | None:
        """When the group's own row last changed, in UTC."""
        return info.context.utc(self.timestamps[1])

    @strawberry.field
    def last_update(self, info: Info) -> datetime | None:
        """When its members were last loaded, in UTC."""
        return info.context.utc(self.timestamps[2])

    async def _count(self, info: Info) -> int:
        row = await info.context.one("member_counts", self.key, as_of=self.day)
        return row["total"] if row else 0

    @strawberry.field
    async def member_count(self, info: Info) -> int:
        """How many members it has."""
        return await self._count(info)

    @batch_field(member_count)
    @staticmethod
    async def _member_counts(groups: ObjectSet, operation: Operation) -> list[int]:
        answers = await operation.every("member_counts", [(key,) for key in groups.values("key")], as_of=groups[0].day)
        return [rows[0]["total"] if rows else 0 for rows in answers]

    @strawberry.field
    async def total_weight(self, info: Info) -> float | None:
        """The sum of its members' weights, a fraction: near 1 where it is complete; null where no member has one."""
        row = await info.context.one("total_weights", self.key, as_of=self.day)
        return row["total"] if row else None

    @strawberry.field
    async def symbols(self, info: Info) -> list[str]:
        """The symbols of all its members, sorted: the group as a universe."""
        operation = info.context
        found = await operation.cached_rows(
            operation.runtime.universes, str(self.key), _symbols, "group_symbols", [(self.key,)], as_of=self.day
        )
        operation.charge(len(found))
        return list(found)

    @strawberry.field
    async def members(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        order_by: MemberOrder | None = MemberOrder.WEIGHT_DESC,
    ) -> "Connection[Membership]":
        """Its members, heaviest first: those without a weight last, and equal ones by symbol.

        Args:
            first: How many at most; without it all of them, up to the server's cap.
            after: The `endCursor` of the page before.
            order_by: Their order.

        """
        operation = info.context
        statement, columns = _MEMBER_ORDERS[order_by or MemberOrder.WEIGHT_DESC]
        asked = page(first, after, tuple(columns.values()), statement, self.key, self.day)
        key = (self.key, asked.rows, *(asked.after or [None] * len(columns)))
        ((row,),) = await operation.load_many(DataLoader(statement, self.day), [key])
        symbols, weights = row["symbols"], row["weights"]
        operation.charge(len(symbols))
        members = LazyObjects(Membership, {"symbol": symbols, "weight": weights}, group=self)
        return asked.connection(members, [row[column] for column in columns], self._count)

    @strawberry.field
    async def exposure(self, info: Info, by: GroupType | None = GroupType.SECTOR) -> list[Exposure]:
        """What share of it lies in each group of a type: heaviest first, then by count and name.

        Args:
            by: The type.

        """
        rows = await info.context.many(
            "exposures", self.key, by or GroupType.SECTOR, self.environment_name, as_of=self.day
        )
        return [
            Exposure(
                group=None if row["id"] is None else Group.of(row, self.day),
                weight=row["weight"],
                count=row["total"],
            )
            for row in rows
        ]

    @strawberry.field
    async def performance(
        self,
        info: Info,
        windows: list[Window] | None = DEFAULT_WINDOWS,
        weighting: Weighting | None = Weighting.WEIGHT,
        as_of: date | None = None,
    ) -> list[WindowChange]:
        """How far its members have come over windows of sessions; by weight where any has one.

        Args:
            windows: The windows, each once.
            weighting: What the members count for.
            as_of: The windows end with the last session on or before this day; unless given, on the day it was asked of
                itself, or the latest.

        """
        (held,) = await holdings_of(info.context, [cast("int", self.key)], self.day)
        return await measure_holdings(info.context, held, windows, weighting, as_of or self.day)

    @strawberry.field
    async def changes(self, info: Info, since: date) -> "GroupChanges":
        """What joined, left and was reweighted after a day: its members at the end of that day against those it has.

        Args:
            since: The day, in UTC; before the first known one the error is NO_HISTORY.

        """
        operation = info.context
        today = await check_day(operation, "since", since)
        if self.day and since > self.day:
            raise InvalidArgument(f"since: {since} is after {self.day}, the day that the group is asked of.")
        known = await operation.one("groups_known_since", self.key)
        check_since(self.name, known["since"] if known else None, since)
        rows = await operation.many("member_changes", self.key, since, self.day or today)
        changes = [MemberChange.of(row, Stock.of(row, self.environment_name, self.day)) for row in rows]
        return GroupChanges(
            since=since,
            joined=[change for change in changes if not change.was],
            left=[change for change in changes if not change.stays],
            reweighted=[change for change in changes if change.was and change.stays],
        )


@strawberry.type
class MemberChange:
    """A member that joined, left or was reweighted."""

    symbol: str
    """The stock's."""
    stock: Stock
    """The member."""
    day: date
    """The day, in UTC, that it joined on, left on, or got its weight on."""
    before: float | None
    """Its weight at the end of the earlier day, a fraction; null where it had none or was no member."""
    after: float | None
    """Its weight at the later time, a fraction; null where it has none or is no member."""
    was: strawberry.Private[bool]
    stays: strawberry.Private[bool]

    @classmethod
    def of(cls, row: Row, stock: Stock) -> "MemberChange":
        """Make a change of a row that has its columns."""
        return cls(
            symbol=row["symbol"],
            stock=stock,
            day=row["day"],
            before=row["before"],
            after=row["after"],
            was=row["was_member"],
            stays=row["is_member"],
        )


@strawberry.type
class GroupChanges:
    """What became different in a group between the end of a day and a later time. Each list is sorted by symbol."""

    since: date
    """The earlier day."""
    joined: list[MemberChange]
    """Who is a member and was not."""
    left: list[MemberChange]
    """Who was a member and is not."""
    reweighted: list[MemberChange]
    """Who is a member with another weight."""


_MEMBER_ORDERS: dict[MemberOrder, tuple[str, dict[str, type | tuple[type, ...]]]] = {
    MemberOrder.WEIGHT_DESC: ("members_by_weight", {"weights": (float, type(None)), "symbols": str, "ids": int}),
    MemberOrder.SYMBOL_ASC: ("members_by_symbol", {"symbols": str, "ids": int}),
}
"""For each order its statement, and the columns that order, with the types that a cursor holds."""


def _written(types: Sequence[GroupType] | None) -> tuple[str, ...] | None:
    return None if types is None else tuple(sorted(set(map(str, types))))


class StockGroups(NamedTuple):
    """The groups that hold a stock, heaviest first and then by name, and its weight in each."""

    groups: list[Group]
    weights: list[float | None]


def _group_by_stock(question: DataLoader, keys: Sequence[Key], rows: list[Row]) -> list[StockGroups]:
    """Deal groups out to the stocks that they hold."""
    dealt = {symbol: StockGroups([], []) for (symbol,) in keys}
    for row in rows:
        group = Group.of(row, question.as_of)
        for symbol, weight in zip(row["symbols"], row["weights"], strict=True):
            held = dealt[symbol]
            held.groups.append(group)
            held.weights.append(weight)
    return list(map(_heaviest_first, dealt.values()))


def _heaviest_first(held: StockGroups) -> StockGroups:
    weights = held.weights
    if len(weights) < 2:  # noqa: PLR2004 - nothing to sort
        return held
    # equal ones stay in their order, which is by name
    places = sorted(range(len(weights)), key=lambda place: math.inf if (w := weights[place]) is None else -w)
    return StockGroups([held.groups[place] for place in places], [weights[place] for place in places])


def stocks_of(symbols: Sequence[str], environment: str, day: date | None) -> LazyObjects:
    """Give stocks that are known to be there."""
    return LazyObjects(Stock, {"symbol": symbols, "key": symbols}, environment_name=environment, day=day, row=None)


def _symbols(answers: list[list[Row]]) -> tuple[str, ...]:
    return tuple(answers[0][0]["symbols"])


@strawberry.type
class Membership:
    """The edge between a group and a stock."""

    symbol: str
    """The stock's."""
    weight: float | None
    """A fraction of the group (0.0650 = 6.5 %); null where it is not known."""
    group: Group
    """Whose member it is."""

    @strawberry.field
    def stock(self) -> Stock:
        """The member."""
        return cast("Stock", stocks_of([self.symbol], self.group.environment_name, self.group.day)[0])

    @batch_field(stock)
    @staticmethod
    async def _stocks(memberships: ObjectSet, _: Operation) -> LazyObjects:
        group = memberships.first("group")
        return stocks_of(memberships.values("symbol"), group.environment_name, group.day)

    @strawberry.field
    async def rank(self, info: Info) -> int:
        """Its place among all members of the group, heaviest first, from 1."""
        (rank,) = await Membership._ranks(ObjectSet([self]), info.context)
        return rank

    @batch_field(rank)
    @staticmethod
    async def _ranks(memberships: ObjectSet, operation: Operation) -> list[int]:
        answers = await Membership._rows_of(memberships, operation, "member_ranks")
        return [rows[0]["rank"] if rows else 0 for rows in answers]

    @staticmethod
    async def _rows_of(memberships: ObjectSet, operation: Operation, statement: str) -> list[list[Row]]:
        groups = memberships.values("group")
        keys = [(group.key, symbol) for group, symbol in zip(groups, memberships.values("symbol"), strict=True)]
        return await operation.every(statement, keys, as_of=groups[0].day)

    @staticmethod
    async def _details(memberships: ObjectSet, operation: Operation, name: str) -> list[Any]:
        if memberships.first("group").day:
            # the history does not keep them
            return [None] * len(memberships)
        answers = await Membership._rows_of(memberships, operation, "membership_details")
        return [rows[0][name] if rows else None for rows in answers]

    @strawberry.field
    async def added_at(self, info: Info) -> datetime | None:
        """When it was added, in UTC."""
        (moment,) = await Membership._added(ObjectSet([self]), info.context)
        return moment

    @batch_field(added_at)
    @staticmethod
    async def _added(memberships: ObjectSet, operation: Operation) -> list[datetime | None]:
        return list(map(operation.utc, await Membership._details(memberships, operation, "added_at")))

    @strawberry.field
    async def updated_at(self, info: Info) -> datetime | None:
        """When it last changed, in UTC."""
        (moment,) = await Membership._updated(ObjectSet([self]), info.context)
        return moment

    @batch_field(updated_at)
    @staticmethod
    async def _updated(memberships: ObjectSet, operation: Operation) -> list[datetime | None]:
        return list(map(operation.utc, await Membership._details(memberships, operation, "updated_at")))

    @strawberry.field
    async def metadata(self, info: Info) -> JSON | None:
        """Whatever its source said of it."""
        (document,) = await Membership._documents(ObjectSet([self]), info.context)
        return document

    @batch_field(metadata)
    @staticmethod
    async def _documents(memberships: ObjectSet, operation: Operation) -> list[JSON | None]:
        texts = await Membership._details(memberships, operation, "metadata")
        return [None if text is None else JSON(orjson.loads(text)) for text in texts]


@strawberry.type
class NodesQuery:
    """The queries that enter the graph."""

    @strawberry.field
    async def group(
        self,
        info: Info,
        name: str,
        type: GroupType | None = None,
        environment: Environment | None = None,
        as_of: date | None = None,
    ) -> Group | None:
        """A group by its name, whatever the case; null where there is none.

        Args:
            name: Its name.
            type: Its type, needed only where groups of two types share the name.
            environment: Whose groups are meant; the server's setting unless given.
            as_of: A day, in UTC: the group, and all that is reached from it, as that day ended. Before the first known
                day of the group the error is NO_HISTORY.

        """
        operation = info.context
        if as_of:
            await check_day(operation, "asOf", as_of)
        named = environment or operation.environment
        rows = await operation.many("groups_named", name, named, as_of=as_of)
        groups = {GroupName(row["id"], row["name"], row["type"]): row for row in rows if type in (None, row["type"])}
        chosen = resolve_name(name, list(groups))
        if chosen is None and as_of:
            await check_known(operation, name, type, named, as_of)
        return None if chosen is None else Group.of(groups[chosen], as_of)

    @strawberry.field
    async def groups(
        self,
        info: Info,
        type: list[GroupType] | None = None,
        search: str | None = None,
        min_members: int | None = None,
        max_members: int | None = None,
        order_by: GroupOrder | None = GroupOrder.NAME_ASC,
        first: int | None = None,
        after: str | None = None,
        environment: Environment | None = None,
    ) -> Connection[Group]:
        """The groups of an environment.

        Args:
            type: Of these types only.
            search: A text that the name or description holds, whatever the case.
            min_members: With as many members at least.
            max_members: With as many members at most.
            order_by: By name, or those with most members first.
            first: How many at most; without it all of them, up to the server's cap.
            after: The `endCursor` of the page before.
            environment: Whose groups are meant; the server's setting unless given.

        """
        operation = info.context
        types = _written(type)
        filters = [environment or operation.environment, types, search, min_members, max_members]
        by_count = order_by is GroupOrder.MEMBER_COUNT_DESC
        columns = ("name", "id", "member_count") if by_count else ("name", "id")
        asked = page(first, after, (str, int, int)[: len(columns)], "groups", by_count, *filters)
        rows = await operation.fetch(
            "groups_by_member_count" if by_count else "groups_by_name",
            *filters,
            asked.rows,
            *(asked.after or [None] * len(columns)),
        )

        async def count(info: Info) -> int:
            (row,) = await info.context.fetch("groups_count", *filters)
            total: int = row["total"]
            return total

        order = [[row[column] for row in rows] for column in columns]
        return asked.connection([Group.of(row, None) for row in rows], order, count)

    @strawberry.field
    async def stock(self, info: Info, symbol: str, environment: Environment | None = None) -> Stock | None:
        """A stock by its symbol, whatever the case; null where nothing knows it.

        Args:
            symbol: Its symbol.
            environment: Whose groups are meant; the server's setting unless given.

        """
        return await _stock(info, symbol, environment or info.context.environment, None)

    @strawberry.field
    async def stocks(
        self, info: Info, symbols: list[str], environment: Environment | None = None
    ) -> list[Stock | None]:
        """Stocks by their symbols, in the order asked; null for each that nothing knows.

        Args:
            symbols: Their symbols, whatever the case.
            environment: Whose groups are meant; the server's setting unless given.

        """
        if len(symbols) > MAX_PAGE:
            raise InvalidArgument(f"symbols: {len(symbols):,} are more than {MAX_PAGE:,}; ask for fewer at a time.")
        named = environment or info.context.environment
        answers = await info.context.every("stocks", [(symbol, named) for symbol in symbols])
        return [Stock.of(rows[0], named, None) if rows else None for rows in answers]

    @strawberry.field
    async def node(self, info: Info, id: ID) -> Node | None:
        """Whatever has an id; null where nothing does.

        Args:
            id: As an answer gave it.

        """
        match _read_id(id):
            case [str(kind), str(environment), key, date() | None as day] if environment in list(Environment):
                if day:
                    await check_day(info.context, "id", day)
                match kind, key:
                    case "Group", int() if 0 < key < 2**31:
                        row = await info.context.one("groups_by_id", key, environment, as_of=day)
                        return None if row is None else Group.of(row, day)
                    case "Stock", str():
                        return await _stock(info, key, environment, day)
        return None


async def _stock(info: Info, symbol: str, environment: str, day: date | None) -> Stock | None:
    row = await info.context.one("stocks", symbol, environment, as_of=day)
    return None if row is None else Stock.of(row, environment, day)


def _read_id(written: str) -> tuple[object, object, object, date | None] | None:
    """Give the type, the environment, the key and the day of an id; None where it is none of this server's."""
    try:
        kind, environment, key, *days = orjson.loads(base64.urlsafe_b64decode(written.encode("ascii")))
        (day,) = map(date.fromisoformat, days) if days else (None,)
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        return None
    return kind, environment, key, day
