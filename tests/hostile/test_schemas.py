"""Tables that others partition, rewrite, replace, filter and forbid: a change that cannot be counted is never served over."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from conftest import Databases, Live, asker, seconds_until

from graph.api.nodes import UNIVERSES
from graph.caching.generations import ListenerMode
from graph.execution.runtime import open_runtime
from graph.postgres.ddl import make_tables
from graph.postgres.embedded import embedded_postgres
from graph.postgres.statements import STATEMENTS, TEXTS
from graph.settings import Settings

CHANGES = '{ universe(key: "top3") { symbols performance(windows: [DAY]) { to change } } }'
WEIGHTS = '{ group(name: "BIG") { totalWeight members { nodes { symbol weight } } } }'
NAME = '{ stock(symbol: "AAPL") { name } }'
SYMBOLS = '{ universe(key: "top3") { symbols } }'
UNTRACKED = "Nothing is cached, and every answer is read from the database: "

PARTITIONED_PRICES = """
ALTER TABLE ohlcv_daily RENAME TO plain;
CREATE TABLE ohlcv_daily (LIKE plain, PRIMARY KEY (symbol, date)) PARTITION BY RANGE (date);
CREATE SCHEMA parts;
CREATE TABLE parts.ohlcv_early PARTITION OF ohlcv_daily FOR VALUES FROM (MINVALUE) TO ('2024-03-08');
CREATE TABLE parts.ohlcv_2024 PARTITION OF ohlcv_daily FOR VALUES FROM ('2024-03-08') TO ('2025-01-01') PARTITION BY LIST (symbol);
CREATE TABLE parts."Of 2024" PARTITION OF parts.ohlcv_2024 DEFAULT;
INSERT INTO ohlcv_daily SELECT * FROM plain;
DROP TABLE plain;
"""
PARTITIONED_MEMBERS = """
ALTER TABLE group_memberships RENAME TO plain;
CREATE TABLE group_memberships (LIKE plain INCLUDING DEFAULTS, UNIQUE (group_id, symbol)) PARTITION BY LIST (group_id);
CREATE TABLE members_9 PARTITION OF group_memberships FOR VALUES IN (9);
CREATE TABLE members_other PARTITION OF group_memberships DEFAULT;
INSERT INTO group_memberships SELECT * FROM plain;
ALTER SEQUENCE group_memberships_id_seq OWNED BY group_memberships.id;
DROP TABLE plain;
"""
INHERITED_NAMES = "CREATE TABLE more_symbols () INHERITS (symbols); INSERT INTO more_symbols VALUES ('NEW', 'New'); "


READER = "stockgraph_test_hostile_reader"


@pytest.fixture
async def open_live(databases: Databases, priced_template: str) -> AsyncIterator[Callable[..., Any]]:
    """Make a market with prices of the test's own, whose tables were changed before `stockgraph init` ran again."""
    async with AsyncExitStack() as opened:

        async def open_live(setup: str = "SELECT", *, role: str = "") -> Live:
            url = await databases.make(priced_template)
            writer = await asyncpg.connect(url)
            opened.push_async_callback(writer.close)
            if role:
                await writer.execute(f"CREATE ROLE {role}; CREATE ROLE {role}_group; GRANT {role}_group TO {role}")
                drop = f"DROP OWNED BY {role}, {role}_group; DROP ROLE {role}, {role}_group"
                opened.push_async_callback(writer.execute, drop)
            await writer.execute(setup)
            await make_tables(writer)
            served = f"{url}{'&' if urlsplit(url).query else '?'}role={role}" if role else url
            runtime = await opened.enter_async_context(open_runtime(Settings(database_url=served)))
            await runtime.generations.confirmed()
            return Live(url, runtime, asker(runtime), writer)

        yield open_live


async def has_mode(live: Live, mode: ListenerMode) -> None:
    async def has() -> bool:
        return live.runtime.generations.mode is mode

    await seconds_until(has)


async def truth(live: Live, query: str) -> Any:
    """The answer of a server that caches nothing."""
    async with open_runtime(Settings(database_url=live.url), listen=False) as runtime:
        return await asker(runtime)(query)


