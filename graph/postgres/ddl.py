"""Tables: schema.sql, applied to a database that lacks any of its tables, indexes or triggers."""

import hashlib
import re
from importlib.resources import files

import asyncpg

from graph.postgres.statements import read_statements

_SQL = read_statements("graph.postgres", "ddl.sql")
SCHEMA = files("graph.postgres").joinpath("schema.sql").read_text()

_VERSION = f"made by stockgraph, schema {hashlib.sha256(SCHEMA.encode()).hexdigest()[:16]}"
_EXPECTED = {f"{kind.lower()} {name}" for kind, name in re.findall(r"CREATE (TABLE|INDEX) IF NOT EXISTS (\w+)", SCHEMA)}
_TRIGGERS = {
    table: [f"data_change_{event}" for event in ("insert", "update", "delete", "truncate")]
    for table in (
        "definition_groups",
        "group_memberships",
        "symbols",
        "group_history",
        "membership_history",
        "ohlcv_daily",
    )
}
for _table in ("definition_groups", "group_memberships"):
    _TRIGGERS[_table] += [
        f"history_{event}" for event in ("open_insert", "open_update", "close_update", "close_delete", "close_truncate")
    ]


async def make_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> list[str]:
    """Create missing tables, indexes and triggers, those of partitions too, in one transaction; return their names.

    If none is missing, no lock is taken, so that writers neither wait nor delay it.
    """
    async with connection.transaction():
        await connection.execute(_SQL["lock_schema"])
        before = {row[0] for row in await connection.fetch(_SQL["existing_objects"])}
        made_by = await connection.fetchval(_SQL["schema_version"])
        places = [(table, table) for table in _TRIGGERS] + await connection.fetch(_SQL["partitions"], [*_TRIGGERS])
        expected = _EXPECTED | {f"trigger {name} on {place}" for table, place in places for name in _TRIGGERS[table]}
        if before >= expected and made_by == _VERSION:
            return []
        await connection.execute(SCHEMA)
        await connection.execute(await connection.fetchval(_SQL["set_schema_version"], _VERSION))
        await connection.execute(_SQL["analyze_tables"])
        return sorted({row[0] for row in await connection.fetch(_SQL["existing_objects"])} - before)


async def mend_history(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Make the history end in the present state while writers wait; return the number of rows written."""
    written: int = await connection.fetchval(_SQL["mend_history"])
    return written


async def has_been_used(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    """Tell if a database with all tables has groups, or had some once."""
    used: bool = await connection.fetchval(_SQL["has_been_used"])
    return used
