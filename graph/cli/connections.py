"""The database that a command works on, and connections to it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from graph.postgres.database import Database, translated_errors
from graph.postgres.embedded import default_home, embedded_postgres
from graph.settings import Settings


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """Give the URL of the database that the settings name, or of the embedded one, which runs for the block."""
    if settings.database_url is not None:
        yield settings.database_url
        return
    with embedded_postgres(settings.home or default_home()) as url:
        yield url


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect without a limit on the time of a statement, and translate errors of PostgreSQL for the block."""
    connection = await Database(url).connect(statement_seconds=None)
    try:
        with translated_errors():
            yield connection
    finally:
        connection.terminate()
