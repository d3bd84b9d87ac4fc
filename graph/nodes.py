"""Stock, Group and Membership: the bidirectional graph, and the queries that enter it."""

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

import orjson
import strawberry
from strawberry.scalars import JSON

from graph.connections import MAX_PAGE, Connection, Position, page
from graph.context import Info, Row
from graph.errors import InvalidArgument
from graph.keys import GroupName, choose
from graph.settings import Environment

ID: TypeAlias = strawberry.ID

strawberry.enum(Environment)


@strawberry.enum
class GroupType(StrEnum):
    """What kind of set a group is."""

    ETF = "ETF"
    THEME = "THEME"
    SECTOR = "SECTOR"
    SEGMENT = "SEGMENT"
    CUSTOM = "CUSTOM"
    UNIVERSE = "UNIVERSE"


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

    @strawberry.field
    def id(self) -> ID:
        """Opaque, and good for `node`; it carries the environment."""
        parts = [type(self).__name__, self.environment_name, self.key]
        return ID(base64.urlsafe_b64encode(orjson.dumps(parts)).decode())


@strawberry.type
class Stock(Node):
    """A stock, known by its symbol, and the groups that hold it."""

    symbol: str
    """The ticker; share classes come after a dot, as in `BRK.B`."""
    name: str | None
    """The company's name."""
    industry: str | None
    """The industry within its sector."""

    @classmethod
    def of(cls, row: Row, environment: str) -> "Stock":
        """Make a stock of a row that has its columns."""
        return cls(
            environment_name=environment,
            key=row["symbol"],
            symbol=row["symbol"],
            name=row["stock_name"],
            industry=row["stock_industry"],
        )

    async def _memberships(self, info: Info, types: Sequence[GroupType] | None) -> "list[Membership]":
        written = None if types is None else ",".join(sorted({each.value for each in types}))
        rows = await info.context.many("stock_memberships", self.symbol, self.environment_name, written)
        return [Membership.of(row, Group.of(row), self) for row in rows]

    @strawberry.field
    async def sector(self, info: Info) -> "Group | None":
        """The SECTOR group that holds it; null where none does."""
        found = await self._memberships(info, [GroupType.SECTOR])
        return found[0].group if found else None

    @strawberry.field
    async def groups(self, info: Info, type: list[GroupType] | None = None) -> "list[Group]":
        """The groups that hold it: the one that it weighs most in first, then by name.

        Args:
            type: Of these types only.

        """
        return [each.group for each in await self._memberships(info, type)]

    @strawberry.field
    async def memberships(self, info: Info, type: list[GroupType] | None = None) -> "list[Membership]":
        """Its memberships: heaviest first, then by the group's name.

        Args:
            type: In groups of these types only.

        """
        return await self._memberships(info, type)


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
    row: strawberry.Private[Row]

    @classmethod
    def of(cls, row: Row) -> "Group":
        """Make a group of a row that has its columns."""
        return cls(
            environment_name=row["environment"],
            key=row["id"],
            name=row["name"],
            type=GroupType(row["type"]),
            description=row["description"],
            environment=Environment(row["environment"]),
            row=row,
        )

    async def _document(self, info: Info, name: str) -> JSON | None:
        row = await info.context.one("group_details", self.key)
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
        return info.context.utc(self.row["created_at"])

    @strawberry.field
    def updated_at(self, info: Info) -> datetime | None:
        """When the group's own row last changed, in UTC."""
        return info.context.utc(self.row["updated_at"])

    @strawberry.field
    def last_update(self, info: Info) -> datetime | None:
        """When its members were last loaded, in UTC."""
        return info.context.utc(self.row["last_update"])

    async def _count(self, info: Info) -> int:
        row = await info.context.one("member_counts", self.key)
        return row["total"] if row else 0

    @strawberry.field
    async def member_count(self, info: Info) -> int:
        """How many members it has."""
        return await self._count(info)

    @strawberry.field
    async def total_weight(self, info: Info) -> float | None:
        """The sum of its members' weights, a fraction: near 1 where it is complete; null where no member has one."""
        row = await info.context.one("total_weights", self.key)
        return row["total"] if row else None

    @strawberry.field
    async def symbols(self, info: Info) -> list[str]:
        """The symbols of all its members, sorted: the group as a universe."""
        operation = info.context
        found = await operation.remember(
            operation.runtime.universes, str(self.key), _symbols, "group_symbols", [(self.key,)]
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
        statement, columns = _MEMBER_ORDERS[order_by or MemberOrder.WEIGHT_DESC]
        asked = page(first, after, tuple(columns.values()), statement, self.key)
        rows = await info.context.many(statement, self.key, asked.rows, *(asked.after or [None] * len(columns)))
        return asked.connection(
            rows,
            lambda row: Membership.of(row, self, Stock.of(row, self.environment_name)),
            _position(*columns),
            lambda: self._count(info),
        )

    @strawberry.field
    async def exposure(self, info: Info, by: GroupType | None = GroupType.SECTOR) -> list[Exposure]:
        """What share of it lies in each group of a type: heaviest first, then by count and name.

        Args:
            by: The type.

        """
        rows = await info.context.many("exposures", self.key, by or GroupType.SECTOR, self.environment_name)
        return [
            Exposure(group=None if row["id"] is None else Group.of(row), weight=row["weight"], count=row["total"])
            for row in rows
        ]


_MEMBER_ORDERS: dict[MemberOrder, tuple[str, dict[str, type | tuple[type, ...]]]] = {
    MemberOrder.WEIGHT_DESC: ("members_by_weight", {"weight": (float, type(None)), "symbol": str, "id": int}),
    MemberOrder.SYMBOL_ASC: ("members_by_symbol", {"symbol": str, "id": int}),
}
"""For each order its statement, and the columns that order, with the types that a cursor holds."""


def _position(*columns: str) -> Callable[[Row], Position]:
    return lambda row: [row[column] for column in columns]


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
    stock: Stock
    """The member."""
    row: strawberry.Private[Row]
    key: strawberry.Private[int]
    updated: strawberry.Private[datetime | None]

    @classmethod
    def of(cls, row: Row, group: Group, stock: Stock) -> "Membership":
        """Make a membership of a row that has its columns, which is of the group's members or of the stock's groups."""
        from_stock = "membership_id" in row
        return cls(
            symbol=row["symbol"],
            weight=row["weight"],
            group=group,
            stock=stock,
            row=row,
            key=row["membership_id" if from_stock else "id"],
            updated=row["membership_updated_at" if from_stock else "updated_at"],
        )

    @strawberry.field
    async def rank(self, info: Info) -> int:
        """Its place among all members of the group, heaviest first, from 1."""
        row = await info.context.one("member_ranks", self.group.key, self.key)
        return row["rank"] if row else 0

    @strawberry.field
    def added_at(self, info: Info) -> datetime | None:
        """When it was added, in UTC."""
        return info.context.utc(self.row["added_at"])

    @strawberry.field
    def updated_at(self, info: Info) -> datetime | None:
        """When it last changed, in UTC."""
        return info.context.utc(self.updated)

    @strawberry.field
    def metadata(self) -> JSON | None:
        """Whatever its source said of it."""
        text = self.row["metadata"]
        return None if text is None else JSON(orjson.loads(text))


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
    ) -> Group | None:
        """A group by its name, whatever the case; null where there is none.

        Args:
            name: Its name.
            type: Its type, needed only where groups of two types share the name.
            environment: Whose groups are meant; the server's setting unless given.

        """
        rows = await info.context.many("groups_named", name, environment or info.context.environment)
        named = {GroupName(row["id"], row["name"], row["type"]): row for row in rows if type in (None, row["type"])}
        chosen = choose(name, list(named))
        return None if chosen is None else Group.of(named[chosen])

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
        types = None if type is None else sorted({each.value for each in type})
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

        async def count() -> int:
            (row,) = await operation.fetch("groups_count", *filters)
            total: int = row["total"]
            return total

        return asked.connection(rows, Group.of, _position(*columns), count)

    @strawberry.field
    async def stock(self, info: Info, symbol: str, environment: Environment | None = None) -> Stock | None:
        """A stock by its symbol, whatever the case; null where nothing knows it.

        Args:
            symbol: Its symbol.
            environment: Whose groups are meant; the server's setting unless given.

        """
        return await _stock(info, symbol, environment or info.context.environment)

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
        return [Stock.of(rows[0], named) if rows else None for rows in answers]

    @strawberry.field
    async def node(self, info: Info, id: ID) -> Node | None:
        """Whatever has an id; null where nothing does.

        Args:
            id: As an answer gave it.

        """
        match _read_id(id):
            case [_, environment, _] if environment not in list(Environment):
                return None
            case ["Group", str(environment), int(key)] if 0 < key < 2**31:
                row = await info.context.one("groups_by_id", key, environment)
                return None if row is None else Group.of(row)
            case ["Stock", str(environment), str(symbol)]:
                return await _stock(info, symbol, environment)
            case _:
                return None


async def _stock(info: Info, symbol: str, environment: str) -> Stock | None:
    row = await info.context.one("stocks", symbol, environment)
    return None if row is None else Stock.of(row, environment)


def _read_id(written: str) -> object:
    try:
        return orjson.loads(base64.urlsafe_b64decode(written.encode("ascii")))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        return None
