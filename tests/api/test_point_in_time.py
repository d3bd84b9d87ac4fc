"""History: what groups held and were called on past days, whoever wrote, and how it is asked."""

import asyncio
import base64
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from conftest import DATA, Ask, Live, asker, wrong_part
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from graph.api.nodes import UNIVERSES
from graph.caching.generations import CONFIRMED_SECONDS
from graph.execution.runtime import open_runtime
from graph.loading.checks import check
from graph.loading.group_writer import GroupRefused, replace_group
from graph.loading.holdings import GroupHoldings, Holding
from graph.postgres.database import Connection, Database
from graph.postgres.ddl import make_tables, mend_history
from graph.settings import Settings

FIRST = date(2020, 1, 1)

# A history of six days in which groups are made, grow, are reweighted, renamed and dropped.
PAST = """
SET stockgraph.effective_day = '2025-01-01';
INSERT INTO definition_groups (id, name, type, description, metadata, environment) VALUES
    (1, 'FUND', 'ETF', 'first words', '{"a": 1}', 'DEFAULT'), (2, 'chips', 'THEME', NULL, NULL, 'DEFAULT'),
    (3, 'tech', 'SECTOR', NULL, NULL, 'DEFAULT'), (4, 'FUND', 'ETF', 'of another environment', NULL, 'TEST');
INSERT INTO symbols (symbol, name) VALUES ('AAA', 'Aaa Inc.'), ('BBB', 'Bbb Inc.'), ('CCC', 'Ccc Inc.');
INSERT INTO group_memberships (group_id, symbol, weight) VALUES
    (1, 'AAA', 0.6), (1, 'BBB', 0.4), (2, 'BBB', NULL), (3, 'AAA', NULL), (4, 'ZZZ', 1);
SET stockgraph.effective_day = '2025-01-02';
DELETE FROM group_memberships WHERE group_id = 1 AND symbol = 'BBB';
INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'CCC', 0.3), (1, 'DDD', NULL);
SET stockgraph.effective_day = '2025-01-03';
UPDATE group_memberships SET weight = 0.7 WHERE group_id = 1 AND symbol = 'AAA';
UPDATE definition_groups SET description = 'better words' WHERE id = 1;
SET stockgraph.effective_day = '2025-01-04';
UPDATE definition_groups SET name = 'semiconductors' WHERE id = 2;
INSERT INTO group_memberships (group_id, symbol, weight) VALUES (2, 'AAA', NULL), (1, 'BBB', 0.2);
SET stockgraph.effective_day = '2025-01-05';
DELETE FROM definition_groups WHERE id = 3;
SET stockgraph.effective_day = '2025-01-06';
INSERT INTO definition_groups (id, name, type, environment) VALUES (5, 'late', 'CUSTOM', 'DEFAULT');
"""


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def past_ask(databases: Any, empty_template: str) -> AsyncIterator[Ask]:
    """Asks a database that has a history of six days."""
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    await writer.execute(PAST)
    await writer.close()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        yield asker(runtime)


Membership = tuple[int, str, Decimal | None]


async def on_day(connection: Connection, day: date) -> tuple[set[tuple[Any, ...]], set[Membership]]:
    """What the history says of a day: groups and memberships."""
    groups = await connection.fetch("SELECT id, environment, type, name, description FROM groups_on($1)", day)
    members = await connection.fetch("SELECT group_id, symbol, weight FROM memberships_on($1)", day)
    return {tuple(row) for row in groups}, {(row[0], row[1], row[2]) for row in members}


async def now(connection: Connection) -> tuple[set[tuple[Any, ...]], set[Membership]]:
    """What the tables say."""
    groups = await connection.fetch("SELECT id, environment, type, name, description FROM definition_groups")
    members = await connection.fetch("SELECT group_id, symbol, weight FROM group_memberships")
    return {tuple(row) for row in groups}, {(row[0], row[1], row[2]) for row in members}


async def rows(connection: Connection) -> list[tuple[Any, ...]]:
    """The history of members, its days counted from the first."""
    return [
        (row["group_id"], row["symbol"], row["weight"], (row["valid_from"] - FIRST).days, row["valid_to"] and (row["valid_to"] - FIRST).days)
        for row in await connection.fetch(
            'SELECT * FROM membership_history ORDER BY group_id, symbol COLLATE "C", valid_from'
        )
    ]  # fmt: skip


async def set_day(connection: Connection, number: int) -> None:
    await connection.execute(
        "SELECT set_config('stockgraph.effective_day', $1, false)", (FIRST + timedelta(number)).isoformat()
    )


# ---- what the triggers keep