@pytest.mark.parametrize(
    ("setup", "query", "change"),
    [
        (PARTITIONED_PRICES, CHANGES, """UPDATE parts."Of 2024" SET close = 51 WHERE symbol = 'AAPL'"""),
        (PARTITIONED_PRICES, CHANGES, "UPDATE parts.ohlcv_2024 SET close = 51 WHERE symbol = 'AAPL'"),
        (PARTITIONED_PRICES, CHANGES, "ALTER TABLE ohlcv_daily DETACH PARTITION parts.ohlcv_2024"),
        (PARTITIONED_PRICES, CHANGES, "ALTER TABLE ohlcv_daily DETACH PARTITION parts.ohlcv_2024 CONCURRENTLY"),
        (PARTITIONED_PRICES, CHANGES, """ALTER TABLE parts.ohlcv_2024 DETACH PARTITION parts."Of 2024" """),
        (
            PARTITIONED_PRICES + "ALTER TABLE ohlcv_daily DETACH PARTITION parts.ohlcv_2024",
            CHANGES,
            "ALTER TABLE ohlcv_daily ATTACH PARTITION parts.ohlcv_2024 FOR VALUES FROM ('2024-03-08') TO ('2025-01-01')",
        ),
        (PARTITIONED_PRICES, CHANGES, """TRUNCATE parts."Of 2024" """),
        (PARTITIONED_MEMBERS, SYMBOLS, "DELETE FROM members_9 WHERE symbol = 'AAPL'"),
        (INHERITED_NAMES, NAME.replace("AAPL", "NEW"), "UPDATE more_symbols SET name = 'Newer'"),
        ("SELECT", WEIGHTS, "ALTER TABLE group_memberships ALTER weight TYPE numeric(9,8) USING weight / 2"),
        (
            "SELECT",
            NAME,
            "BEGIN; ALTER TABLE symbols DROP COLUMN name; ALTER TABLE symbols ADD COLUMN name text DEFAULT 'x'; COMMIT",
        ),
        (
            "CREATE TABLE next (LIKE symbols INCLUDING ALL); INSERT INTO next SELECT symbol, 'Next' FROM symbols",
            NAME,
            "BEGIN; ALTER TABLE symbols RENAME TO previous; ALTER TABLE next RENAME TO symbols; COMMIT",
        ),
        (
            "SELECT",
            WEIGHTS,
            "BEGIN; ALTER TABLE group_memberships DISABLE TRIGGER USER; UPDATE group_memberships SET weight = weight / 2;"
            + "".join(
                f"ALTER TABLE group_memberships ENABLE ALWAYS TRIGGER {trigger};"
                for trigger in (
                    *(f"data_change_{event}" for event in ("insert", "update", "delete", "truncate")),
                    *(f"history_close_{event}" for event in ("update", "delete", "truncate")),
                    "history_open_insert",
                    "history_open_update",
                )
            )
            + "COMMIT",
        ),
    ],
)
async def test_the_answer_is_true_a_second_after_a_change_that_fires_no_trigger_of_the_table(
    open_live: Callable[..., Any], setup: str, query: str, change: str
) -> None:
    live = await open_live(setup)
    before = await live.ask(query)
    assert live.runtime.generations.mode is ListenerMode.NOTIFY
    for statement in change.split(";") if "CONCURRENTLY" not in change else [change]:
        await live.writer.execute(statement)
    then = await truth(live, query)
    assert then != before

    async def seen() -> bool:
        return bool(await live.ask(query) == then)

    assert await seconds_until(seen) < 1


class RewritesOnce:
    """Stands before a database, and rewrites a table once, as soon as the weights of members have been read."""

    def __init__(self, live: Live) -> None:
        self._database, self._live, self._left = live.runtime.database, live, 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def fetch(self, statement: str, *arguments: Any, **options: Any) -> Any:
        reading = await self._database.fetch(statement, *arguments, **options)
        if statement == "members_by_weight" and self._left:
            self._left = 0
            await self._live.writer.execute(
                "ALTER TABLE group_memberships ALTER weight TYPE numeric(9,8) USING weight / 2"
            )
        return reading


async def test_an_answer_does_not_mix_the_rows_before_and_after_a_rewrite(open_live: Callable[..., Any]) -> None:
    live = await open_live()
    object.__setattr__(live.runtime, "database", RewritesOnce(live))
    query = '{ group(name: "BIG") { members { nodes { weight stock { memberships { weight group { name } } } } } } }'
    answer = await live.ask(query)
    assert answer == await truth(live, query)
    assert answer.statements.count("members_by_weight") == 2


