"""Checked holdings -> one transaction -> a diff: the only code that writes groups.

Every timestamp written is UTC, whatever the time zone of the session. Members are streamed, so that at most a few
thousand of a group are in memory.
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
"""Maximum changes of one kind that a diff lists; no fund has more."""
_PROGRESS_ROWS = 5_000  # rows between two calls of a progress callback

_SQL = read_statements("graph.loading", "group_writer.sql")
_DESCRIBE_SYMBOLS = {
    ("industry", "name"): _SQL["describe_names_and_industries"],
    ("industry",): _SQL["describe_industries"],
    ("name",): _SQL["describe_names"],
}
"""The statement that describes stocks, by the columns that the table of symbols has."""

T = TypeVar("T")
Names = dict[str, tuple[str | None, str | None]]
"""Names and industries of stocks, by symbol."""


# no rounding but that to the column's decimals
_ROUNDING = Context(prec=1_000, rounding=ROUND_HALF_EVEN)


class GroupRefused(StockgraphError):
    """The database does not accept a group; nothing of it was written."""


@dataclass(frozen=True, slots=True)
class Reweighting:
    """A member whose weight changed."""

    symbol: str
    old: Decimal | None
    new: Decimal | None


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """Any number of changes of one kind, the first of which are listed."""

    total: int = 0
    first: tuple[T, ...] = ()
    """At most LISTED, by symbol."""


@dataclass(frozen=True, slots=True)
class GroupDiff:
    """Changes that a load made to one group."""

    type: str
    name: str
    environment: str
    as_of: date | None
    """Day of the holdings; None if none was given, which means today."""
    created: bool
    """True if the group is new."""
    redescribed: bool
    """True if the group existed with another description."""
    annotated: bool
    """True if the group existed with another filter or other metadata, including the day of its holdings."""
    added: Listed[str]
    removed: Listed[str]
    reweighted: Listed[Reweighting]
    unchanged: int
    """Number of members that did not change."""
    rounded: int
    """Number of weights with more decimals than the database stores."""
    zeroed: Listed[str]
    """Members whose weight was rounded to zero."""
    symbols_changed: int
    """Number of rows written to the table of symbols."""

    @property
    def changed(self) -> bool:
        """True if the group or its members changed."""
        own = self.created or self.redescribed or self.annotated
        return bool(own or self.added.total or self.removed.total or self.reweighted.total)


class _Tables(NamedTuple):
    """Properties of the tables as they are in this database, and today's date."""

    quantum: Decimal | None
    """One unit of the last decimal of a weight; None if weights have any number of decimals."""
    weight_limit: Decimal
    """Exclusive bound of the absolute value of a weight."""
    own_symbols: bool
    """True if the table of symbols is stockgraph's, so that rows may be added to it."""
    symbol_columns: tuple[str, ...]
    """Columns of the table of symbols that can be written."""
    history: bool
    """True if there is a history that can be read."""
    today: date
    """Today's date in UTC."""