async def sound(connection: Connection) -> None:
    """Nothing overlaps, nothing that is alike stands in two rows where one would do, and what is open is what is there."""
    for table, key, what in (
        ("membership_history", "group_id, symbol", "weight"),
        ("group_history", "group_id", "(environment, type, name, description)"),
    ):
        overlapping = f"""
            SELECT count(*) FROM (SELECT valid_to, lead(valid_from) OVER w AS next, {what} IS NOT DISTINCT FROM lead({what}) OVER w AS alike
                                  FROM {table} WINDOW w AS (PARTITION BY {key} ORDER BY valid_from)) AS h
            WHERE next IS NOT NULL AND (valid_to IS NULL OR valid_to > next OR valid_to = next AND alike)"""
        assert await connection.fetchval(overlapping) == 0, table
    assert await now(connection) == await on_day(connection, date(9999, 1, 1))


SYMBOLS = ["A", "B", "C", "D"]
WEIGHTS = ["0.1", "0.2", "NULL"]


def statement(draw: random.Random) -> str:
    """A statement that somebody may run."""
    group, other = draw.choice([1, 2, 3]), draw.choice([1, 2, 3])
    some = ", ".join(f"'{symbol}'" for symbol in draw.sample(SYMBOLS, draw.randint(1, 3)))
    weight = draw.choice(WEIGHTS)
    named = ", ".join(
        f"('{symbol}', {draw.choice(WEIGHTS)}::numeric)" for symbol in draw.sample(SYMBOLS, draw.randint(1, 4))
    )
    return draw.choice(
        [
            f"INSERT INTO definition_groups (id, name, type, environment) VALUES ({group}, 'g{draw.choice([group, other])}', 'ETF', 'DEFAULT') ON CONFLICT DO NOTHING",
            (
                f"INSERT INTO group_memberships (group_id, symbol, weight) SELECT {group}, s, w FROM (VALUES {named}) AS v (s, w)"
                f" WHERE EXISTS (SELECT FROM definition_groups WHERE id = {group})"
                " ON CONFLICT (group_id, symbol) DO UPDATE SET weight = excluded.weight"
            ),
            f"INSERT INTO group_memberships (group_id, symbol, weight) SELECT id, s, w FROM definition_groups, (VALUES {named}) AS v (s, w) ON CONFLICT DO NOTHING",
            f"UPDATE group_memberships SET weight = {weight} WHERE symbol IN ({some})",
            f"UPDATE group_memberships SET weight = {weight} WHERE group_id = {group}",
            "UPDATE group_memberships SET updated_at = now()",
            (
                f"UPDATE group_memberships AS m SET group_id = {group} WHERE group_id = {other} AND symbol IN ({some})"
                f" AND EXISTS (SELECT FROM definition_groups WHERE id = {group})"
                f" AND NOT EXISTS (SELECT FROM group_memberships AS o WHERE o.group_id = {group} AND o.symbol = m.symbol)"
            ),
            f"UPDATE group_memberships SET symbol = symbol || symbol WHERE group_id = {group} AND length(symbol) = 1 AND symbol IN ({some})",
            f"DELETE FROM group_memberships WHERE group_id = {group} AND symbol IN ({some})",
            "DELETE FROM group_memberships WHERE length(symbol) > 1",
            f"DELETE FROM definition_groups WHERE id = {group}",
            f"UPDATE definition_groups SET name = name || 'x', description = '{other}' WHERE id = {group}",
            f"UPDATE definition_groups SET description = '{other}', environment = CASE environment WHEN 'TEST' THEN 'UAT' ELSE 'TEST' END WHERE id = {group}",
            "UPDATE definition_groups SET last_update = now()",
            # as a load does it: all in one statement
            (
                f"WITH source (symbol, weight) AS (VALUES {named}),"
                f" removed AS (DELETE FROM group_memberships AS m WHERE group_id = {group} AND NOT EXISTS (SELECT FROM source AS s WHERE s.symbol = m.symbol)),"
                f" changed AS (UPDATE group_memberships AS m SET weight = s.weight FROM source AS s WHERE m.group_id = {group} AND s.symbol = m.symbol AND m.weight IS DISTINCT FROM s.weight)"
                f" INSERT INTO group_memberships AS m (group_id, symbol, weight) SELECT {group}, s.symbol, s.weight FROM source AS s"
                f" WHERE EXISTS (SELECT FROM definition_groups WHERE id = {group})"
                f" AND NOT EXISTS (SELECT FROM group_memberships AS m WHERE m.group_id = {group} AND m.symbol = s.symbol)"
                " ON CONFLICT (group_id, symbol) DO UPDATE SET weight = excluded.weight WHERE m.weight IS DISTINCT FROM excluded.weight"
            ),
            "TRUNCATE group_memberships",
            "TRUNCATE definition_groups CASCADE",
        ]
    )


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    seed=st.randoms(use_true_random=False), steps=st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=30)
)
async def test_every_day_is_remembered_as_it_ended(
    connection: "asyncpg.Connection[asyncpg.Record]", seed: random.Random, steps: list[int]
) -> None:
    await connection.execute("TRUNCATE definition_groups CASCADE; TRUNCATE membership_history, group_history")
    ended = {}
    day = 0
    for step in steps:
        day += step
        await set_day(connection, day)
        kept = seed.random() < 0.8
        try:
            async with connection.transaction():
                for _ in range(seed.choice([1, 1, 2, 3])):
                    await connection.execute(statement(seed))
                assert kept, "let it be rolled back"
        except (asyncpg.UniqueViolationError, AssertionError):
            pass  # two groups of one name, or taken back: either way nothing happened
        await sound(connection)
        ended[day] = await now(connection)
    ended[day + 400] = ended[day]
    for number, expected in ended.items():
        assert await on_day(connection, FIRST + timedelta(number)) == expected
    assert await on_day(connection, FIRST - timedelta(1)) == (set(), set())


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(seed=st.randoms(use_true_random=False), days=st.lists(st.integers(0, 5), min_size=1, max_size=20))
async def test_days_out_of_order_leave_the_history_sound(
    connection: "asyncpg.Connection[asyncpg.Record]", seed: random.Random, days: list[int]
) -> None:
    await connection.execute("TRUNCATE definition_groups CASCADE; TRUNCATE membership_history, group_history")
    for day in days:
        await set_day(connection, day)
        try:
            await connection.execute(statement(seed))
        except asyncpg.UniqueViolationError:
            continue
        await sound(connection)


@settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.randoms(use_true_random=False), steps=st.lists(st.sampled_from([0, 0, 1]), min_size=4, max_size=8))
async def test_what_is_remembered_follows_every_write(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str, seed: random.Random, steps: list[int]
) -> None:
    await connection.execute("TRUNCATE definition_groups CASCADE; TRUNCATE membership_history, group_history")
    ended: dict[int | None, dict[str, list[str]]] = {}
    day = 0
    async with open_runtime(Settings(database_url=database_url)) as runtime:
        await runtime.generations.confirmed()
        ask = asker(runtime)
        for step in steps:
            day += step
            await set_day(connection, day)
            if seed.random() < 0.3:
                members = seed.sample(SYMBOLS, seed.randint(0, 4))
                loaded = GroupHoldings("ETF", "g1", tuple(map(Holding, members)), as_of=FIRST + timedelta(day))
                # which the next id that another writer took may prevent
                with suppress(GroupRefused):
                    await replace_group(connection, loaded, environment="DEFAULT")
                await set_day(connection, day)
            else:
                with suppress(asyncpg.UniqueViolationError):
                    await connection.execute(statement(seed))
            # a reading that was under way may be of before
            await runtime.generations.confirmed()
            await runtime.generations.confirmed()
            names = {row[0]: row[3] for row in (await now(connection))[0] if row[1] == "DEFAULT"}
            held: dict[str, list[str]] = {name: [] for name in names.values()}
            for group, symbol, _ in (await now(connection))[1]:
                if group in names:
                    held[names[group]].append(symbol)
            ended[None] = ended[day] = {name: sorted(symbols) for name, symbols in held.items()}
            for number, expected in ended.items():
                as_of = None if number is None else (FIRST + timedelta(number)).isoformat()
                for name, symbols in expected.items():
                    for _ in range(2):
                        answer = await ask(
                            "query ($key: String!, $day: Date) { universe(key: $key, asOf: $day) { symbols } }",
                            key=name, day=as_of,
                        )  # fmt: skip
                        assert answer["data"]["universe"]["symbols"] == symbols
        # of past days alone, since what is now comes from columns the second time
        past = [groups for number, groups in ended.items() if number is not None]
        assert runtime.stats(UNIVERSES).hits >= sum(map(len, past))


