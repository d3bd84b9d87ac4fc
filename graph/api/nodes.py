"""Stock, Group and Membership, which refer to each other, and the root fields that return them."""

import base64
import binascii
import math
from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, TypeAlias

import orjson
import strawberry
from strawberry.scalars import JSON

from graph.api.group_names import check_known, resolve_name
from graph.api.pagination import MAX_PAGE, Connection, page
from graph.api.point_in_time import check_day, check_since
from graph.api.universe_keys import Name
from graph.caching.data_cache import CacheSpec
from graph.errors import InvalidArgument
from graph.execution.columns import LazyObjects, ObjectSet, UniqueObjects
from graph.execution.dataloaders import DataLoader, Key, Row
from graph.execution.operation import Info, Operation
from graph.execution.plans import batch_field
from graph.model import Environment, GroupName, GroupType, Symbols
from graph.prices.closes import Bar, bars
from graph.prices.performance import (
    DEFAULT_WINDOWS,
    PriceChange,
    Weighting,
    Window,
    WindowChange,
    measure_groups,
    measure_stocks,
)

ID: TypeAlias = strawberry.ID

UNIVERSES: CacheSpec[Symbols] = CacheSpec("universes", deserialize=Symbols.from_json)
"""The sorted symbols of a universe, by its canonical key written in the ids of its groups."""

strawberry.enum(Environment)
strawberry.enum(GroupType)


# looking a member up in a dict is ten times as fast as calling the enum
_TYPES, _ENVIRONMENTS = {each.value: each for each in GroupType}, {each.value: each for each in Environment}


@strawberry.enum
class GroupOrder(StrEnum):
    """The order of a list of groups."""

    NAME_ASC = "NAME_ASC"
    """Sorted by name."""
    MEMBER_COUNT_DESC = "MEMBER_COUNT_DESC"
    """Sorted by number of members, largest first; ties by name."""


@strawberry.enum
class MemberOrder(StrEnum):
    """The order of a list of members."""

    WEIGHT_DESC = "WEIGHT_DESC"
    """Sorted by weight, largest first and null last; ties by symbol."""
    SYMBOL_ASC = "SYMBOL_ASC"
    """Sorted by symbol."""


@strawberry.interface
class Node:
    """An object with a globally unique id."""

    environment_name: strawberry.Private[str]
    key: strawberry.Private[str | int]  # unique within the type and environment
    day: strawberry.Private[date | None]  # UTC date that it and everything below it is shown as of; None means now

    @batch_field
    @staticmethod
    async def id(nodes: ObjectSet, operation: Operation) -> list[ID]:
        """An opaque id, accepted by `node`; it includes the environment, and the `asOf` date if there is one."""
        return await operation.compute(200 * len(nodes), _write_ids, nodes)


def _write_ids(nodes: ObjectSet) -> list[ID]:
    name, environment, day = nodes.of.__name__, nodes.first("environment_name"), nodes.first("day")
    beginning, end = [name, environment], [day] if day else []
    return [ID(base64.urlsafe_b64encode(orjson.dumps([*beginning, key, *end])).decode()) for key in nodes.values("key")]


