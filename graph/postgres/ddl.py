"""The tables: schema.sql, applied to a database that lacks them or some of what they need."""

import hashlib
import re
from importlib.resources import files

import asyncpg

SCHEMA = files("graph.postgres").joinpath("schema.sql").read_text()

_VERSION = f"made by stockgraph, schema {hashlib.sha256(SCHEMA.encode()).hexdigest()[:16]}"
_EXPECTED = {f"{kind.lower()} {name}" for kind, name in re.findall(r"CREATE (TABLE|INDEX) IF NOT EXISTS (\w+)", SCHEMA)}
_EXPECTED |= {
    f"trigger data_change_{event} on {table}"
    for event in ("insert", "update", "delete", "truncate")
    for table in (
        "definition_groups",
        "group_memberships",
        "symbols",
        "group_history",
        "membership_history",
        "ohlcv_daily",
    )
}
_EXPECTED |= {
    f"trigger history_{event} on {table}"
    for event in ("open_insert", "open_update", "close_update", "close_delete", "close_truncate")
    for table in ("definition_groups", "group_memberships")
}
_PRESENT = """
SELECT 'table ' || relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'index ' || indexname FROM pg_indexes WHERE schemaname = current_schema()
UNION ALL
SELECT 'trigger ' || t.tgname || ' on ' || c.relname FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE NOT t.tgisinternal AND t.tgenabled = 'A' AND c.relnamespace = current_schema()::regnamespace
"""


async def make_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Make what is missing of tables, indexes and triggers, in one transaction; name what was made, sorted.

    Where nothing is missing nothing is touched, so that it waits for no writer and no writer for it.
    """
    async with connection.transaction():
        # two that make the same would lock the tables against each other
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('stockgraph.make_tables', 0))")
        before = {row[0] for row in await connection.fetch(_PRESENT)}
        made_by = await connection.fetchval("SELECT obj_description(to_regclass('data_change'), 'pg_class')")
        if before >= _EXPECTED and made_by == _VERSION:
            return []
        await connection.execute(SCHEMA)
        await connection.execute(f"COMMENT ON TABLE data_change IS '{_VERSION}'")
        # nothing is known yet of what a new index on an expression holds, and it would not be used
        await connection.execute("ANALYZE definition_groups, group_memberships, symbols")
        return sorted({row[0] for row in await connection.fetch(_PRESENT)} - before)


async def mend_history(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Make the history end in what is there now, and count the rows written; writers wait meanwhile."""
    written: int = await connection.fetchval("SELECT mend_history()")
    return written