async def test_the_rows_are_what_happened(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    await connection.execute(
        "INSERT INTO definition_groups (id, name, type, environment) VALUES (1, 'g', 'ETF', 'DEFAULT')"
    )
    steps = (
        (0, "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'A', 0.1), (1, 'B', NULL)"),
        (1, "UPDATE group_memberships SET weight = 0.2 WHERE symbol = 'A'"),
        (1, "UPDATE group_memberships SET weight = 0.1 WHERE symbol = 'A'"),  # as it was: never mind
        (2, "UPDATE group_memberships SET weight = 0.3 WHERE symbol = 'A'"),
        (3, "DELETE FROM group_memberships"),
        (3, "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'B', NULL)"),  # alike: it goes on
        (3, "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'C', 0.5)"),
        (3, "DELETE FROM group_memberships WHERE symbol = 'C'"),  # it never was
        (5, "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'A', 0.3)"),
        (6, "TRUNCATE group_memberships"),
    )
    for day, step in steps:
        await set_day(connection, day)
        await connection.execute(step)

    assert await rows(connection) == [
        (1, "A", Decimal("0.1"), 0, 2),
        (1, "A", Decimal("0.3"), 2, 3),
        (1, "A", Decimal("0.3"), 5, 6),
        (1, "B", None, 0, 6),
    ]


async def test_a_write_without_a_day_is_of_today_and_none_is_of_tomorrow(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute(
        "INSERT INTO definition_groups (id, name, type, environment) VALUES (1, 'g', 'ETF', 'DEFAULT')"
    )
    await connection.execute("SET stockgraph.effective_day = '2999-01-01'; SET TIME ZONE 'Pacific/Kiritimati'")
    before = datetime.now(UTC).date()
    await connection.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (1, 'A')")
    found = [
        row[0]
        for row in await connection.fetch(
            "SELECT valid_from FROM group_history UNION SELECT valid_from FROM membership_history"
        )
    ]
    assert set(found) <= {before, datetime.now(UTC).date()}


async def test_a_role_that_may_write_the_two_tables_alone_is_remembered_too(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute("""
        CREATE ROLE stockgraph_test_writer; GRANT SELECT, INSERT, UPDATE, DELETE ON definition_groups, group_memberships TO stockgraph_test_writer;
        GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO stockgraph_test_writer; SET ROLE stockgraph_test_writer;
        INSERT INTO definition_groups (name, type, environment) VALUES ('g', 'ETF', 'DEFAULT');
        INSERT INTO group_memberships (group_id, symbol) SELECT id, 'A' FROM definition_groups; RESET ROLE""")
    try:
        await sound(connection)
        assert len(await rows(connection)) == 1
    finally:
        await connection.execute("DROP OWNED BY stockgraph_test_writer; DROP ROLE stockgraph_test_writer")


# ---- a history that begins late, or has a gap


async def test_init_begins_the_history_of_groups_that_were_there_before(bare_url: str) -> None:
    connection = await asyncpg.connect(bare_url)
    await connection.execute((DATA / "predecessor.sql").read_text())
    await connection.execute("""
        UPDATE definition_groups SET created_at = '2024-01-01', updated_at = '2024-05-05', last_update = NULL;
        UPDATE group_memberships SET added_at = '2024-02-02', updated_at = '2024-03-03';
        UPDATE group_memberships SET updated_at = '2024-06-06 23:59:59' WHERE group_id = 1 AND symbol = 'MSFT';
        INSERT INTO definition_groups (id, name, type, environment, created_at, updated_at, last_update) VALUES
            (7, 'timeless', 'CUSTOM', 'DEFAULT', NULL, NULL, NULL), (8, 'of tomorrow', 'CUSTOM', 'DEFAULT', NULL, NULL, '2999-01-01')""")
    before = datetime.now(UTC).date()

    await make_tables(connection)

    found = await connection.fetch("SELECT group_id, valid_from, valid_to FROM group_history ORDER BY 1")
    today = found[2]["valid_from"]
    assert before <= today <= datetime.now(UTC).date()
    assert [tuple(row) for row in found] == [
        (1, date(2024, 6, 6), None), (2, date(2024, 5, 5), None), (7, today, None), (8, today, None)
    ]  # fmt: skip
    found = await connection.fetch(
        "SELECT group_id, symbol, weight, valid_from, valid_to FROM membership_history ORDER BY 1, 2"
    )
    assert [tuple(row) for row in found] == [
        (1, "AAPL", Decimal("0.0700"), date(2024, 6, 6), None), (1, "MSFT", Decimal("0.0600"), date(2024, 6, 6), None),
        (2, "AAPL", None, date(2024, 5, 5), None), (2, "IBM", None, date(2024, 5, 5), None),
    ]  # fmt: skip
    assert await mend_history(connection) == 0
    await connection.close()


async def test_what_was_written_past_the_triggers_is_found_and_mended(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute(PAST)
    await connection.execute(
        "RESET stockgraph.effective_day; INSERT INTO group_memberships (group_id, symbol) VALUES (1, 'NEW')"
    )
    assert [finding for finding in await check(connection, "DEFAULT") if finding.code == "history_gap"] == []
    await connection.execute("""
        ALTER TABLE definition_groups DISABLE TRIGGER USER; ALTER TABLE group_memberships DISABLE TRIGGER USER;
        UPDATE group_memberships SET weight = 0.1 WHERE group_id = 1 AND symbol = 'AAA';
        DELETE FROM group_memberships WHERE symbol IN ('BBB', 'NEW');
        INSERT INTO group_memberships (group_id, symbol) VALUES (1, 'XXX');
        INSERT INTO definition_groups (id, name, type, environment, created_at, updated_at, last_update) VALUES (9, 'unseen', 'CUSTOM', 'DEFAULT', NULL, '2025-01-05', NULL);
        UPDATE definition_groups SET name = 'renamed' WHERE id = 5; DELETE FROM definition_groups WHERE id = 4;
        ALTER TABLE definition_groups ENABLE TRIGGER USER; ALTER TABLE group_memberships ENABLE TRIGGER USER""")
    assert [finding.message for finding in await check(connection, "DEFAULT") if finding.code == "history_gap"] == [
        "CUSTOM late has a history that lacks its name; `stockgraph init` mends it.",
        "CUSTOM renamed has a history that lacks its name; `stockgraph init` mends it.",
        "CUSTOM unseen has a history that lacks its name; `stockgraph init` mends it.",
        "ETF FUND has a history that lacks 4 memberships (AAA, BBB, NEW, XXX); `stockgraph init` mends it.",
        "THEME semiconductors has a history that lacks 1 memberships (BBB); `stockgraph init` mends it.",
    ]
    then = await on_day(connection, date(2025, 1, 4))

    await make_tables(connection)

    await sound(connection)
    assert [finding for finding in await check(connection, "DEFAULT") if finding.code == "history_gap"] == []
    assert await on_day(connection, date(2025, 1, 4)) == then
    known = await connection.fetch("SELECT name, valid_from FROM group_history WHERE group_id = 9")
    assert [tuple(row) for row in known] == [("unseen", date(2025, 1, 5))]
    assert await mend_history(connection) == 0


# ---- asked


async def test_a_group_is_asked_as_a_day_ended_with_all_that_is_reached_from_it(past_ask: Ask) -> None:
    answer = await past_ask("""
    query ($day: Date!) {
      group(name: "fund", asOf: $day) {
        asOf name description metadata createdAt memberCount totalWeight symbols
        members { totalCount nodes { symbol weight rank addedAt stock { name sector { name asOf } groups { name memberCount } } } }
        exposure { group { name } weight count }
      }
    }""", day="2025-01-04")  # fmt: skip
    tech, chips = {"name": "tech", "asOf": "2025-01-04"}, {"name": "semiconductors", "memberCount": 2}
    fund, sector = {"name": "FUND", "memberCount": 4}, {"name": "tech", "memberCount": 1}
    assert answer == {
        "data": {
            "group": {
                "asOf": "2025-01-04", "name": "FUND", "description": "better words", "metadata": None, "createdAt": None,
                "memberCount": 4, "totalWeight": 1.2, "symbols": ["AAA", "BBB", "CCC", "DDD"],
                "members": {
                    "totalCount": 4,
                    "nodes": [
                        {"symbol": "AAA", "weight": 0.7, "rank": 1, "addedAt": None, "stock": {"name": "Aaa Inc.", "sector": tech, "groups": [fund, chips, sector]}},
                        {"symbol": "CCC", "weight": 0.3, "rank": 2, "addedAt": None, "stock": {"name": "Ccc Inc.", "sector": None, "groups": [fund]}},
                        {"symbol": "BBB", "weight": 0.2, "rank": 3, "addedAt": None, "stock": {"name": "Bbb Inc.", "sector": None, "groups": [fund, chips]}},
                        {"symbol": "DDD", "weight": None, "rank": 4, "addedAt": None, "stock": {"name": None, "sector": None, "groups": [fund]}},
                    ],
                },
                "exposure": [
                    {"group": {"name": "tech"}, "weight": 0.7, "count": 1}, {"group": None, "weight": 0.5, "count": 3},
                ],
            }
        }
    }  # fmt: skip
    # one statement for each relation and choice of types, at any width
    assert sorted(answer.statements) == sorted([
        "past_days", "groups_named", "group_details", "member_counts", "total_weights", "group_symbols", "members_by_weight",
        "member_ranks", "stock_details", "stock_memberships", "stock_memberships", "exposures", "member_counts",
    ])  # fmt: skip


async def test_a_universe_is_asked_as_a_day_ended(past_ask: Ask) -> None:
    query = """query ($key: String!, $day: Date) { universe(key: $key, asOf: $day) {
        key asOf size symbols groups { name description } stocks { nodes { symbol groups { name } } } } }"""
    assert await past_ask(query, key="fund-CHIPS", day="2025-01-02") == {
        "data": {
            "universe": {
                "key": "FUND-chips", "asOf": "2025-01-02", "size": 3, "symbols": ["AAA", "CCC", "DDD"],
                "groups": [{"name": "FUND", "description": "first words"}, {"name": "chips", "description": None}],
                "stocks": {
                    "nodes": [
                        {"symbol": "AAA", "groups": [{"name": "FUND"}, {"name": "tech"}]},
                        {"symbol": "CCC", "groups": [{"name": "FUND"}]}, {"symbol": "DDD", "groups": [{"name": "FUND"}]},
                    ]
                },
            }
        }
    }  # fmt: skip
    sizes = {}
    for day in ("2025-01-01", "2025-01-02", "2025-01-04", None):
        for _ in range(2):  # asked, and remembered
            answer = await past_ask(query, key="FUND", day=day)
            sizes.setdefault(day, []).append(answer["data"]["universe"]["symbols"])
    assert sizes == {
        "2025-01-01": [["AAA", "BBB"]] * 2, "2025-01-02": [["AAA", "CCC", "DDD"]] * 2,
        "2025-01-04": [["AAA", "BBB", "CCC", "DDD"]] * 2, None: [["AAA", "BBB", "CCC", "DDD"]] * 2,
    }  # fmt: skip


async def test_the_name_of_a_day_is_the_one_that_is_looked_up(past_ask: Ask) -> None:
    answer = await past_ask("""{
        then: group(name: "chips", asOf: "2025-01-03") { name symbols } after: group(name: "chips", asOf: "2025-01-04") { name }
        renamed: group(name: "semiconductors", asOf: "2025-01-04") { name symbols }
        gone: group(name: "tech", asOf: "2025-01-05") { name } there: group(name: "tech", asOf: "2025-01-04") { name symbols }
        never: group(name: "nobody", asOf: "2025-01-04") { name } otherType: group(name: "late", type: ETF, asOf: "2025-01-01") { name }
        elsewhere: group(name: "FUND", environment: TEST, asOf: "2025-01-01") { description symbols }
    }""")
    assert answer == {
        "data": {
            "then": {"name": "chips", "symbols": ["BBB"]}, "after": None,
            "renamed": {"name": "semiconductors", "symbols": ["AAA", "BBB"]},
            "gone": None, "there": {"name": "tech", "symbols": ["AAA"]}, "never": None, "otherType": None,
            "elsewhere": {"description": "of another environment", "symbols": ["ZZZ"]},
        }
    }  # fmt: skip


async def refusal(ask: Ask, field: str) -> tuple[str, dict[str, Any]]:
    """The one error that a field of the query is answered with."""
    (error,) = (await ask(f"{{ {field} }}"))["errors"]
    return error["message"], error["extensions"]


async def test_a_day_before_the_first_known_one_has_no_history(past_ask: Ask) -> None:
    def unknown(group: str, since: str) -> tuple[str, dict[str, Any]]:
        message = f"Of the group {group} nothing is known before {since}."
        return message, {"code": "NO_HISTORY", "group": group, "since": since}

    fields = {
        """group(name: "fund", asOf: "2024-12-31") { name }""": unknown("fund", "2025-01-01"),
        """universe(key: "FUND:late", asOf: "2025-01-05") { size }""": unknown("late", "2025-01-06"),
        """group(name: "semiconductors", asOf: "2025-01-03") { name }""": unknown("semiconductors", "2025-01-04"),
        """group(name: "late") { changes(since: "2025-01-05") { since } }""": unknown("late", "2025-01-06"),
        """universe(key: "FUND:nobody", asOf: "2025-01-05") { size }""": (
            "On 2025-01-05 there was no group nobody; `groups` lists those there are.",
            wrong_part("UNKNOWN_GROUP", 6, "nobody", near=[]),
        ),
        """universe(key: "tech", asOf: "2025-01-05") { size }""": (
            "On 2025-01-05 there was no group tech; `groups` lists those there are.",
            wrong_part("UNKNOWN_GROUP", 1, "tech", near=[]),
        ),
    }
    assert {field: await refusal(past_ask, field) for field in fields} == fields


async def test_a_day_to_come_is_no_argument(past_ask: Ask) -> None:
    today = datetime.now(UTC).date()
    fields = {
        """group(name: "FUND", asOf: "2999-01-01") { name }""": f"asOf: 2999-01-01 is yet to come; today is {today}, in UTC.",
        """universe(key: "FUND", asOf: "9999-12-31") { size }""": f"asOf: 9999-12-31 is yet to come; today is {today}, in UTC.",
        """group(name: "FUND") { changes(since: "2999-01-01") { since } }""": f"since: 2999-01-01 is yet to come; today is {today}, in UTC.",
        """group(name: "FUND", asOf: "2025-01-02") { changes(since: "2025-01-03") { since } }""": (
            "since: 2025-01-03 is after 2025-01-02, the day that the group is asked of."
        ),
    }
    assert {field: await refusal(past_ask, field) for field in fields} == {
        field: (message, {"code": "INVALID_ARGUMENT"}) for field, message in fields.items()
    }


async def test_changes_are_what_joined_left_and_was_reweighted(past_ask: Ask) -> None:
    query = """query ($since: Date!, $day: Date) { group(name: "FUND", asOf: $day) { changes(since: $since) {
        since joined { ...c } left { ...c } reweighted { ...c } } } } fragment c on MemberChange { symbol day before after stock { name } }"""

    async def changes(since: str, day: str | None = None) -> dict[str, list[tuple[Any, ...]]]:
        found = (await past_ask(query, since=since, day=day))["data"]["group"]["changes"]
        assert found.pop("since") == since
        return {
            what: [(each["symbol"], each["day"], each["before"], each["after"], each["stock"]["name"]) for each in some]
            for what, some in found.items()
        }

    assert await changes("2025-01-01", "2025-01-03") == {
        "joined": [("CCC", "2025-01-02", None, 0.3, "Ccc Inc."), ("DDD", "2025-01-02", None, None, None)],
        "left": [("BBB", "2025-01-02", 0.4, None, "Bbb Inc.")],
        "reweighted": [("AAA", "2025-01-03", 0.6, 0.7, "Aaa Inc.")],
    }
    assert await changes("2025-01-01") == {
        "joined": [("CCC", "2025-01-02", None, 0.3, "Ccc Inc."), ("DDD", "2025-01-02", None, None, None)],
        "left": [],
        "reweighted": [("AAA", "2025-01-03", 0.6, 0.7, "Aaa Inc."), ("BBB", "2025-01-04", 0.4, 0.2, "Bbb Inc.")],
    }
    assert await changes("2025-01-03") == {
        "joined": [("BBB", "2025-01-04", None, 0.2, "Bbb Inc.")], "left": [], "reweighted": [],
    }  # fmt: skip
    assert await changes("2025-01-06") == {"joined": [], "left": [], "reweighted": []}


async def test_a_cursor_is_bound_to_the_day(past_ask: Ask) -> None:
    query = """query ($day: Date, $after: String) { group(name: "FUND", asOf: $day) {
        members(first: 2, after: $after) { nodes { symbol } pageInfo { hasNextPage endCursor } } } }"""
    first = (await past_ask(query, day="2025-01-04"))["data"]["group"]["members"]
    assert (first["nodes"], first["pageInfo"]["hasNextPage"]) == ([{"symbol": "AAA"}, {"symbol": "CCC"}], True)
    after = first["pageInfo"]["endCursor"]
    second = (await past_ask(query, day="2025-01-04", after=after))["data"]["group"]["members"]
    assert (second["nodes"], second["pageInfo"]["hasNextPage"]) == ([{"symbol": "BBB"}, {"symbol": "DDD"}], False)
    for day in ("2025-01-05", None):
        answer = await past_ask(query, day=day, after=after)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["BAD_CURSOR"]


async def test_an_id_carries_the_day(past_ask: Ask) -> None:
    answer = await past_ask("""{
        now: group(name: "FUND") { id } then: group(name: "FUND", asOf: "2025-01-02") { id members(first: 1) { nodes { stock { id } } } } }""")
    now, then = answer["data"]["now"]["id"], answer["data"]["then"]["id"]
    stock = answer["data"]["then"]["members"]["nodes"][0]["stock"]["id"]
    assert now != then
    answer = await past_ask("""query ($now: ID!, $then: ID!, $stock: ID!) {
        now: node(id: $now) { ...g } then: node(id: $then) { ...g } stock: node(id: $stock) { id ... on Stock { groups { name asOf } } }
    } fragment g on Group { id asOf symbols }""", now=now, then=then, stock=stock)  # fmt: skip
    assert answer == {
        "data": {
            "now": {"id": now, "asOf": None, "symbols": ["AAA", "BBB", "CCC", "DDD"]},
            "then": {"id": then, "asOf": "2025-01-02", "symbols": ["AAA", "CCC", "DDD"]},
            "stock": {
                "id": stock,
                "groups": [{"name": "FUND", "asOf": "2025-01-02"}, {"name": "tech", "asOf": "2025-01-02"}],
            },
        }
    }
    forged = [
        '["Group","DEFAULT",1,"2025-13-01"]',
        '["Group","DEFAULT",1,5]',
        '["Group","DEFAULT",1,"2025-01-01",2]',
        '["Group"]',
        "[]",
        "5",
    ]
    for text in forged:
        written = base64.urlsafe_b64encode(text.encode()).decode()
        assert await past_ask("query ($id: ID!) { node(id: $id) { id } }", id=written) == {"data": {"node": None}}


async def test_a_correction_of_the_history_is_in_the_next_answer(live: Live) -> None:
    await live.writer.execute(
        "UPDATE membership_history SET valid_from = '2020-01-01'; UPDATE group_history SET valid_from = '2020-01-01'"
    )
    query = """{ universe(key: "BIG", asOf: "2020-01-02") { symbols } }"""
    before = await live.ask(query)
    await live.writer.execute(
        "INSERT INTO membership_history (group_id, symbol, valid_from, valid_to) VALUES (1, 'OLD', '2019-01-01', '2021-01-01')"
    )
    await asyncio.sleep(CONFIRMED_SECONDS)
    after = await live.ask(query)
    assert sorted(before["data"]["universe"]["symbols"] + ["OLD"]) == after["data"]["universe"]["symbols"]


async def test_a_database_without_history_says_so(live: Live) -> None:
    await live.writer.execute("ALTER TABLE group_memberships DISABLE TRIGGER history_open_insert")
    answer = await live.ask("""{ group(name: "BIG", asOf: "2020-01-01") { name } }""")
    message = "This database does not keep the history of its groups; `stockgraph init` begins one, unless a subscription writes them."
    assert [(error["message"], error["extensions"]) for error in answer["errors"]] == [
        (message, {"code": "NO_HISTORY"})
    ]
    await live.writer.execute(
        "DROP FUNCTION groups_on, memberships_on; DROP TABLE group_history, membership_history CASCADE"
    )
    answer = await live.ask("""{ universe(key: "BIG", asOf: "2020-01-01") { size } }""")
    assert [(error["message"], error["extensions"]) for error in answer["errors"]] == [
        (message, {"code": "NO_HISTORY"})
    ]


async def test_statements_are_not_compiled(databases: Any) -> None:
    async with Database(await databases.make()) as database, database.connection() as connection:
        assert await connection.fetchval("SHOW jit") == "off"


# ---- what nobody may do to it, and what may not be done by chance


async def test_a_role_without_rights_can_neither_end_nor_forge_a_history(
    connection: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await connection.execute(PAST)
    before = await connection.fetch("SELECT * FROM membership_history ORDER BY 1, 2, 4")
    await connection.execute(
        "CREATE ROLE stockgraph_test_reader; GRANT SELECT ON ALL TABLES IN SCHEMA public TO stockgraph_test_reader"
    )
    try:
        for function in (
            "close_membership_history", "open_membership_history", "close_group_history", "open_group_history", "record_data_change",
            "record_price_change",
        ):  # fmt: skip
            await connection.execute("SET ROLE stockgraph_test_reader; CREATE TEMPORARY TABLE mine (group_id int)")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"CREATE TRIGGER x AFTER TRUNCATE ON mine EXECUTE FUNCTION {function}()")
            await connection.execute("DROP TABLE mine; RESET ROLE")
    finally:
        await connection.execute("RESET ROLE; DROP OWNED BY stockgraph_test_reader; DROP ROLE stockgraph_test_reader")
    assert await connection.fetch("SELECT * FROM membership_history ORDER BY 1, 2, 4") == before


async def test_a_writer_with_an_old_snapshot_fails_and_leaves_no_hole(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    await connection.execute(PAST)
    await connection.execute("RESET stockgraph.effective_day")
    other = await asyncpg.connect(database_url)
    insert = "INSERT INTO group_memberships (group_id, symbol, weight) VALUES (1, 'AAA', 0.7)"
    try:
        transaction = other.transaction(isolation="repeatable_read")
        await transaction.start()
        await other.fetch("SELECT FROM group_memberships")
        await connection.execute("DELETE FROM group_memberships WHERE group_id = 1 AND symbol = 'AAA'")
        with pytest.raises(asyncpg.SerializationError):
            await other.execute(insert)
        await transaction.rollback()
        await other.execute(insert)
        await sound(connection)
    finally:
        await other.close()


async def test_an_init_with_nothing_to_mend_waits_for_nobody(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    await connection.execute(PAST)
    other = await asyncpg.connect(database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("DELETE FROM group_memberships WHERE symbol = 'AAA'")
        await connection.execute("SET lock_timeout = '5s'")
        assert await mend_history(connection) == 0
        await transaction.rollback()
    finally:
        await other.close()


async def test_an_id_that_is_used_again_has_no_part_in_the_past_of_another_group(
    connection: "asyncpg.Connection[asyncpg.Record]", database_url: str
) -> None:
    await connection.execute(PAST)
    await connection.execute("""RESET stockgraph.effective_day; TRUNCATE definition_groups RESTART IDENTITY CASCADE;
        INSERT INTO definition_groups (name, type, environment) VALUES ('NEW', 'ETF', 'DEFAULT');
        INSERT INTO group_memberships (group_id, symbol) VALUES (1, 'XXX')""")
    async with open_runtime(Settings(database_url=database_url), listen=False) as runtime:
        ask = asker(runtime)
        today = datetime.now(UTC).date()
        assert await refusal(ask, """group(name: "new") { changes(since: "2025-01-03") { since } }""") == (
            f"Of the group NEW nothing is known before {today}.", {"code": "NO_HISTORY", "group": "NEW", "since": str(today)},
        )  # fmt: skip
        answer = await ask("""{ group(name: "fund", asOf: "2025-01-02") { symbols } }""")
        assert answer == {"data": {"group": {"symbols": ["AAA", "CCC", "DDD"]}}}


async def test_a_history_is_wide_enough_for_tables_made_by_others(bare_url: str) -> None:
    connection = await asyncpg.connect(bare_url)
    await connection.execute((DATA / "predecessor.sql").read_text())
    await connection.execute(
        "ALTER TABLE definition_groups ALTER name TYPE text; ALTER TABLE group_memberships ALTER symbol TYPE text"
    )
    await make_tables(connection)
    await connection.execute(
        "INSERT INTO definition_groups (name, type, environment) VALUES (repeat('n', 150), 'ETF', 'DEFAULT')"
    )
    await connection.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (1, repeat('S', 60))")
    await sound(connection)
    await connection.close()