@strawberry.type
class Stock(Node):
    """A stock, identified by its symbol, and the groups that hold it."""

    symbol: str
    """The ticker symbol; a share class follows a dot, as in `BRK.B`."""
    row: strawberry.Private[Row | None]  # with the name and industry; None if they are still to be loaded

    @classmethod
    def of(cls, row: Row, environment: str, day: date | None) -> "Stock":
        """Build a stock from a row with its columns."""
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

    @batch_field
    @staticmethod
    async def name(stocks: ObjectSet, operation: Operation) -> list[str | None]:
        """The name of the company; null if unknown."""
        return await Stock._details(stocks, operation, "stock_name")

    @batch_field
    @staticmethod
    async def industry(stocks: ObjectSet, operation: Operation) -> list[str | None]:
        """The industry within the sector; null if unknown."""
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

    @batch_field
    @staticmethod
    async def sector(stocks: ObjectSet, operation: Operation) -> "list[Group | None]":
        """The SECTOR group that holds the stock; null if none does."""
        answers = await Stock._held(stocks, operation, [GroupType.SECTOR])
        return [held.groups[0] if held.groups else None for held in answers]

    @batch_field
    @staticmethod
    async def groups(
        stocks: ObjectSet, operation: Operation, type: Sequence[GroupType] | None = None
    ) -> "list[list[Group]]":
        """The groups that hold the stock: largest weight of the stock first, then by name.

        Args:
            type: The types of the groups; defaults to all.

        """
        return [held.groups for held in await Stock._held(stocks, operation, type)]

    @batch_field
    @staticmethod
    async def memberships(
        stocks: ObjectSet, operation: Operation, type: Sequence[GroupType] | None = None
    ) -> "list[Sequence[Membership]]":
        """The memberships of the stock in groups: largest weight first, then by the group's name.

        Args:
            type: The types of the groups; defaults to all.

        """
        answers = await Stock._held(stocks, operation, type)
        return [
            LazyObjects(Membership, {"weight": held.weights, "group": UniqueObjects(held.groups)}, symbol=symbol)
            for symbol, held in zip(stocks.values("symbol"), answers, strict=True)
        ]

    @batch_field
    @staticmethod
    async def performance(
        stocks: ObjectSet,
        operation: Operation,
        windows: Sequence[Window] | None = DEFAULT_WINDOWS,
        as_of: date | None = None,
    ) -> Sequence[Sequence[PriceChange]]:
        """The change of the stock's close over windows of sessions.

        Args:
            windows: The windows, in the order of the result. A repeated window counts once.
            as_of: The windows end with the last session on or before this date; defaults to the parent's `asOf`, else
                the latest session.

        """
        return await measure_stocks(operation, stocks.values("symbol"), windows, as_of or stocks.first("day"))

    @strawberry.field
    async def prices(
        self,
        info: Info,
        first: Annotated[date | None, strawberry.argument(name="from")] = None,
        last: Annotated[date | None, strawberry.argument(name="to")] = None,
    ) -> list[Bar]:
        """The daily prices of the stock, ascending by date; at most 5,000 days.

        Args:
            first: The first date; without it, the last 252 days with a price are returned.
            last: The last date; defaults to the parent's `asOf`, else the latest date.

        """
        return await bars(info, self.symbol, first, last or self.day)


@strawberry.type
class Exposure:
    """The share of a group that lies in another group."""

    group: "Group | None"
    """The other group; null for the members that are in no group of the type."""
    weight: float | None
    """The sum of these members' weights, a fraction; overlapping groups may exceed the total. Null if none has one."""
    count: int
    """The number of these members."""


