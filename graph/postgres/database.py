"""Connections to PostgreSQL, which run the statements of queries.sql by name."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import Any, NamedTuple, Self, TypeAlias, cast

import asyncpg

from graph.errors import DatabaseUnavailable, InvalidArgument
from graph.postgres.statements import TEXTS, Family

POOL_SIZE = 10
"""Connections that a server process opens at most, the listening one not counted."""
STATEMENT_SECONDS = 10.0
"""How long a statement may take."""
CONNECT_SECONDS = 5.0
"""How long a connection may take to be made."""
IDLE_SECONDS = 30.0
"""How long a connection stays at hand that is not used; the pool ends it five minutes later."""
PREPARED_STATEMENTS = 100
"""How many statements a connection keeps prepared."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Generation(NamedTuple):
    """How often each family was changed, up to a snapshot: which state of the database that is."""

    groups: int
    prices: int

    def of(self, family: Family) -> int:
        """Give one family's."""
        return self.prices if family == "prices" else self.groups


class ReadResult(NamedTuple):
    """What a statement gave."""

    rows: list[asyncpg.Record]
    generation: Generation | None
    """Of the snapshot it was read from; None where the database keeps no track of changes."""
    sent: float
    """When it was sent, by the monotonic clock: the snapshot is not older."""


class Database:
    """A pool of connections to one database, opened as they are needed."""

    def __init__(self, url: str) -> None:
        self.pooled = False
        """Whether the connection made last goes to a pooler, such as pgbouncer, and not to PostgreSQL itself."""
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._idle: list[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]] = []
        """Connections that ended a statement well, ready for the next: the pool takes as long as many a statement.

        The last is used first, so that the first go back to the pool, and end, when fewer are needed.
        """
        self._unused = 0
        """How many were not used since the last look at them."""
        self._reaping: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._waiting = 0
        """How many wait for one of the pool."""

    async def __aenter__(self) -> Self:
        """Make the pool; no connection is opened yet, so that a server can start before its database."""
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
        """End the connections, those of statements still under way too."""
        if self._reaping:
            self._reaping.cancel()
        if self._pool:
            self._pool.terminate()

    async def connect(
        self, *, statement_seconds: float | None = STATEMENT_SECONDS
    ) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection outside the pool: one that listens or writes."""
        with translated_errors(connecting=True):
            return await self._open(self._url, command_timeout=statement_seconds)

    async def _open(self, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect, and keep nothing prepared behind a pooler.

        It may run each transaction in another session, where a prepared statement is missing, or is another process's
        of the same name, whose rows would then be taken for ours. A pooler shows in that it gives its clients process
        ids that are not the sessions'.
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
                # no arguments, so that not even this is prepared; the answer is the number of rows
                itself = await connection.execute(
                    f"SELECT WHERE pg_backend_pid() = {connection.get_server_pid()}",
                    timeout=CONNECT_SECONDS,
                )
                self.pooled = itself == "SELECT 0"
                if not self.pooled:
                    # compiling a statement takes longer than running any of ours, and so does planning most of them
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
            await self._give_back(borrowed)

    async def _borrow(self) -> "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]":
        assert self._pool, "the database is used inside its context"  # noqa: S101
        while self._idle:
            borrowed = self._idle.pop()
            self._unused = min(self._unused, len(self._idle))
            # one that the server ended the pool has taken back
            with suppress(asyncpg.InterfaceError):
                if not borrowed.is_closed():
                    return borrowed
                await self._give_back(borrowed)
        self._waiting += 1
        try:
            with translated_errors(connecting=True):
                return await self._pool.acquire()
        finally:
            self._waiting -= 1

    async def _give_back(self, borrowed: "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]") -> None:
        # a connection that cannot be given back is ended by the pool; what it read is read
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            await cast("asyncpg.Pool[asyncpg.Record]", self._pool).release(borrowed)

    def _reap_idle(self) -> None:
        """Give back what was not used since the last look."""
        unused, self._idle = self._idle[: self._unused], self._idle[self._unused :]
        self._unused = len(self._idle)
        self._returning = asyncio.create_task(self._return(unused))
        loop = asyncio.get_running_loop()
        self._reaping = loop.call_later(IDLE_SECONDS, self._reap_idle) if self._idle else None

    async def _return(self, unused: "list[asyncpg.pool.PoolConnectionProxy[asyncpg.Record]]") -> None:
        for borrowed in unused:
            await self._give_back(borrowed)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Borrow a connection whose statements all read the same state of the database."""
        async with self.connection() as borrowed:
            with translated_errors():
                transaction = borrowed.transaction(isolation="repeatable_read", readonly=True)
                await transaction.start()
            try:
                yield borrowed
            finally:
                with translated_errors():
                    await transaction.rollback()

    async def fetch(
        self,
        statement: str,
        *arguments: Any,
        with_generation: bool,
        as_of: date | None = None,
        connection: "Connection | None" = None,
        seconds: float | None = None,
    ) -> ReadResult:
        """Run a statement by its name, on a connection of the pool where none is given.

        With a day it reads groups and memberships as that day ended; it may take STATEMENT_SECONDS, or as long as told.
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
                await self._give_back(borrowed)
            raise
        if borrowed and self._waiting:
            await self._give_back(borrowed)
        elif borrowed:
            self._idle.append(borrowed)
            if not self._reaping:
                self._reaping = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._reap_idle)
        if not with_generation:
            return ReadResult(rows, None, sent)
        groups, prices = rows[0]["groups_generation"], rows[0]["prices_generation"]
        generation = None if groups is None else Generation(groups, prices)
        return ReadResult([] if rows[0]["ordinal"] is None else rows, generation, sent)


_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (asyncpg.UndefinedTableError, "The database lacks tables ({}); `stockgraph init` makes what is missing."),
    (
        asyncpg.ClientConfigurationError,
        "DATABASE_URL is not of the form postgresql://user:password@host/database.",
    ),
    (asyncpg.InvalidAuthorizationSpecificationError, "The database refuses the user or password of DATABASE_URL."),
    (asyncpg.InsufficientPrivilegeError, "The user of DATABASE_URL may not do this: {}."),
    # what pgbouncer says, of the database behind it too
    (asyncpg.ProtocolViolationError, "The database, or a pooler before it, refuses: {}."),
    ((asyncpg.QueryCanceledError, TimeoutError), "The database did not answer in time; try again."),
    (
        (
            OSError,
            asyncpg.PostgresConnectionError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # where the server dies in the middle of an answer
            asyncpg.OperatorInterventionError,
            asyncpg.TooManyConnectionsError,
        ),
        "The database does not answer; try again when it is back.",
    ),
)


async def _reset(connection: Connection) -> None:
    """Leave a connection as it was found: our statements change nothing else, so that no round trip is needed."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


class translated_errors:  # noqa: N801 - reads as the phrase it is
    """Turns what goes wrong between here and the database into what a person can act on."""

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
