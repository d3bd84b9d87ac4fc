"""How PostgreSQL goes about each statement of queries.sql at a hundred times the data: 1.18 million memberships."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from importlib import resources
from typing import Any, NamedTuple

import asyncpg
import pytest
from conftest import Databases

from graph.postgres.ddl import make_tables
from graph.postgres.statements import STATEMENTS, TEXTS, read_statements

SYMBOLS, FUNDS, THEMES = 28_000, 2_400, 2_000
# 300 of a fund, 210 of a theme, and each symbol in one sector
LARGE = f"""
INSERT INTO symbols (symbol, name) SELECT 'S' || n, 'Company ' || n FROM generate_series(0, {SYMBOLS - 1}) AS n;
INSERT INTO definition_groups (id, name, type, environment)
SELECT n, CASE WHEN n <= 11 THEN 'sector_' WHEN n <= {11 + FUNDS} THEN 'F' ELSE 'theme_' END || n,
       CASE WHEN n <= 11 THEN 'SECTOR' WHEN n <= {11 + FUNDS} THEN 'ETF' ELSE 'THEME' END, 'DEFAULT'
FROM generate_series(1, {11 + FUNDS + THEMES}) AS n;
INSERT INTO group_memberships (group_id, symbol) SELECT 1 + n % 11, 'S' || n FROM generate_series(0, {SYMBOLS - 1}) AS n;
INSERT INTO group_memberships (group_id, symbol, weight)
SELECT g, 'S' || (g * 97 + n * 89) % {SYMBOLS}, CASE WHEN g <= {11 + FUNDS} THEN 0.5 / (n + 2) END
FROM generate_series(12, {11 + FUNDS + THEMES}) AS g, generate_series(0, CASE WHEN g <= {11 + FUNDS} THEN 299 ELSE 209 END) AS n;
"""
# whole tables are read only for what no index knows: all names, filters, parts of texts
WHOLE = {
    "group_names": {"definition_groups"},
    "groups_by_name": {"definition_groups"},
    "groups_by_member_count": {"definition_groups"},
    "groups_count": {"definition_groups"},
    "contents": {"symbols"},
    "search_hits": {"definition_groups", "symbols"},
    "exposures": {"definition_groups"},
    "stock_memberships": {"definition_groups"},
}
# these need no row of group_memberships itself
FROM_INDEXES_ALONE = {
    "groups_by_name",
    "groups_by_member_count",
    "groups_count",
    "member_counts",
    "total_weights",
    "group_symbols",
    "members_by_weight",
    "member_ranks",
    "group_holdings",
}


class Scan(NamedTuple):
    """A step of a plan that reads a table or an index."""

    kind: str
    table: str


@pytest.fixture(scope="module")
async def large(databases: Databases, empty_template: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """A connection, set as the server's are, to a database of 1.18 million memberships."""
    connection = await asyncpg.connect(await databases.make(empty_template))
    indexes = await connection.fetch("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx\\_group_memberships%'")
    await connection.execute(f"DROP INDEX {', '.join(row[0] for row in indexes)}")
    await connection.execute("ALTER TABLE group_memberships DISABLE TRIGGER USER")
    await connection.execute("ALTER TABLE definition_groups DISABLE TRIGGER USER")
    await connection.execute("ALTER TABLE group_memberships DROP CONSTRAINT group_memberships_group_id_fkey")
    await connection.execute("ALTER TABLE group_memberships DROP CONSTRAINT unique_membership")
    await connection.execute(LARGE)
    await connection.execute("ALTER TABLE group_memberships ADD CONSTRAINT unique_membership UNIQUE (group_id, symbol)")
    await make_tables(connection)
    await connection.execute("VACUUM ANALYZE")
    await connection.execute("SET jit = off; SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


async def scans(connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> set[Scan]:
    """How a statement reads tables, whatever its arguments."""
    text = TEXTS[name, True, False]
    parameters = len((await connection.prepare(text)).get_parameters())
    await connection.execute(f"PREPARE asked AS {text}")
    given = f"({', '.join(['NULL'] * parameters)})" if parameters else ""
    plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE asked{given}"))[0]["Plan"]
    await connection.execute("DEALLOCATE asked")

    def walk(step: dict[str, Any]) -> Iterator[Scan]:
        if table := step.get("Relation Name"):
            yield Scan(step["Node Type"], table)
        for below in step.get("Plans", ()):
            yield from walk(below)

    return set(walk(plan))


@pytest.mark.parametrize(
    "name", [name for name in STATEMENTS if name not in ("with_generation", "tracking", "past_days")]
)
async def test_no_statement_reads_more_than_it_must(large: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
    found = await scans(large, name)
    ours = {"definition_groups", "group_memberships", "symbols"}
    assert {scan.table for scan in found if scan.kind == "Seq Scan" and scan.table in ours} == WHOLE.get(name, set())
    if name in FROM_INDEXES_ALONE:
        assert {scan.kind for scan in found if scan.table == "group_memberships"} == {"Index Only Scan"}


@pytest.mark.parametrize(
    ("package", "module"),
    [
        ("loading", "checks"),
        ("loading", "group_writer"),
        ("loading", "price_writer"),
        ("loading", "migration"),
        ("loading", "tickstock_entries"),
        ("postgres", "ddl"),
    ],
)
def test_a_module_uses_all_its_statements_and_no_others(package: str, module: str) -> None:
    source = resources.files(f"graph.{package}").joinpath(f"{module}.py").read_text()
    statements = set(read_statements(f"graph.{package}", f"{module}.sql"))
    assert statements
    assert statements <= set(re.findall(r'"(\w+)"', source))
    assert set(re.findall(r'_SQL\["(\w+)"\]', source)) <= statements