@strawberry.type
class Group(Node):
    """A named set of stocks: an ETF's holdings, a sector, a theme, an index universe."""

    name: str
    """The name as spelled in the database; look-ups ignore case."""
    type: GroupType
    """The type of the group."""
    description: str | None
    """A description of the group; null if there is none."""
    environment: Environment
    """The environment that the group belongs to."""
    timestamps: strawberry.Private[tuple[datetime | None, datetime | None, datetime | None]]

    @classmethod
    def of(cls, row: Row, day: date | None) -> "Group":
        """Build a group from a row with its columns."""
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
        """The UTC date (end of day) this group and everything below it is shown as of; null means now."""
        return self.day

    async def _document(self, info: Info, name: str) -> JSON | None:
        row = await info.context.load_row("group_details", self.key, as_of=self.day)
        return None if row is None or row[name] is None else JSON(orjson.loads(row[name]))

    @strawberry.field
    async def metadata(self, info: Info) -> JSON | None:
        """Metadata from the source of the group; null if there is none."""
        return await self._document(info, "metadata")

    @strawberry.field
    async def liquidity_filter(self, info: Info) -> JSON | None:
        """The liquidity filter that the members passed; null if there is none."""
        return await self._document(info, "liquidity_filter")

    @strawberry.field
    def created_at(self, info: Info) -> datetime | None:
        """The UTC time the group was created; null if unknown."""
        return info.context.utc(self.timestamps[0])

    @strawberry.field
    def updated_at(self, info: Info) -> datetime | None:
        """The UTC time the group itself, not its members, last changed; null if unknown."""
        return info.context.utc(self.timestamps[1])

    @strawberry.field
    def last_update(self, info: Info) -> datetime | None:
        """The UTC time the members were last loaded; null if unknown."""
        return info.context.utc(self.timestamps[2])

    async def _count(self, info: Info) -> int:
        row = await info.context.load_row("member_counts", self.key, as_of=self.day)
        return row["total"] if row else 0

    @batch_field
    @staticmethod
    async def member_count(groups: ObjectSet, operation: Operation) -> list[int]:
        """The number of members."""
        answers = await operation.load_rows_many(
            "member_counts", [(key,) for key in groups.values("key")], as_of=groups[0].day
        )
        return [rows[0]["total"] if rows else 0 for rows in answers]

    @strawberry.field
    async def total_weight(self, info: Info) -> float | None:
        """The sum of the members' weights, a fraction: near 1 if complete; null if no member has a weight."""
        row = await info.context.load_row("total_weights", self.key, as_of=self.day)
        return row["total"] if row else None

    @strawberry.field
    async def symbols(self, info: Info) -> Sequence[str]:
        """The symbols of all members, sorted."""
        operation = info.context
        found = await operation.cached_rows(
            UNIVERSES, str(self.key), _symbols, "group_symbols", [(self.key,)], as_of=self.day
        )
        operation.charge(len(found))
        return found

    @strawberry.field
    async def members(
        self,
        info: Info,
        first: int | None = None,
        after: str | None = None,
        order_by: MemberOrder | None = MemberOrder.WEIGHT_DESC,
    ) -> "Connection[Membership]":
        """The members of the group.

        Args:
            first: The maximum number of members, up to the server's cap of 5,000, which is also the default.
            after: The `endCursor` of the previous page.
            order_by: The order of the members.

        """
        operation = info.context
        statement, columns = _MEMBER_ORDERS[order_by or MemberOrder.WEIGHT_DESC]
        request = page(first, after, tuple(columns.values()), statement, self.key, self.day)
        key = (self.key, request.rows, *(request.after or [None] * len(columns)))
        ((row,),) = await operation.load_many(DataLoader(statement, self.day), [key])
        symbols = Symbols.of(row["symbols"])
        operation.charge(len(symbols))
        members = LazyObjects(Membership, {"symbol": symbols, "weight": row["weights"]}, group=self)
        order = [symbols if column == "symbols" else row[column] for column in columns]
        return request.connection(members, order, self._count)

    @strawberry.field
    async def exposure(self, info: Info, by: GroupType | None = GroupType.SECTOR) -> list[Exposure] | None:
        """The share of the group that lies in each group of a type: largest weight first, then by count and name.

        Args:
            by: The type of the other groups.

        """
        rows = await info.context.load_rows(
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

    @batch_field
    @staticmethod
    async def performance(
        groups: ObjectSet,
        operation: Operation,
        windows: Sequence[Window] | None = DEFAULT_WINDOWS,
        weighting: Weighting | None = Weighting.WEIGHT,
        as_of: date | None = None,
    ) -> Sequence[Sequence[WindowChange]]:
        """The average change of the members over windows of sessions.

        Args:
            windows: The windows, in the order of the result. A repeated window counts once.
            weighting: The weights of the members. WEIGHT counts them the same if none has a weight.
            as_of: The windows end with the last session on or before this date; defaults to the parent's `asOf`, else
                the latest session.

        """
        return await measure_groups(operation, groups.values("key"), groups.first("day"), windows, weighting, as_of)

    @strawberry.field
    async def changes(self, info: Info, since: date) -> "GroupChanges | None":
        """The members that joined, left or were reweighted since the end of a day.

        Args:
            since: The UTC date; the error before the first known day of the group is NO_HISTORY.

        """
        operation = info.context
        today = await check_day(operation, "since", since)
        if self.day and since > self.day:
            raise InvalidArgument(f"since: {since} is after {self.day}, the day that the group is asked of.")
        known = await operation.load_row("groups_known_since", self.key)
        check_since(self.name, known["since"] if known else None, since)
        rows = await operation.load_rows("member_changes", self.key, since, self.day or today)
        changes = [MemberChange.of(row, Stock.of(row, self.environment_name, self.day)) for row in rows]
        return GroupChanges(
            since=since,
            joined=[change for change in changes if not change.was_member],
            left=[change for change in changes if not change.is_member],
            reweighted=[change for change in changes if change.was_member and change.is_member],
        )


@strawberry.type
class MemberChange:
    """A member that joined, left or was reweighted."""

    symbol: str
    """The symbol of the stock."""
    stock: Stock
    """The stock."""
    day: date
    """The UTC date the stock joined, left, or got its later weight."""
    before: float | None
    """The weight at the end of the earlier day, a fraction; null if unknown or not a member."""
    after: float | None
    """The weight at the later time, a fraction; null if unknown or not a member."""
    was_member: strawberry.Private[bool]
    is_member: strawberry.Private[bool]

    @classmethod
    def of(cls, row: Row, stock: Stock) -> "MemberChange":
        """Build a change from a row with its columns."""
        return cls(
            symbol=row["symbol"],
            stock=stock,
            day=row["day"],
            before=row["before"],
            after=row["after"],
            was_member=row["was_member"],
            is_member=row["is_member"],
        )


@strawberry.type
class GroupChanges:
    """Changes of a group's members between the end of a day and a later time. Each list is sorted by symbol."""

    since: date
    """The earlier day, a UTC date."""
    joined: list[MemberChange]
    """Members at the later time that were not members before."""
    left: list[MemberChange]
    """Members of the earlier day that are not members any more."""
    reweighted: list[MemberChange]
    """Members at both times whose weight changed."""


_MEMBER_ORDERS: dict[MemberOrder, tuple[str, dict[str, type | tuple[type, ...]]]] = {
    MemberOrder.WEIGHT_DESC: ("members_by_weight", {"weights": (float, type(None)), "symbols": str, "ids": int}),
    MemberOrder.SYMBOL_ASC: ("members_by_symbol", {"symbols": str, "ids": int}),
}
"""Statement of each order, and its sort columns with the types of their values in a cursor."""


def _written(types: Sequence[GroupType] | None) -> tuple[str, ...] | None:
    return None if types is None else tuple(sorted(set(map(str, types))))


class StockGroups(NamedTuple):
    """The groups that hold a stock, heaviest first and then by name, and its weight in each."""

    groups: list[Group]
    weights: list[float | None]


def _group_by_stock(loader: DataLoader, keys: Sequence[Key], rows: list[Row]) -> list[StockGroups]:
    """Return the groups of each stock."""
    grouped = {symbol: StockGroups([], []) for (symbol,) in keys}
    for row in rows:
        group = Group.of(row, loader.as_of)
        for symbol, weight in zip(row["symbols"], row["weights"], strict=True):
            held = grouped[symbol]
            held.groups.append(group)
            held.weights.append(weight)
    return list(map(_heaviest_first, grouped.values()))


def _heaviest_first(held: StockGroups) -> StockGroups:
    weights = held.weights
    if len(weights) < 2:  # noqa: PLR2004 - nothing to sort
        return held
    # sorted() is stable, so equal weights stay ordered by name
    places = sorted(range(len(weights)), key=lambda place: math.inf if (w := weights[place]) is None else -w)
    return StockGroups([held.groups[place] for place in places], [weights[place] for place in places])


def stocks_of(symbols: Sequence[str], environment: str, day: date | None) -> LazyObjects:
    """Return stocks that are known to exist."""
    return LazyObjects(Stock, {"symbol": symbols, "key": symbols}, environment_name=environment, day=day, row=None)


def _symbols(answers: list[list[Row]]) -> Symbols:
    return Symbols.of(answers[0][0]["symbols"])


@strawberry.type
class Membership:
    """The membership of a stock in a group, with its weight."""

    symbol: str
    """The symbol of the stock."""
    weight: float | None
    """The weight, a fraction of the group (0.065 = 6.5 %); null if unknown."""
    group: Group
    """The group that the stock is a member of."""

    @batch_field
    @staticmethod
    async def stock(memberships: ObjectSet, _: Operation) -> Sequence[Stock]:
        """The stock that is a member of the group."""
        group = memberships.first("group")
        return stocks_of(memberships.values("symbol"), group.environment_name, group.day)

    @batch_field
    @staticmethod
    async def rank(memberships: ObjectSet, operation: Operation) -> list[int]:
        """The rank by weight among all members of the group, from 1 for the heaviest."""
        answers = await Membership._rows_of(memberships, operation, "member_ranks")
        return [rows[0]["rank"] if rows else 0 for rows in answers]

    @staticmethod
    async def _rows_of(memberships: ObjectSet, operation: Operation, statement: str) -> list[list[Row]]:
        groups = memberships.values("group")
        keys = [(group.key, symbol) for group, symbol in zip(groups, memberships.values("symbol"), strict=True)]
        return await operation.load_rows_many(statement, keys, as_of=groups[0].day)

    @staticmethod
    async def _details(memberships: ObjectSet, operation: Operation, name: str) -> list[Any]:
        if memberships.first("group").day:
            # the history has no such columns
            return [None] * len(memberships)
        answers = await Membership._rows_of(memberships, operation, "membership_details")
        return [rows[0][name] if rows else None for rows in answers]

    @batch_field
    @staticmethod
    async def added_at(memberships: ObjectSet, operation: Operation) -> list[datetime | None]:
        """The UTC time the membership was added; null if unknown, and for a past `asOf`."""
        return list(map(operation.utc, await Membership._details(memberships, operation, "added_at")))

    @batch_field
    @staticmethod
    async def updated_at(memberships: ObjectSet, operation: Operation) -> list[datetime | None]:
        """The UTC time the membership last changed; null if unknown, and for a past `asOf`."""
        return list(map(operation.utc, await Membership._details(memberships, operation, "updated_at")))

    @batch_field
    @staticmethod
    async def metadata(memberships: ObjectSet, operation: Operation) -> list[JSON | None]:
        """Metadata from the source of the membership; null if there is none, and for a past `asOf`."""
        texts = await Membership._details(memberships, operation, "metadata")
        return [None if text is None else JSON(orjson.loads(text)) for text in texts]


@strawberry.type
class NodesQuery:
    """Root fields of groups and stocks."""

    @strawberry.field
    async def group(
        self,
        info: Info,
        name: str,
        type: GroupType | None = None,
        environment: Environment | None = None,
        as_of: date | None = None,
    ) -> Group | None:
        """A group by its name, ignoring case; null if there is none.

        Args:
            name: The name of the group.
            type: The type of the group, needed only if groups of several types have the name.
            environment: The environment of the groups; defaults to the server's setting.
            as_of: The UTC date (end of day) that the group and everything below it is shown as of; defaults to now. The
                error before the first known day of the group is NO_HISTORY.

        """
        operation = info.context
        if as_of:
            await check_day(operation, "asOf", as_of)
        named = environment or operation.environment
        rows = await operation.load_rows("groups_named", name, named, as_of=as_of)
        groups = {GroupName(row["id"], row["name"], row["type"]): row for row in rows if type in (None, row["type"])}
        asked = Name(type, name, length=len(name))
        chosen = resolve_name(asked, list(groups))
        if chosen is None and as_of:
            await check_known(operation, [asked], named, as_of)
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
    ) -> Connection[Group] | None:
        """The groups of an environment.

        Args:
            type: The types of the groups; defaults to all.
            search: A text that the name or description contains, ignoring case.
            min_members: The minimum number of members.
            max_members: The maximum number of members.
            order_by: The order of the groups.
            first: The maximum number of groups, up to the server's cap of 5,000, which is also the default.
            after: The `endCursor` of the previous page.
            environment: The environment of the groups; defaults to the server's setting.

        """
        operation = info.context
        types = _written(type)
        filters = [environment or operation.environment, types, search, min_members, max_members]
        by_count = order_by is GroupOrder.MEMBER_COUNT_DESC
        columns = ("name", "id", "member_count") if by_count else ("name", "id")
        request = page(first, after, (str, int, int)[: len(columns)], "groups", by_count, *filters)
        rows = await operation.fetch(
            "groups_by_member_count" if by_count else "groups_by_name",
            *filters,
            request.rows,
            *(request.after or [None] * len(columns)),
        )

        async def count(info: Info) -> int:
            (row,) = await info.context.fetch("groups_count", *filters)
            total: int = row["total"]
            return total

        order = [[row[column] for row in rows] for column in columns]
        return request.connection([Group.of(row, None) for row in rows], order, count)

    @strawberry.field
    async def stock(self, info: Info, symbol: str, environment: Environment | None = None) -> Stock | None:
        """A stock by its symbol, ignoring case; null if unknown.

        Args:
            symbol: The symbol of the stock.
            environment: The environment of the groups; defaults to the server's setting.

        """
        return await _stock(info, symbol, environment or info.context.environment, None)

    @strawberry.field
    async def stocks(
        self, info: Info, symbols: list[str], environment: Environment | None = None
    ) -> list[Stock | None] | None:
        """Stocks by their symbols, in the order given; null for each unknown symbol.

        Args:
            symbols: The symbols of the stocks, ignoring case; up to 5,000.
            environment: The environment of the groups; defaults to the server's setting.

        """
        if len(symbols) > MAX_PAGE:
            raise InvalidArgument(f"symbols: {len(symbols):,} are more than {MAX_PAGE:,}; ask for fewer at a time.")
        named = environment or info.context.environment
        answers = await info.context.load_rows_many("stocks", [(symbol, named) for symbol in symbols])
        return [Stock.of(rows[0], named, None) if rows else None for rows in answers]

    @strawberry.field
    async def node(self, info: Info, id: ID) -> Node | None:
        """An object by its id; null if there is none.

        Args:
            id: The id, as returned by the `id` field.

        """
        match _read_id(id):
            case [str(kind), str(environment), key, date() | None as day] if environment in list(Environment):
                if day:
                    await check_day(info.context, "id", day)
                match kind, key:
                    case "Group", int() if 0 < key < 2**31:
                        row = await info.context.load_row("groups_by_id", key, environment, as_of=day)
                        return None if row is None else Group.of(row, day)
                    case "Stock", str():
                        return await _stock(info, key, environment, day)
        return None


async def _stock(info: Info, symbol: str, environment: str, day: date | None) -> Stock | None:
    row = await info.context.load_row("stocks", symbol, environment, as_of=day)
    return None if row is None else Stock.of(row, environment, day)


def _read_id(written: str) -> tuple[object, object, object, date | None] | None:
    """Return the type, environment, key and day encoded in an id; None if it is not an id of this server."""
    try:
        kind, environment, key, *days = orjson.loads(base64.urlsafe_b64decode(written.encode("ascii")))
        (day,) = map(date.fromisoformat, days) if days else (None,)
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError, TypeError, ValueError):
        return None
    return kind, environment, key, day
