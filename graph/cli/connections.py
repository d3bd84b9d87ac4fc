"""Connections of commands to the database."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from graph.postgres.database import Database, translated_errors


@asynccontextmanager
async def connected(url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connect without a limit on the time of a statement, and translate errors of PostgreSQL for the block."""
    connection = await Database(url).connect(statement_seconds=None)
    try:
        with translated_errors():
            yield connection
    finally:
        connection.terminate()
