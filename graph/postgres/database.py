"""Connections to PostgreSQL, which run the statements of queries.sql by name."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import Any, NamedTuple, Self, TypeAlias, cast

import asyncpg

from graph.errors import DatabaseUnavailable, InvalidArgument
from graph.postgres.statements import STATEMENTS, TEXTS, Family
from graph.telemetry import Observer

POOL_SIZE = 10
"""Maximum connections of a server process, not counting the one that listens."""
STATEMENT_SECONDS = 10.0
"""Timeout of a statement."""
CONNECT_SECONDS = 5.0
"""Timeout of making a connection."""
IDLE_SECONDS = 30.0
"""Time after which an unused connection returns to the pool, which closes it five minutes later."""
PREPARED_STATEMENTS = 100
"""Maximum prepared statements of a connection."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Generation(NamedTuple):
    """Number of changes of each family up to a snapshot, which identifies the state of the database."""

    groups: int
    prices: int

    def of(self, family: Family) -> int:
        """Return the number of one family."""
        return self.prices if family == "prices" else self.groups


class ReadResult(NamedTuple):
    """Result of a statement."""

    rows: list[asyncpg.Record]
    generation: Generation | None
    """Generation of the snapshot that was read; None if the database does not track changes."""
    sent: float
    """Time of sending by the monotonic clock; the snapshot is not older."""
    layout: int | None = None
    """Hash of the files and partitions that held the tables' rows; None if the database does not track changes."""