@pytest.mark.parametrize(
    ("setup", "change", "reason"),
    [
        (
            PARTITIONED_PRICES,
            "CREATE TABLE parts.next PARTITION OF ohlcv_daily FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')",
            "changes of parts.next are not recorded; `stockgraph init` adds what records them.",
        ),
        (
            PARTITIONED_PRICES,
            """ALTER TABLE parts."Of 2024" DISABLE TRIGGER data_change_update""",
            """changes of parts."Of 2024" are not recorded; `stockgraph init` adds what records them.""",
        ),
        (
            "SELECT",
            'CREATE TABLE "a\x1b[2J\nb" () INHERITS (symbols)',
            'changes of "a?[2J?b" are not recorded; `stockgraph init` adds what records them.',
        ),
        (
            "SELECT",
            "; ".join(f"CREATE TABLE child_{number} () INHERITS (symbols)" for number in range(5)),
            "changes of child_0, child_1, child_2 and 2 more are not recorded; `stockgraph init` adds what records them.",
        ),
    ],
)
async def test_a_partition_without_triggers_is_told_and_init_mends_it(
    open_live: Callable[..., Any], setup: str, change: str, reason: str
) -> None:
    live = await open_live(setup)
    await live.ask(SYMBOLS)
    await live.writer.execute(change)
    await has_mode(live, ListenerMode.OFF)
    status = "{ status { listener { mode reason behindSeconds } } }"
    assert await live.ask(status) == {
        "data": {"status": {"listener": {"mode": "OFF", "reason": UNTRACKED + reason, "behindSeconds": None}}}
    }
    hits = live.runtime.stats(UNIVERSES).hits
    await live.ask(SYMBOLS)
    assert live.runtime.stats(UNIVERSES).hits == hits
    assert await make_tables(live.writer) != []
    await has_mode(live, ListenerMode.NOTIFY)
    assert await live.ask(status) == {
        "data": {"status": {"listener": {"mode": "NOTIFY", "reason": None, "behindSeconds": None}}}
    }
    assert await make_tables(live.writer) == []


async def test_a_foreign_partition_is_told(open_live: Callable[..., Any]) -> None:
    live = await open_live()
    await live.writer.execute(
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER elsewhere FOREIGN DATA WRAPPER elsewhere;"
        "CREATE FOREIGN TABLE far () INHERITS (symbols) SERVER elsewhere"
    )
    await has_mode(live, ListenerMode.OFF)
    reason = "changes of far are made on another server and cannot be recorded."
    assert live.runtime.generations.untracked_reason == UNTRACKED + reason
    await make_tables(live.writer)


async def test_the_history_of_a_partition_that_is_emptied_ends_and_no_other(open_live: Callable[..., Any]) -> None:
    live = await open_live(PARTITIONED_MEMBERS)
    await live.writer.execute("UPDATE membership_history SET valid_from = '2020-01-01'; TRUNCATE members_9")
    ended = await live.writer.fetch("SELECT DISTINCT group_id FROM membership_history WHERE valid_to IS NOT NULL")
    assert [row[0] for row in ended] == [9]


async def test_a_transaction_that_does_not_notify_can_be_prepared_and_is_seen(open_live: Callable[..., Any]) -> None:
    live = await open_live()
    assert (await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["AAPL", "MSFT", "NVDA"]
    heard: list[object] = []
    await live.writer.add_listener("stockgraph", lambda *said: heard.append(said[3]))
    prepares = int(await live.writer.fetchval("SHOW max_prepared_transactions")) > 0
    for change in (
        "DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'AAPL'",
        "UPDATE ohlcv_daily SET close = 1 WHERE symbol = 'MSFT'",
    ):
        await live.writer.execute("BEGIN; SET LOCAL stockgraph.notify = off")
        await live.writer.execute(change)
        await live.writer.execute("PREPARE TRANSACTION 'stockgraph_test'" if prepares else "COMMIT")
        if prepares:
            await live.writer.execute("COMMIT PREPARED 'stockgraph_test'")
    then = await truth(live, CHANGES)

    async def seen() -> bool:
        return bool(await live.ask(CHANGES) == then)

    assert await seconds_until(seen) < 1
    assert then["data"]["universe"]["symbols"] == ["MSFT", "NVDA"]
    assert heard == []


GRANT = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}"


