"""Checked rows -> one transaction -> a diff: the one way to write a group.

Every timestamp written is UTC, whatever the time zone of the session. However many members a group has, none of this
keeps more than a few thousand of them in memory.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from itertools import groupby
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg

from graph.errors import DatabaseUnavailable, InputFileError, StockgraphError
from graph.loading.files import Progress
from graph.loading.holdings import MAX_KEPT, GroupHoldings, MembershipPeriod
from graph.loading.vendors import read_day
from graph.postgres.database import Connection
from graph.postgres.statements import read_statements

LISTED = 5_000
"""Changes of one kind that a diff lists: every fund's, whole."""
_ROWS_BETWEEN = 5_000  # two words to who follows the progress

_SQL = read_statements("graph.loading", "group_writer.sql")
_DESCRIBE_SYMBOLS = {
    ("industry", "name"): _SQL["describe_names_and_industries"],
    ("industry",): _SQL["describe_industries"],
    ("name",): _SQL["describe_names"],
}
"""The statement that describes stocks, by the columns that the table of symbols has."""

T = TypeVar("T")
Names = dict[str, tuple[str | None, str | None]]
"""The names and industries of stocks, by symbol."""


# no rounding but that to the column's decimals
_ROUNDING = Context(prec=1_000, rounding=ROUND_HALF_EVEN)


class GroupRefused(StockgraphError):
    """A group that this database does not take as it is; nothing of it was written."""


@dataclass(frozen=True, slots=True)
class Reweighting:
    """A member that stayed with another weight."""

    symbol: str
    old: Decimal | None
    new: Decimal | None


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """Changes of one kind, of which a group may have any number."""

    total: int = 0
    first: tuple[T, ...] = ()
    """No more than LISTED, by symbol."""


@dataclass(frozen=True, slots=True)
class GroupDiff:
    """What a load changed in one group."""

    type: str
    name: str
    environment: str
    as_of: date | None
    """The day of the holdings; None where none was given, which is today."""
    created: bool
    """The group was not there before."""
    redescribed: bool
    """The group was there, with another description."""
    annotated: bool
    """The group was there, with other metadata, the day of its holdings among them, or another filter."""
    added: Listed[str]
    removed: Listed[str]
    reweighted: Listed[Reweighting]
    unchanged: int
    """Members that stayed as they were."""
    rounded: int
    """Weights with more decimals than the database keeps."""
    zeroed: Listed[str]
    """Members whose weight became zero by that."""
    symbols_changed: int
    """Rows of the table of symbols that were written."""

    @property
    def changed(self) -> bool:
        """Whether the group or its members differ from before."""
        told = self.created or self.redescribed or self.annotated
        return bool(told or self.added.total or self.removed.total or self.reweighted.total)


class _Tables(NamedTuple):
    """What matters here of the tables as they are, and the day."""

    unit: Decimal | None
    """Of the last decimal of a weight; None where a weight keeps all."""
    limit: Decimal
    """A weight lies between this and its negative."""
    own_symbols: bool
    """The table of symbols is ours, so that rows may be added to it."""
    described: tuple[str, ...]
    """Which of its columns can be written."""
    history: bool
    """What groups held on past days is kept."""
    today: date
    """In UTC."""


