"""The tables: schema.sql, applied to a database that lacks them or some of what they need."""

from importlib.resources import files

import asyncpg

SCHEMA = files("graph").joinpath("schema.sql").read_text()

_PRESENT = """
SELECT 'table ' || relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL
SELECT 'trigger ' || t.tgname || ' on ' || c.relname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled = 'A' AND c.relnamespace = current_schema()::regnamespace
"""


async def make_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Make what is missing of tables, indexes and triggers, in one transaction; name what was made, sorted."""
    async with connection.transaction():
        before = {row[0] for row in await connection.fetch(_PRESENT)}
        await connection.execute(SCHEMA)
        return sorted({row[0] for row in await connection.fetch(_PRESENT)} - before)