@pytest.mark.parametrize(
    ("granted", "revoke"),
    [
        ("{}", "REVOKE SELECT ON group_memberships FROM {0}"),
        ("{}_group", "REVOKE {0}_group FROM {0}"),
    ],
)
async def test_nothing_is_served_to_a_role_that_has_lost_its_rights(
    open_live: Callable[..., Any], granted: str, revoke: str
) -> None:
    live = await open_live(GRANT.format(granted.format(READER)), role=READER)
    assert (await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["AAPL", "MSFT", "NVDA"]
    await live.writer.execute(revoke.format(READER))

    async def refused() -> bool:
        return "errors" in await live.ask(SYMBOLS)

    assert await seconds_until(refused) < 1
    assert [error["extensions"] for error in (await live.ask(SYMBOLS))["errors"]] == [{"code": "DATABASE_UNAVAILABLE"}]


POLICY = (
    "ALTER TABLE group_memberships ENABLE ROW LEVEL SECURITY;"
    "CREATE TABLE hidden (symbol text); INSERT INTO hidden VALUES ('AAPL'); GRANT SELECT ON hidden TO PUBLIC;"
    "CREATE POLICY visible ON group_memberships USING (symbol NOT IN (SELECT symbol FROM hidden))"
)


async def test_what_a_policy_hides_is_hidden_on_past_days_too_and_its_changes_are_seen(
    open_live: Callable[..., Any],
) -> None:
    live = await open_live(GRANT.format(READER), role=READER)
    assert (await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["AAPL", "MSFT", "NVDA"]
    await live.writer.execute("UPDATE membership_history SET valid_from = '2020-01-01'")
    await live.writer.execute("UPDATE group_history SET valid_from = '2020-01-01'")
    past = SYMBOLS.replace('"top3"', '"top3", asOf: "2020-01-02"')
    assert (await live.ask(past))["data"]["universe"]["symbols"] == ["AAPL", "MSFT", "NVDA"]
    await live.writer.execute(POLICY)

    async def hidden() -> bool:
        return bool((await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["MSFT", "NVDA"])

    assert await seconds_until(hidden) < 1
    await has_mode(live, ListenerMode.OFF)
    assert live.runtime.generations.untracked_reason == UNTRACKED + (
        "row security filters group_memberships for this server's role; a role to which it does not apply is followed."
    )
    # a table that only the policy reads
    await live.writer.execute("INSERT INTO hidden VALUES ('MSFT')")
    assert (await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["NVDA"]
    message = (
        "Row security hides rows of the groups from this server, and their history has no policy: past days are not"
        " answered until `group_history` and `membership_history` have one."
    )
    for query in (past, '{ group(name: "top3") { changes(since: "2020-01-02") { joined { symbol } } } }'):
        errors = (await live.ask(query))["errors"]
        assert [(error["message"], error["extensions"]) for error in errors] == [(message, {"code": "NO_HISTORY"})]
    await live.writer.execute(
        "ALTER TABLE membership_history ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY visible ON membership_history USING (symbol NOT IN (SELECT symbol FROM hidden))"
    )
    assert (await live.ask(past))["data"]["universe"]["symbols"] == ["NVDA"]


async def test_a_record_of_changes_that_is_hidden_is_not_taken_for_none(open_live: Callable[..., Any]) -> None:
    live = await open_live(GRANT.format(READER), role=READER)
    await live.writer.execute("ALTER TABLE data_change ENABLE ROW LEVEL SECURITY")
    await has_mode(live, ListenerMode.OFF)
    await live.ask(SYMBOLS)
    await live.writer.execute("DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'AAPL'")
    assert (await live.ask(SYMBOLS))["data"]["universe"]["symbols"] == ["MSFT", "NVDA"]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that the user of an embedded PostgreSQL may enter."""
    home = Path(tempfile.mkdtemp(prefix="stockgraph-tests-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


async def test_a_standby_polls_until_it_is_promoted(home: Path) -> None:
    with embedded_postgres(home) as url:
        connection = await asyncpg.connect(url)
        await make_tables(connection)
        await connection.close()
    (home / "data" / "standby.signal").touch()
    with embedded_postgres(home) as url:
        async with open_runtime(Settings(database_url=url)) as runtime:
            await runtime.generations.confirmed()
            status = "{ status { listener { mode behindSeconds reconnects } } }"
            ask = asker(runtime)
            assert await ask(status) == {
                "data": {"status": {"listener": {"mode": "POLL", "behindSeconds": 0, "reconnects": 0}}}
            }
            writer = await asyncpg.connect(url)
            assert await writer.fetchval("SELECT pg_promote()")
            await has_mode(Live(url, runtime, ask, writer), ListenerMode.NOTIFY)
            assert await ask(status) == {
                "data": {"status": {"listener": {"mode": "NOTIFY", "behindSeconds": None, "reconnects": 0}}}
            }
            await writer.close()


RAISES = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'evil'; END $$"
EVIL = [
    *(
        f"CREATE FUNCTION evil(a {left}, b {right}) RETURNS boolean {RAISES};"
        + "".join(
            f"CREATE OPERATOR {operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil);"
            for operator in ("=", "<>", "<", ">", "<=", ">=")
        )
        for left, right in (
            ("varchar", "varchar"),
            ("varchar", "text"),
            ("text", "varchar"),
            ("oid", "regclass"),
            ("regclass", "oid"),
            ("double precision", "integer"),
            ("numeric", "integer"),
        )
    ),
    *(
        f"CREATE FUNCTION {name}({arguments}) RETURNS {result} {RAISES};"
        for name, arguments, result in (
            ("lower", "varchar", "text"),
            ("min", "varchar", "varchar"),
            ("array_agg", "varchar", "varchar[]"),
            ("array_agg", "text", "text[]"),
            ("array_agg", "integer", "integer[]"),
            ("array_agg", "double precision", "double precision[]"),
            ("jsonb_agg", "integer", "jsonb"),
            ("to_char", "date, text", "text"),
            ("length", "varchar", "integer"),
            ("starts_with", "varchar, text", "boolean"),
            ("unnest", "text[]", "SETOF text"),
            ("unnest", "integer[]", "SETOF integer"),
            ("concat_ws", "text, oid, xid", "text"),
            ("count", "regclass", "bigint"),
            ("hashtextextended", "varchar, integer", "bigint"),
        )
    ),
]


@pytest.mark.parametrize("name", [name for name in STATEMENTS if name != "with_generation"])
async def test_no_statement_runs_what_others_have_made(open_live: Callable[..., Any], name: str) -> None:
    live = await open_live()
    # before, since asyncpg looks up types by a statement of its own
    prepared = [
        (TEXTS[name, True, dated], await live.writer.prepare(TEXTS[name, True, dated])) for dated in (False, True)
    ]
    await live.writer.execute("".join(EVIL))
    for text, statement in prepared:
        types = ", ".join(each.name for each in statement.get_parameters())
        # the body of such a function is parsed as it is made, and depends on all that it would run
        await live.writer.execute(
            f"CREATE OR REPLACE FUNCTION probe({types}) RETURNS SETOF record BEGIN ATOMIC {text}; END"
        )
        used = await live.writer.fetch(
            """SELECT pg_describe_object(refclassid, refobjid, refobjsubid) FROM pg_depend
               WHERE objid = to_regproc('probe') AND (refclassid = 'pg_operator'::regclass::oid
                   OR refclassid = 'pg_proc'::regclass::oid AND refobjid NOT IN (
                       SELECT oid FROM pg_proc WHERE proname IN ('groups_on', 'memberships_on')))"""
        )
        assert used == []
        await live.writer.execute("DROP FUNCTION probe")


async def test_no_trigger_runs_what_others_have_made(open_live: Callable[..., Any]) -> None:
    live = await open_live()
    await live.writer.execute("".join(EVIL))
    for change in (
        "INSERT INTO definition_groups (name, type, environment) VALUES ('new', 'ETF', 'DEFAULT')",
        "INSERT INTO group_memberships (group_id, symbol, weight) SELECT 10, symbol, 0.5 FROM symbols",
        "UPDATE group_memberships SET weight = 0.25",
        "UPDATE definition_groups SET description = 'new'",
        "UPDATE ohlcv_daily SET close = 7",
        "DELETE FROM group_memberships",
        "TRUNCATE definition_groups CASCADE",
    ):
        await live.writer.execute(change)
    assert await live.ask("{ groups { totalCount } }") == {"data": {"groups": {"totalCount": 0}}}