class Database:
    """A pool of connections to one database, opened as needed."""

    def __init__(self, url: str, observer: Observer | None = None) -> None:
        self._observer = observer
        self.pooled = False
        """True if the latest connection goes to a pooler, such as pgbouncer, instead of PostgreSQL itself."""
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._idle: list[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]] = []
        """Idle connections, borrowed without the pool, which takes as long as many a statement.

        The last one is used first, so that the first ones return to the pool when fewer are needed.
        """
        self._unused = 0
        """Number of idle connections not used since the last reaping."""
        self._reaping: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._waiting = 0
        """Number of tasks that wait for a connection of the pool."""

    async def __aenter__(self) -> Self:
        """Create the pool without opening a connection, so that a server can start before its database."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=POOL_SIZE,
            connect=self._open,
            command_timeout=STATEMENT_SECONDS,
            reset=_reset,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections, including those of running statements."""
        if self._reaping:
            self._reaping.cancel()
        if self._pool:
            self._pool.terminate()

    async def connect(
        self, *, statement_seconds: float | None = STATEMENT_SECONDS
    ) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection outside the pool, to listen or to write."""
        with translated_errors(connecting=True):
            return await self._open(self._url, command_timeout=statement_seconds)

    async def _open(self, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect, with no prepared statements behind a pooler.

        A pooler may run each transaction in another session, where a prepared statement is missing, or where another
        process has prepared one of the same name, whose rows would be mistaken for ours. It is detected by the process
        ids that it reports, which are not those of the sessions.
        """
        while True:
            pooled = self.pooled
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                *arguments,
                **options,
                timeout=CONNECT_SECONDS,
                statement_cache_size=0 if pooled else PREPARED_STATEMENTS,
            )
            try:
                # sent without arguments, so that it is not prepared; the status has the number of rows
                status = await connection.execute(
                    f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}",
                    timeout=CONNECT_SECONDS,
                )
                self.pooled = status == "SELECT 0"
                if not self.pooled:
                    # compiling takes longer than running any of our statements, and so does planning most of them
                    await connection.execute(
                        "SET jit = off; SET plan_cache_mode = force_generic_plan", timeout=CONNECT_SECONDS
                    )
            except BaseException:
                connection.terminate()
                raise
            if self.pooled == pooled:
                return connection
            connection.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection of the pool."""
        borrowed = await self._borrow()
        try:
            yield borrowed
        finally:
            await self._release(borrowed)

    async def _borrow(self) -> "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]":
        assert self._pool, "the database is used inside its context"  # noqa: S101
        while self._idle:
            borrowed = self._idle.pop()
            self._unused = min(self._unused, len(self._idle))
            # the pool has already taken back a connection that the server closed
            with suppress(asyncpg.InterfaceError):
                if not borrowed.is_closed():
                    return borrowed
                await self._release(borrowed)
        self._waiting += 1
        try:
            with translated_errors(connecting=True):
                return await self._pool.acquire()
        finally:
            self._waiting -= 1

    async def _release(self, borrowed: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        # the pool closes a connection that cannot be released; its result is valid
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            await cast("asyncpg.Pool[asyncpg.Record]", self._pool).release(borrowed)

    def _reap_idle(self) -> None:
        """Release the connections that were not used since the last reaping."""
        unused, self._idle = self._idle[: self._unused], self._idle[self._unused :]
        self._unused = len(self._idle)
        self._returning = asyncio.create_task(self._release_all(unused))
        loop = asyncio.get_running_loop()
        self._reaping = loop.call_later(IDLE_SECONDS, self._reap_idle) if self._idle else None

    async def _release_all(self, unused: "list[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]") -> None:
        for borrowed in unused:
            await self._release(borrowed)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Borrow a connection whose statements all read one state of the database.

        The tables are locked before the first of them: TRUNCATE and ALTER TABLE keep no rows for older snapshots, to
        which a table that was emptied or rewritten while they waited for it would look empty.
        """
        async with self.connection() as borrowed:
            with translated_errors():
                lock = await borrowed.fetchval(STATEMENTS["lock_tables"])
                transaction = borrowed.transaction(isolation="repeatable_read", readonly=True)
                await transaction.start()
                if lock:
                    await borrowed.execute(lock)
            try:
                yield borrowed
            finally:
                with translated_errors():
                    await transaction.rollback()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Borrow a connection in a transaction, which is committed after the block, or rolled back if it raises."""
        async with self.connection() as borrowed:
            with translated_errors():
                transaction = borrowed.transaction()
                await transaction.start()
            try:
                yield borrowed
            except BaseException:
                # on a connection that is lost the server rolls back
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                    await transaction.rollback()
                raise
            with translated_errors():
                await transaction.commit()

    async def fetch(
        self,
        statement: str,
        *arguments: Any,
        with_generation: bool,
        as_of: date | None = None,
        connection: "Connection | None" = None,
        seconds: float | None = None,
    ) -> ReadResult:
        """Run a statement by name, on a connection of the pool if none is given.

        With `as_of`, it reads groups and memberships as of the end of that day. It times out after `seconds`, or
        STATEMENT_SECONDS.
        """
        text = TEXTS[statement, with_generation, as_of is not None]
        if as_of is not None:
            arguments = (*arguments, as_of)
        borrowed = None if connection else await self._borrow()
        try:
            sent = time.monotonic()
            with translated_errors():
                rows = await cast("Connection", connection or borrowed).fetch(text, *arguments, timeout=seconds)
        except BaseException:
            if borrowed:
                await self._release(borrowed)
            raise
        if self._observer:
            self._observer.statement(statement, time.monotonic() - sent, len(rows))
        if borrowed and self._waiting:
            await self._release(borrowed)
        elif borrowed:
            self._idle.append(borrowed)
            if not self._reaping:
                self._reaping = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._reap_idle)
        if not with_generation:
            return ReadResult(rows, None, sent)
        groups, prices = rows[0]["groups_generation"], rows[0]["prices_generation"]
        generation = None if groups is None else Generation(groups, prices)
        return ReadResult([] if rows[0]["ordinal"] is None else rows, generation, sent, rows[0]["layout"])


_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (asyncpg.UndefinedTableError, "The database lacks tables ({}); `stockgraph init` makes what is missing."),
    (
        asyncpg.ClientConfigurationError,
        "DATABASE_URL is not of the form postgresql://user:password@host/database.",
    ),
    (asyncpg.InvalidAuthorizationSpecificationError, "The database refuses the user or password of DATABASE_URL."),
    (asyncpg.InsufficientPrivilegeError, "The user of DATABASE_URL may not do this: {}."),
    # raised by pgbouncer, also about the database behind it
    (asyncpg.ProtocolViolationError, "The database, or a pooler before it, refuses: {}."),
    (
        (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, TimeoutError),
        "The database did not answer in time; try again.",
    ),
    (
        (
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # the server died in the middle of an answer
            asyncpg.OperatorInterventionError,
            asyncpg.TooManyConnectionsError,
        ),
        "The database does not answer; try again when it is back.",
    ),
)


async def _reset(connection: Connection) -> None:
    """Reset a connection: statements leave nothing but an open transaction, so that mostly no round trip is needed."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


class translated_errors:  # noqa: N801 - reads as the phrase it is
    """Translates errors of the database connection into messages that a person can act on."""

    def __init__(self, *, connecting: bool = False) -> None:
        self._connecting = connecting

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        if isinstance(error, asyncpg.CharacterNotInRepertoireError) or (
            isinstance(error, asyncpg.DataError) and isinstance(error.__cause__, UnicodeEncodeError)
        ):
            raise InvalidArgument("A text holds a character that no database text can hold.") from error
        for kind, reason in _REASONS:
            if isinstance(error, kind):
                raise DatabaseUnavailable(reason.format(str(error).rstrip("."))) from error
        if self._connecting and isinstance(error, ValueError | OverflowError):
            raise DatabaseUnavailable("DATABASE_URL is not of the form postgresql://user:password@host/database.")
        if self._connecting and isinstance(error, asyncpg.PostgresError):
            raise DatabaseUnavailable(f"The database takes no connection: {error}.") from error
