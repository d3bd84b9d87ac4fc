"""The connections to PostgreSQL, and the statements of queries.sql by their names."""

import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any, NamedTuple, Self, TypeAlias

import asyncpg

from graph.errors import DatabaseUnavailable, InvalidArgument

POOL_SIZE = 10
"""Connections that a server process opens at most, the listening one not counted."""
STATEMENT_SECONDS = 10.0
"""How long a statement may take."""
CONNECT_SECONDS = 5.0
"""How long a connection may take to be made."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def read_statements(text: str) -> dict[str, str]:
    """Split the text of queries.sql into statements by name; comments go."""
    named = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {
        name: re.sub(r"^\s*--.*\n", "", sql, flags=re.MULTILINE).strip().removesuffix(";")
        for name, sql in zip(named[::2], named[1::2], strict=True)
    }


STATEMENTS: Mapping[str, str] = read_statements(files("graph").joinpath("queries.sql").read_text())
_STAMPED = {
    name: STATEMENTS["stamped"].replace("/* statement */", sql) for name, sql in STATEMENTS.items() if name != "stamped"
}


class Reading(NamedTuple):
    """What a statement gave."""

    rows: list[asyncpg.Record]
    generation: int | None
    """Of the snapshot it was read from; None where the database keeps no track of changes."""
    sent: float
    """When it was sent, by the monotonic clock: the snapshot is not older."""


class Database:
    """A pool of connections to one database, opened as they are needed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def __aenter__(self) -> Self:
        """Make the pool; no connection is opened yet, so that a server can start before its database."""
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=0,
            max_size=POOL_SIZE,
            timeout=CONNECT_SECONDS,
            command_timeout=STATEMENT_SECONDS,
            reset=_reset,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the connections, those of statements still under way too."""
        if self._pool:
            self._pool.terminate()

    async def connect(
        self, *, statement_seconds: float | None = STATEMENT_SECONDS
    ) -> "asyncpg.Connection[asyncpg.Record]":
        """Open a connection outside the pool: one that listens or writes."""
        with answered(connecting=True):
            return await asyncpg.connect(self._url, timeout=CONNECT_SECONDS, command_timeout=statement_seconds)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Borrow a connection of the pool."""
        assert self._pool, "the database is used inside its context"  # noqa: S101
        with answered(connecting=True):
            borrowed = await self._pool.acquire()
        try:
            yield borrowed
        finally:
            # a connection that cannot be given back is ended by the pool; what it read is read
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                await self._pool.release(borrowed)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Borrow a connection whose statements all read the same state of the database."""
        async with self.connection() as borrowed:
            with answered():
                transaction = borrowed.transaction(isolation="repeatable_read", readonly=True)
                await transaction.start()
            try:
                yield borrowed
            finally:
                with answered():
                    await transaction.rollback()

    async def fetch(
        self, statement: str, *arguments: Any, stamped: bool, connection: "Connection | None" = None
    ) -> Reading:
        """Run a statement by its name, on a connection of the pool where none is given."""
        if connection is None:
            async with self.connection() as borrowed:
                return await self.fetch(statement, *arguments, stamped=stamped, connection=borrowed)
        sent = time.monotonic()
        with answered():
            rows = await connection.fetch((_STAMPED if stamped else STATEMENTS)[statement], *arguments)
        if not stamped:
            return Reading(rows, None, sent)
        generation = rows[0]["generation"]
        return Reading([] if rows[0]["ordinal"] is None else rows, generation, sent)


_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (asyncpg.UndefinedTableError, "The database lacks tables ({}); `stockgraph init` makes what is missing."),
    (
        asyncpg.ClientConfigurationError,
        "DATABASE_URL is not of the form postgresql://user:password@host/database.",
    ),
    (asyncpg.InvalidAuthorizationSpecificationError, "The database refuses the user or password of DATABASE_URL."),
    (asyncpg.InsufficientPrivilegeError, "The user of DATABASE_URL may not do this: {}."),
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


class answered:  # noqa: N801 - reads as the phrase it is
    """Turns what goes wrong between here and the database into what a person can act on."""

    def __init__(self, *, connecting: bool = False) -> None:
        self._connecting = connecting

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
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