async def load_groups(
    connection: Connection,
    groups: Iterable[GroupHoldings],
    *,
    environment: str,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> AsyncGenerator[GroupDiff | GroupRefused, None]:
    """Replace each group in a transaction of its own, and yield its diff, or the reason why it was refused.

    If groups name a stock differently, the first counts, so that repeating the load writes nothing; if a group comes
    several times, one day after another, its last names count. A dry run yields the same and writes nothing. The
    connection should have no statement timeout, since a load may wait for another.
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
    """Replace a group in one transaction (a savepoint within the caller's), and return the changes.

    They take effect on the day of the holdings, which the group's metadata store as `as_of`. Names and industries are
    written to the table of symbols, where None leaves the present value; those in `names` take precedence, and written
    ones are added to it. Rows that do not differ are not written. Raises GroupRefused if the database does not accept
    the group, for instance since its day is before the last change of the group, unless that is the demo's.
    """
    incoming = _IncomingGroup(group, names or {}, progress)
    try:
        async with connection.transaction(isolation="read_committed"):
            diff = await _replace(connection, group, environment, incoming)
    except InputFileError as error:
        raise GroupRefused(f"{group.type} {group.name}: {error}") from error
    except (asyncpg.PostgresError, UnicodeEncodeError) as error:
        if reason := _group_refusal(group, environment, error):
            raise GroupRefused(f"{group.type} {group.name}: {reason}.") from error
        raise
    if names is not None:
        names |= incoming.new_names
    return diff


class _IncomingGroup:
    """The rows of a group on their way into the database, counted and rounded."""

    def __init__(self, group: GroupHoldings, names: Names, progress: Progress | None) -> None:
        self.group = group
        self.names = names
        self.progress = progress
        self.new_names: Names = {}
        """Names and industries that `names` does not have."""
        self.count = 0
        self.rounded = 0
        self.zeroed = 0
        self.first_zeroed: list[str] = []

    def report(self, action: str, done: int, total: int | None) -> None:
        """Report the progress of the group."""
        if self.progress:
            self.progress(f"{action} {self.group.type} {self.group.name}", done, total)

    def records(self, tables: _Tables) -> Iterator[tuple[str, Decimal | None, str | None, str | None, bool]]:
        """Yield symbol, weight as stored, name and industry of each member, and true if one of the latter is new."""
        room = MAX_KEPT - len(self.names)
        for holding in self.group.holdings:
            if self.count % _PROGRESS_ROWS == 0:
                self.report("Copying", self.count, len(self.group.holdings))
            self.count += 1
            known = self.names.get(holding.symbol)
            name, industry = known or (None, None)
            merged = name or holding.name, industry or holding.industry
            if merged != known and len(self.new_names) < room:
                self.new_names[holding.symbol] = merged
            yield holding.symbol, self.rounded_weight(holding.symbol, holding.weight, tables), *merged, merged != known

    def rounded_weight(self, symbol: str, weight: Decimal | None, tables: _Tables) -> Decimal | None:
        """Round a weight to the decimals that the database stores; raise GroupRefused if it is out of range."""
        if weight is None:
            return None
        fits = weight.is_finite() and abs(weight) < tables.weight_limit
        kept = weight.quantize(tables.quantum, context=_ROUNDING) if fits and tables.quantum is not None else weight
        if not fits or abs(kept) >= tables.weight_limit:
            limits = f"a number between -{tables.weight_limit} and {tables.weight_limit}"
            raise GroupRefused(f"{self.group.type} {self.group.name}: the weight {weight} of {symbol} is not {limits}.")
        self.rounded += kept != weight
        if weight and not kept:
            self.zeroed += 1
            if self.zeroed <= LISTED:
                self.first_zeroed.append(symbol)
        return kept


async def _replace(
    connection: Connection, group: GroupHoldings, environment: str, incoming: _IncomingGroup
) -> GroupDiff:
    tables = await _read_tables(connection)
    if group.as_of and group.as_of > tables.today:
        reason = f"the holdings are of {group.as_of}, a day to come; --as-of says from when on they hold"
        raise GroupRefused(f"{group.type} {group.name}: {reason}.")
    await _copy(connection, group, incoming, tables)
    await connection.fetchval(_SQL["set_effective_day"], str(group.as_of or ""))
    key = (group.type, group.name, environment)
    metadata = dict(group.metadata or {}) | ({"as_of": str(group.as_of)} if group.as_of else {})
    liquidity_filter = None if group.liquidity_filter is None else json.dumps(group.liquidity_filter)
    fields = (group.description, json.dumps(metadata), liquidity_filter)
    row, created = await _find_group(connection, group.as_of, key, fields, tables)
    changes = await connection.fetch(_SQL["merge_members"], row["id"], LISTED)
    added, removed = (_listed(changes, kind, lambda change: str(change["symbol"])) for kind in ("added", "removed"))
    reweighted = _listed(
        changes, "reweighted", lambda change: Reweighting(change["symbol"], change["old"], change["new"])
    )
    updated = None
    if not created:
        # whatever is loaded replaces the demo; members without a day end the validity of the present one
        removed_keys = ["stockgraph"] if row["demo"] else []
        removed_keys += ["as_of"] if changes and not group.as_of else []
        updated = await connection.fetchrow(_SQL["update_group"], row["id"], bool(changes), *fields, removed_keys)
    elif group.past and tables.history:
        await _write_past(connection, row["id"], group.past)
    # last, since groups share stocks: other loads wait for these rows until this transaction ends
    symbols_changed = 0
    if tables.own_symbols:
        symbols_changed += await connection.fetchval(_SQL["add_symbols"])
    if tables.symbol_columns:
        symbols_changed += await connection.fetchval(_DESCRIBE_SYMBOLS[tables.symbol_columns])
    await connection.execute(_SQL["drop_incoming"])
    return GroupDiff(
        *key,
        as_of=group.as_of,
        created=created,
        redescribed=bool(updated and updated["redescribed"]),
        annotated=bool(updated and updated["annotated"]),
        added=added,
        removed=removed,
        reweighted=reweighted,
        unchanged=incoming.count - added.total - reweighted.total,
        rounded=incoming.rounded,
        zeroed=Listed(incoming.zeroed, tuple(sorted(incoming.first_zeroed))),
        symbols_changed=symbols_changed,
    )


async def _copy(connection: Connection, group: GroupHoldings, incoming: _IncomingGroup, tables: _Tables) -> None:
    """Copy the members to the database; raise GroupRefused if one occurs twice."""
    await connection.execute(_SQL["create_incoming"])
    columns = ("symbol", "weight", "name", "industry", "is_new")
    records = incoming.records(tables)
    await copied(
        connection,
        connection.copy_records_to_table(
            "stockgraph_incoming", schema_name="pg_temp", columns=columns, records=records
        ),
    )
    incoming.report("Merging", 0, None)
    try:
        await connection.execute(_SQL["index_incoming"])
    except asyncpg.UniqueViolationError as error:
        symbol = str(error.detail).partition("=(")[2].rpartition(")")[0]
        raise GroupRefused(f"{group.type} {group.name}: symbol {symbol} is given twice.") from error


async def copied(connection: Connection, copy: Coroutine[Any, Any, str]) -> None:
    """Await a copy into a table; raise ConnectionDoesNotExistError if the connection is lost.

    By itself, asyncpg would wait for ever if the connection is lost while a copy waits to write.
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
    connection: Connection, as_of: date | None, key: tuple[str, str, str], fields: tuple[Any, ...], tables: _Tables
) -> tuple[asyncpg.Record, bool]:
    """Lock or create a group, and return its row and true if it is new; refuse holdings older than the group."""
    created = False
    while not (row := await connection.fetchrow(_SQL["lock_group"], *key)):
        if row := await connection.fetchrow(_SQL["create_group"], *key, *fields):
            created = True
            break
    days = [read_day(row["as_of"] or "")]
    if tables.history:
        days.append(await connection.fetchval(_SQL["last_change_day"], row["id"], *key, created))
    # days in the future are mistakes
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
        row, created = await connection.fetchrow(_SQL["create_group"], *key, *fields), True
        assert row  # noqa: S101 - this transaction has deleted the other row
    return row, created


async def _write_past(connection: Connection, group_id: int, past: Sequence[MembershipPeriod]) -> None:
    """Write the membership periods of a group that this load created."""
    columns = ("group_id", "symbol", "valid_from", "valid_to")
    ended = ((group_id, *period) for period in past if period.valid_to)
    await copied(connection, connection.copy_records_to_table("membership_history", columns=columns, records=ended))
    lasting = [period for period in past if not period.valid_to]
    symbols, days = [period.symbol for period in lasting], [period.valid_from for period in lasting]
    await connection.execute(_SQL["backdate_members"], group_id, symbols, days)
    await connection.execute(_SQL["backdate_group"], group_id, min(period.valid_from for period in past))


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


def _group_refusal(group: GroupHoldings, environment: str, error: Exception) -> str | None:
    """Say why the database refuses a group; None if the group is not the cause."""
    if isinstance(error, asyncpg.CheckViolationError):
        where = f"the constraint {error.constraint_name} of {error.table_name}"
        what = f"type {group.type} in environment {environment}"
        return f"{where} refuses it ({what}); widen that constraint, or load the group as another type"
    return refusal(error)


def refusal(error: Exception) -> str | None:
    """Say why the database refuses rows; None if they are not the cause."""
    match error:
        case asyncpg.IntegrityConstraintViolationError():
            why = str(error.detail or error.message).rstrip(".")
            return f"the constraint {error.constraint_name} of {error.table_name} refuses it: {why}"
        case asyncpg.TransactionRollbackError() | asyncpg.LockNotAvailableError():
            return f"another transaction was in the way ({error.message}); load it again"
        case asyncpg.InsufficientPrivilegeError():
            return f"the database does not let this user write it ({error.message})"
        case asyncpg.DataError() | UnicodeEncodeError():
            # raised by the server, or by the client that encodes the values
            return f"the database cannot hold it ({getattr(error, 'message', None) or error})"
    return None