async def load_groups(
    connection: Connection,
    groups: Iterable[GroupHoldings],
    *,
    environment: str,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> AsyncGenerator[GroupDiff | GroupRefused, None]:
    """Replace each group in a transaction of its own, and yield what became of it: its diff, or why it was refused.

    Where groups call a stock differently, the first counts, so that the same load again finds nothing to write; of a
    group that comes several times, one day after another, the last. A dry run yields the same and writes nothing. The
    connection should set no timeout for statements: a load may wait for another.
    """
    names: Names = {}
    for _, days in groupby(groups, lambda group: (group.type, group.name)):
        *earlier, latest = days
        async with AsyncExitStack() as stack:
            if dry_run:
                transaction = connection.transaction(isolation="read_committed")
                await transaction.start()
                stack.push_async_callback(transaction.rollback)
            for group in (*earlier, latest):
                known = names if group is latest else names.copy()
                outcome: GroupDiff | GroupRefused
                try:
                    outcome = await replace_group(
                        connection, group, environment=environment, names=known, progress=progress
                    )
                except GroupRefused as error:
                    outcome = error
                yield outcome


async def replace_group(
    connection: Connection,
    group: GroupHoldings,
    *,
    environment: str,
    names: Names | None = None,
    progress: Progress | None = None,
) -> GroupDiff:
    """Make a group what `group` says, in one transaction (a savepoint within the caller's), and tell what changed.

    It takes effect on the day of the holdings, which is kept in the group's metadata as `as_of`. Names and industries
    go to the table of symbols, where a None leaves what is known; what `names` holds goes before, and what is written
    is added to it. Rows that are right already are not written. GroupRefused says why the database does not take the
    group; one reason is a day before the latest on which anything of the group changed, unless that is of the demo.
    """
    incoming = _Incoming(group, names or {}, progress)
    try:
        async with connection.transaction(isolation="read_committed"):
            diff = await _replace(connection, group, environment, incoming)
    except InputFileError as error:
        raise GroupRefused(f"{group.type} {group.name}: {error}") from error
    except (asyncpg.PostgresError, UnicodeEncodeError) as error:
        if reason := _refusal(group, environment, error):
            raise GroupRefused(f"{group.type} {group.name}: {reason}.") from error
        raise
    if names is not None:
        names |= incoming.news
    return diff


class _Incoming:
    """The rows of a group on their way into the database, and what was seen of them."""

    def __init__(self, group: GroupHoldings, names: Names, progress: Progress | None) -> None:
        self.group = group
        self.names = names
        self.progress = progress
        self.news: Names = {}
        """What stocks are called that `names` does not tell."""
        self.count = 0
        self.rounded = 0
        self.zeroed = 0
        self.first_zeroed: list[str] = []

    def tell(self, what: str, done: int, of: int | None) -> None:
        """Say how far the group is."""
        if self.progress:
            self.progress(f"{what} {self.group.type} {self.group.name}", done, of)

    def records(self, tables: _Tables) -> Iterator[tuple[str, Decimal | None, str | None, str | None, bool]]:
        """Yield each member: its weight as the database keeps it, its name and its industry, whether they are news."""
        room = MAX_KEPT - len(self.names)
        for holding in self.group.holdings:
            if self.count % _ROWS_BETWEEN == 0:
                self.tell("Copying", self.count, len(self.group.holdings))
            self.count += 1
            told = self.names.get(holding.symbol)
            name, industry = told or (None, None)
            called = name or holding.name, industry or holding.industry
            if called != told and len(self.news) < room:
                self.news[holding.symbol] = called
            yield holding.symbol, self.at_scale(holding.symbol, holding.weight, tables), *called, called != told

    def at_scale(self, symbol: str, weight: Decimal | None, tables: _Tables) -> Decimal | None:
        """Round a weight to what the database keeps; GroupRefused where it cannot."""
        if weight is None:
            return None
        fits = weight.is_finite() and abs(weight) < tables.limit
        kept = weight.quantize(tables.unit, context=_ROUNDING) if fits and tables.unit is not None else weight
        if not fits or abs(kept) >= tables.limit:
            limits = f"a number between -{tables.limit} and {tables.limit}"
            raise GroupRefused(f"{self.group.type} {self.group.name}: the weight {weight} of {symbol} is not {limits}.")
        self.rounded += kept != weight
        if weight and not kept:
            self.zeroed += 1
            if self.zeroed <= LISTED:
                self.first_zeroed.append(symbol)
        return kept


async def _replace(connection: Connection, group: GroupHoldings, environment: str, incoming: _Incoming) -> GroupDiff:
    tables = await _read_tables(connection)
    if group.as_of and group.as_of > tables.today:
        reason = f"the holdings are of {group.as_of}, a day to come; --as-of says from when on they hold"
        raise GroupRefused(f"{group.type} {group.name}: {reason}.")
    await _copy(connection, group, incoming, tables)
    await connection.fetchval(_SQL["set_effective_day"], str(group.as_of or ""))
    key = (group.type, group.name, environment)
    metadata = dict(group.metadata or {}) | ({"as_of": str(group.as_of)} if group.as_of else {})
    liquidity_filter = None if group.liquidity_filter is None else json.dumps(group.liquidity_filter)
    told = (group.description, json.dumps(metadata), liquidity_filter)
    row, created = await _find_group(connection, group.as_of, key, told, tables)
    changes = await connection.fetch(_SQL["merge_members"], row["id"], LISTED)
    added, removed = (_listed(changes, kind, lambda change: str(change["symbol"])) for kind in ("added", "removed"))
    reweighted = _listed(
        changes, "reweighted", lambda change: Reweighting(change["symbol"], change["old"], change["new"])
    )
    said = None
    if not created:
        # the day, where members of no known day replace others; that it is of the demo, where anything is loaded
        forget = ["stockgraph"] if row["demo"] else []
        forget += ["as_of"] if changes and not group.as_of else []
        said = await connection.fetchrow(_SQL["update_group"], row["id"], bool(changes), *told, forget)
    elif group.past and tables.history:
        await _begin_earlier(connection, row["id"], group.past)
    # last, since groups share stocks: whoever waits for these rows waits for the end of this transaction
    symbols_changed = 0
    if tables.own_symbols:
        symbols_changed += await connection.fetchval(_SQL["add_symbols"])
    if tables.described:
        symbols_changed += await connection.fetchval(_DESCRIBE_SYMBOLS[tables.described])
    await connection.execute(_SQL["drop_incoming"])
    return GroupDiff(
        *key,
        as_of=group.as_of,
        created=created,
        redescribed=bool(said and said["redescribed"]),
        annotated=bool(said and said["annotated"]),
        added=added,
        removed=removed,
        reweighted=reweighted,
        unchanged=incoming.count - added.total - reweighted.total,
        rounded=incoming.rounded,
        zeroed=Listed(incoming.zeroed, tuple(sorted(incoming.first_zeroed))),
        symbols_changed=symbols_changed,
    )


async def _copy(connection: Connection, group: GroupHoldings, incoming: _Incoming, tables: _Tables) -> None:
    """Bring the members to the database; GroupRefused where one is there twice."""
    await connection.execute(_SQL["create_incoming"])
    columns = ("symbol", "weight", "name", "industry", "is_new")
    records = incoming.records(tables)
    await copied(
        connection,
        connection.copy_records_to_table(
            "stockgraph_incoming", schema_name="pg_temp", columns=columns, records=records
        ),
    )
    incoming.tell("Merging", 0, None)
    try:
        await connection.execute(_SQL["index_incoming"])
    except asyncpg.UniqueViolationError as error:
        symbol = str(error.detail).partition("=(")[2].rpartition(")")[0]
        raise GroupRefused(f"{group.type} {group.name}: symbol {symbol} is given twice.") from error


async def copied(connection: Connection, copy: Coroutine[Any, Any, str]) -> None:
    """Await a copy into a table.

    By asyncpg alone, one that waits to write when the connection is lost would wait for ever.
    """
    copying = asyncio.ensure_future(copy)

    def stop(_: object) -> None:
        copying.cancel()

    connection.add_termination_listener(stop)
    try:
        await copying
    except asyncio.CancelledError:
        if not connection.is_closed():
            raise
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost while rows were copied") from None
    finally:
        connection.remove_termination_listener(stop)


def _listed(changes: Sequence[asyncpg.Record], kind: str, item: Callable[[asyncpg.Record], T]) -> Listed[T]:
    of_kind = [change for change in changes if change["change"] == kind]
    return Listed(of_kind[0]["total"] if of_kind else 0, tuple(map(item, of_kind)))


async def _find_group(
    connection: Connection, as_of: date | None, key: tuple[str, str, str], told: tuple[Any, ...], tables: _Tables
) -> tuple[asyncpg.Record, bool]:
    """Lock a group, or make it, and say whether it was made; refuse holdings that are older than it is."""
    created = False
    while not (row := await connection.fetchrow(_SQL["lock_group"], *key)):
        if row := await connection.fetchrow(_SQL["create_group"], *key, *told):
            created = True
            break
    days = [read_day(row["as_of"] or "")]
    if tables.history:
        days.append(await connection.fetchval(_SQL["last_change_day"], row["id"], *key, created))
    # a day to come can only be somebody's mistake
    newest = max((day for day in days if day and day <= tables.today), default=None)
    if as_of and newest and as_of < newest:
        if not row["demo"]:
            there = "the end of the former group of that name" if created else "what is here"
            raise GroupRefused(
                f"{key[0]} {key[1]}: the holdings are of {as_of}, older than {there} ({newest});"
                f" --as-of {newest} or later takes them as of then."
            )
        await connection.execute(_SQL["delete_group"], row["id"])
        if tables.history:
            await connection.execute(_SQL["delete_history"], row["id"])
        row, created = await connection.fetchrow(_SQL["create_group"], *key, *told), True
        assert row  # noqa: S101 - its place is this transaction's
    return row, created


async def _begin_earlier(connection: Connection, group_id: int, past: Sequence[MembershipPeriod]) -> None:
    """Give a group that was made just now the past that its source tells."""
    columns = ("group_id", "symbol", "valid_from", "valid_to")
    ended = ((group_id, *spell) for spell in past if spell.valid_to)
    await copied(connection, connection.copy_records_to_table("membership_history", columns=columns, records=ended))
    lasting = [spell for spell in past if not spell.valid_to]
    symbols, days = [spell.symbol for spell in lasting], [spell.valid_from for spell in lasting]
    await connection.execute(_SQL["backdate_members"], group_id, symbols, days)
    await connection.execute(_SQL["backdate_group"], group_id, min(spell.valid_from for spell in past))


async def _read_tables(connection: Connection) -> _Tables:
    (row,) = await connection.fetch(_SQL["inspect_tables"])
    if row["missing"]:
        missing = ", ".join(row["missing"])
        raise DatabaseUnavailable(f"The database lacks tables ({missing}); `stockgraph init` makes what is missing.")
    unit, limit = None, Decimal("Infinity")
    if numeric := re.fullmatch(r"numeric\((\d+),(-?\d+)\)", row["weight"]):
        precision, scale = int(numeric[1]), int(numeric[2])
        unit, limit = Decimal(1).scaleb(-scale), Decimal(10) ** (precision - scale)
    columns = set(row["symbols"])
    described = tuple(column for column in ("industry", "name") if column in columns)
    own_symbols = columns == {"symbol", "name", "industry"}
    return _Tables(unit, limit, own_symbols, described, row["history"], row["today"])


def _refusal(group: GroupHoldings, environment: str, error: Exception) -> str | None:
    """Say why the database refuses a group; None where the fault is not with the group."""
    if isinstance(error, asyncpg.CheckViolationError):
        where = f"the constraint {error.constraint_name} of {error.table_name}"
        what = f"type {group.type} in environment {environment}"
        return f"{where} refuses it ({what}); widen that constraint, or load the group as another type"
    return refusal(error)


def refusal(error: Exception) -> str | None:
    """Say why the database refuses rows; None where the fault is not with them."""
    match error:
        case asyncpg.IntegrityConstraintViolationError():
            why = str(error.detail or error.message).rstrip(".")
            return f"the constraint {error.constraint_name} of {error.table_name} refuses it: {why}"
        case asyncpg.TransactionRollbackError() | asyncpg.LockNotAvailableError():
            return f"another transaction was in the way ({error.message}); load it again"
        case asyncpg.InsufficientPrivilegeError():
            return f"the database does not let this user write it ({error.message})"
        case asyncpg.DataError() | UnicodeEncodeError():
            # the server's, or of the client that encodes for it
            return f"the database cannot hold it ({getattr(error, 'message', None) or error})"
    return None
