"""What may still be believed: changes of every kind are seen, whatever is lost on the way."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from conftest import Databases, Live, asker, seconds_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.api.nodes import UNIVERSES
from graph.caching.generations import CONFIRMED_SECONDS, GenerationTracker, ListenerMode
from graph.execution.runtime import open_runtime
from graph.postgres.database import Generation, ReadResult
from graph.postgres.ddl import make_tables
from graph.settings import Settings

TOP3 = '{ universe(key: "top3") { symbols } }'


async def top3(live: Live) -> list[str]:
    symbols: list[str] = (await live.ask(TOP3))["data"]["universe"]["symbols"]
    return symbols


async def generation(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    counted: int = await connection.fetchval("SELECT sum(weight)::bigint FROM data_change WHERE family = 'groups'")
    return counted


async def cut(live: Live, *, all_connections: bool = False) -> None:
    """End the server's listening connection, or every connection that it has."""
    await live.writer.execute(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid() AND ($1 OR query LIKE '%WITH watched%')""",
        all_connections,
    )


@pytest.mark.parametrize(
    ("change", "symbols"),
    [
        ("INSERT INTO group_memberships (group_id, symbol) VALUES (9, 'IBM')", ["AAPL", "IBM", "MSFT", "NVDA"]),
        ("DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'MSFT'", ["AAPL", "NVDA"]),
        ("UPDATE group_memberships SET symbol = 'AMD' WHERE group_id = 9 AND symbol = 'NVDA'", ["AAPL", "AMD", "MSFT"]),
        ("UPDATE group_memberships SET group_id = 10 WHERE group_id = 9 AND symbol = 'NVDA'", ["AAPL", "MSFT"]),
        ("TRUNCATE group_memberships", []),
        ("SET session_replication_role = replica; DELETE FROM group_memberships WHERE group_id = 9", []),
    ],
)
@pytest.mark.parametrize("lost", [False, True], ids=["", "the listening connection is cut"])
async def test_a_change_is_in_the_next_answer_within_a_second(
    live: Live, change: str, symbols: list[str], *, lost: bool
) -> None:
    assert await top3(live) == ["AAPL", "MSFT", "NVDA"]
    if lost:
        await cut(live)
    await live.writer.execute(change)

    async def seen() -> bool:
        return await top3(live) == symbols

    assert await seconds_until(seen) < 1


async def test_a_group_that_goes_is_unknown_within_a_second(live: Live) -> None:
    assert await top3(live) == ["AAPL", "MSFT", "NVDA"]
    await live.writer.execute("DELETE FROM definition_groups WHERE name = 'top3'")

    async def gone() -> bool:
        return "errors" in await live.ask(TOP3)

    assert await seconds_until(gone) < 1


async def test_the_listening_connection_is_made_again_and_what_was_kept_is_dropped(live: Live) -> None:
    await top3(live)
    epoch = live.runtime.generations.epoch
    await cut(live)

    async def made_again() -> bool:
        return (
            live.runtime.generations.reconnects == 1
            and live.runtime.generations.confirmed_generation("groups") is not None
        )

    await seconds_until(made_again)
    assert live.runtime.generations.epoch > epoch
    assert live.runtime.generations.mode is ListenerMode.NOTIFY
    assert (await live.ask(TOP3)).statements == ["group_names", "group_symbols"]


async def test_a_poll_sees_what_no_notification_told(live: Live) -> None:
    await top3(live)
    # the row of a change without its notification: as if that had been lost
    await live.writer.execute("ALTER TABLE group_memberships DISABLE TRIGGER data_change_delete")
    await live.writer.execute("ALTER TABLE group_memberships ENABLE ALWAYS TRIGGER data_change_delete")
    before = live.runtime.generations.generation
    assert before
    await live.writer.execute("INSERT INTO data_change (family, xid) VALUES ('groups', pg_current_xact_id())")

    async def seen() -> bool:
        return live.runtime.generations.confirmed_generation("groups") == Generation(before.groups + 1, before.prices)

    assert await seconds_until(seen) < 1


@pytest.mark.parametrize(
    "blindfold",
    [
        "ALTER TABLE group_memberships DISABLE TRIGGER data_change_insert",
        "ALTER TABLE symbols ENABLE TRIGGER data_change_update",
        "DROP TRIGGER data_change_truncate ON definition_groups",
        "DROP FUNCTION record_data_change CASCADE; DROP TABLE data_change",
    ],
)
async def test_without_the_triggers_nothing_is_kept_and_init_brings_them_back(live: Live, blindfold: str) -> None:
    await top3(live)
    await live.writer.execute(blindfold)

    async def off() -> bool:
        return live.runtime.generations.mode is ListenerMode.OFF

    await seconds_until(off)
    hits = live.runtime.stats(UNIVERSES).hits
    for symbol, expected in (("AMD", ["AAPL", "AMD", "MSFT", "NVDA"]), ("IBM", ["AAPL", "AMD", "IBM", "MSFT", "NVDA"])):
        await live.writer.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (9, $1)", symbol)
        assert await top3(live) == expected
    assert live.runtime.stats(UNIVERSES).hits == hits
    await make_tables(live.writer)

    async def on() -> bool:
        return live.runtime.generations.mode is ListenerMode.NOTIFY

    await seconds_until(on)
    assert await top3(live) == ["AAPL", "AMD", "IBM", "MSFT", "NVDA"]


@given(
    transactions=st.lists(
        st.tuples(
            st.lists(st.sampled_from(["write", "nothing", "savepoint", "undone", "truncate", "cascade"]), max_size=4),
            st.sampled_from(["read committed", "repeatable read", "serializable"]),
            st.booleans(),
        ),
        max_size=8,
    )
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_generation_counts_the_commits_that_wrote(
    live: Live, transactions: list[tuple[list[str], str, bool]]
) -> None:
    statements = {
        "write": "INSERT INTO symbols (symbol) VALUES (gen_random_uuid()::text)",
        "nothing": "UPDATE symbols SET name = 'x' WHERE symbol = 'nobody'",
        "savepoint": "SAVEPOINT a; INSERT INTO symbols (symbol) VALUES (gen_random_uuid()::text); RELEASE a",
        "undone": "SAVEPOINT a; INSERT INTO symbols (symbol) VALUES (gen_random_uuid()::text); ROLLBACK TO a",
        "truncate": "TRUNCATE symbols",
        "cascade": "INSERT INTO definition_groups (id, name, type, environment) VALUES (77, 'x', 'ETF', 'DEFAULT');"
        "INSERT INTO group_memberships (group_id, symbol) VALUES (77, 'X'); DELETE FROM definition_groups WHERE id = 77",
    }
    expected = await generation(live.writer)
    for steps, isolation, commits in transactions:
        await live.writer.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        for step in steps:
            await live.writer.execute(statements[step])
        await live.writer.execute("COMMIT" if commits else "ROLLBACK")
        expected += commits and bool({"write", "savepoint", "truncate", "cascade"} & {*steps})
        assert await generation(live.writer) == expected


async def test_the_rows_of_changes_are_put_together_and_their_sum_stays(live: Live) -> None:
    before = await generation(live.writer)
    for _ in range(400):
        await live.writer.execute("INSERT INTO symbols (symbol) VALUES (gen_random_uuid()::text)")
    assert await generation(live.writer) == before + 400
    assert await live.writer.fetchval("SELECT count(*) FROM data_change") < 150


async def test_the_record_of_changes_stays_short_beside_a_long_transaction(live: Live) -> None:
    """A load, or anything else that writes in this cluster, may take an hour."""
    other = await asyncpg.connect(live.url)
    await other.execute("BEGIN; SELECT pg_current_xact_id()")
    before = await generation(live.writer)
    for number in range(300):
        await live.writer.execute(f"UPDATE group_memberships SET weight = 0.{number:03} WHERE id = 1")
    assert await generation(live.writer) == before + 300
    assert await live.writer.fetchval("SELECT count(*) FROM data_change") < 150
    await other.close()


async def test_no_writer_waits_for_another_and_none_is_lost(live: Live) -> None:
    before = await generation(live.writer)
    writers = [await asyncpg.connect(live.url) for _ in range(8)]
    transactions = [writer.transaction() for writer in writers]
    for writer, transaction in zip(writers, transactions, strict=True):
        await transaction.start()
        await writer.execute("INSERT INTO symbols (symbol) VALUES (gen_random_uuid()::text)", timeout=5)
    for transaction in transactions:
        await transaction.commit()
    for writer in writers:
        await writer.close()
    assert await generation(live.writer) == before + 8


async def test_a_late_commit_is_not_taken_for_seen(live: Live) -> None:
    late = await asyncpg.connect(live.url)
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (9, 'LATE')")
    await live.writer.execute("INSERT INTO group_memberships (group_id, symbol) VALUES (9, 'SOON')")

    async def soon() -> bool:
        return (
            await top3(live) == ["AAPL", "MSFT", "NVDA", "SOON"]
            and live.runtime.generations.confirmed_generation("groups") is not None
        )

    await seconds_until(soon)
    await transaction.commit()
    await late.close()

    async def both() -> bool:
        return await top3(live) == ["AAPL", "LATE", "MSFT", "NVDA", "SOON"]

    assert await seconds_until(both) < 1


async def test_the_notification_names_the_groups(live: Live) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    await live.writer.add_listener("stockgraph", lambda *said: heard.put_nowait(said[3]))
    async with live.writer.transaction():
        xid = await live.writer.fetchval("SELECT pg_current_xact_id()::text")
        await live.writer.execute("UPDATE group_memberships SET weight = 0 WHERE symbol = 'JPM'")
    assert await asyncio.wait_for(heard.get(), 5) == f'{{"xid": "{xid}", "family": "groups", "groups": [1, 7]}}'
    async with live.writer.transaction():
        xid = await live.writer.fetchval("SELECT pg_current_xact_id()::text")
        await live.writer.execute("UPDATE symbols SET name = 'J' WHERE symbol = 'JPM'")
    assert await asyncio.wait_for(heard.get(), 5) == f'{{"xid": "{xid}", "family": "groups", "groups": null}}'
    async with live.writer.transaction():
        xid = await live.writer.fetchval("SELECT pg_current_xact_id()::text")
        await live.writer.execute(
            "INSERT INTO definition_groups (name, type, environment) SELECT 'g' || n, 'ETF', 'UAT' FROM generate_series(1, 501) n"
        )
    assert await asyncio.wait_for(heard.get(), 5) == f'{{"xid": "{xid}", "family": "groups", "groups": null}}'


class Meddled:
    """Stands before a database and does something each time a statement has been answered."""

    def __init__(self, database: Any, meddle: Callable[[str], Awaitable[None]]) -> None:
        self._database, self._meddle = database, meddle

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def fetch(self, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        reading: ReadResult = await self._database.fetch(statement, *arguments, **options)
        await self._meddle(statement)
        return reading


@pytest.mark.parametrize(("times", "attempts"), [(1, 2), (100, 3)])
async def test_an_answer_is_of_one_moment(live: Live, times: int, attempts: int) -> None:
    left = times

    async def meddle(statement: str) -> None:
        nonlocal left
        if statement == "groups_named" and left:
            left -= 1
            await live.writer.execute(
                "DELETE FROM group_memberships WHERE id = (SELECT max(id) FROM group_memberships WHERE group_id = 2)"
            )
            await live.writer.execute(
                "UPDATE definition_groups SET description = (SELECT count(*) FROM group_memberships WHERE group_id = 2)"
            )

    object.__setattr__(live.runtime, "database", Meddled(live.runtime.database, meddle))
    answer = await live.ask('{ group(name: "TECH") { description memberCount members { nodes { symbol } } } }')
    group = answer["data"]["group"]
    assert group["memberCount"] == len(group["members"]["nodes"])
    if attempts < 3:
        assert group["description"] == str(group["memberCount"])
    assert answer.statements.count("groups_named") == attempts


@pytest.fixture
async def outage(live: Live, databases: Databases) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Take the database away, and give it back."""
    name = urlsplit(live.url).path[1:]

    async def away(*, gone: bool) -> None:
        await databases.run(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {not gone}")
        if gone:
            await databases.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")

    yield away
    await away(gone=False)


async def test_a_database_that_is_gone_is_an_error_and_comes_back_by_itself(
    live: Live, outage: Callable[..., Awaitable[None]]
) -> None:
    await top3(live)
    name = urlsplit(live.url).path[1:]
    await outage(gone=True)

    async def refused() -> bool:
        return (await live.ask(TOP3)).get("errors") is not None

    assert await seconds_until(refused) < 1
    answer = await live.ask(TOP3)
    assert answer.without_locations() == {
        "data": None,
        "errors": [
            {
                "message": f'The database takes no connection: database "{name}" is not currently accepting connections.',
                "extensions": {"code": "DATABASE_UNAVAILABLE"},
            }
        ],
    }
    await outage(gone=False)

    async def answered() -> bool:
        return "errors" not in await live.ask(TOP3)

    await seconds_until(answered)
    assert await top3(live) == ["AAPL", "MSFT", "NVDA"]


async def test_old_data_are_served_in_an_outage_only_where_that_is_set_and_then_it_is_said(
    live: Live, outage: Callable[..., Awaitable[None]]
) -> None:
    async with open_runtime(Settings(database_url=live.url, outage="stale")) as runtime:
        await runtime.generations.confirmed()
        ask = asker(runtime)
        fresh = await ask(TOP3)
        assert "extensions" not in fresh
        await outage(gone=True)

        async def stale() -> bool:
            return "extensions" in await ask(TOP3)

        await seconds_until(stale)
        answer = await ask(TOP3)
        confirmed = answer["extensions"]["stale"].pop("confirmedAt")
        assert confirmed.endswith("Z")
        assert answer == {**fresh, "extensions": {"stale": {}}}
        # what is not remembered is refused all the same
        other = await ask('{ universe(key: "chips") { symbols } }')
        assert [error["extensions"]["code"] for error in other["errors"]] == ["DATABASE_UNAVAILABLE"]
        await outage(gone=False)

        async def answered() -> bool:
            return await ask(TOP3) == fresh

        await seconds_until(answered)


async def test_a_smaller_generation_drops_everything(live: Live) -> None:
    await top3(live)
    await live.writer.execute("UPDATE data_change SET weight = 0")

    async def rewound() -> bool:
        return live.runtime.generations.rewinds == 1 and live.runtime.generations.confirmed_generation("groups") == (
            0,
            0,
        )

    await seconds_until(rewound)
    assert (await live.ask(TOP3)).statements == ["group_names", "group_symbols"]


async def test_rows_of_another_server_are_not_taken_for_changes_of_this_one(live: Live) -> None:
    """A restore brings the rows of transactions that are yet to come here: one of them must not swallow a change."""
    await top3(live)
    await live.writer.execute(
        "INSERT INTO data_change (family, xid) SELECT 'groups', (pg_current_xact_id()::text::bigint + n)::text::xid8"
        " FROM generate_series(20, 60) AS n"
    )

    async def doubted() -> bool:
        return live.runtime.generations.mode is ListenerMode.OFF

    await seconds_until(doubted)
    assert await top3(live) == ["AAPL", "MSFT", "NVDA"]
    for number in range(80):
        await live.writer.execute("UPDATE group_memberships SET symbol = $1 WHERE id = 27", f"N{number}")
    assert await live.writer.fetchval(
        "SELECT max(xid::text::bigint) < pg_current_xact_id()::text::bigint FROM data_change"
    )

    async def followed() -> bool:
        return live.runtime.generations.mode is ListenerMode.NOTIFY

    await seconds_until(followed)
    await live.writer.execute("UPDATE group_memberships SET symbol = 'LAST' WHERE id = 27")

    async def seen() -> bool:
        return await top3(live) == ["AAPL", "LAST", "MSFT"]

    assert await seconds_until(seen) < 1


async def test_init_takes_in_the_rows_of_another_server(live: Live) -> None:
    before = await generation(live.writer)
    await live.writer.execute("INSERT INTO data_change (family, xid, weight) VALUES ('groups', '99999999', 7)")
    await live.writer.execute("COMMENT ON TABLE data_change IS 'an older one'")
    await make_tables(live.writer)
    assert await generation(live.writer) == before + 7
    assert await live.writer.fetchval("SELECT max(xid::text::bigint) < 99999999 FROM data_change")


async def test_an_answer_is_not_torn_where_tracking_comes_and_goes(live: Live) -> None:
    async def meddle(statement: str) -> None:
        if statement == "groups_named" and live.runtime.generations.tracked:
            live.runtime.generations.tracked = False  # as while the listening connection is made again
            await live.writer.execute("DELETE FROM group_memberships WHERE group_id = 2")
            await live.writer.execute("UPDATE definition_groups SET description = 'none left' WHERE id = 2")

    object.__setattr__(live.runtime, "database", Meddled(live.runtime.database, meddle))
    answer = await live.ask('{ group(name: "TECH") { description memberCount } }')
    assert answer == {"data": {"group": {"description": "none left", "memberCount": 0}}}


async def test_many_at_once_wait_for_their_turn(live: Live) -> None:
    answers = await asyncio.gather(*(live.ask('{ group(name: "BIG") { memberCount } }') for _ in range(300)))
    assert [answer for answer in answers if answer != {"data": {"group": {"memberCount": 5}}}] == []


async def test_tables_are_made_side_by_side_and_touched_only_where_something_is_missing(bare_url: str) -> None:
    connections = [await asyncpg.connect(bare_url) for _ in range(6)]
    made = await asyncio.gather(*(make_tables(each) for each in connections))
    assert sorted(map(bool, made)) == [False] * 5 + [True]
    triggers = "SELECT array_agg(xmin::text ORDER BY oid) FROM pg_trigger"
    before = await connections[0].fetchval(triggers)
    assert await make_tables(connections[0]) == []
    assert await connections[0].fetchval(triggers) == before
    await connections[0].execute("DROP INDEX idx_group_memberships_by_symbol")
    assert await make_tables(connections[0]) == ["index idx_group_memberships_by_symbol"]
    for each in connections:
        await each.close()


def reading(generation: int | None, sent: float) -> ReadResult:
    return ReadResult([], None if generation is None else Generation(generation, 0), sent)


def test_what_is_known_lasts_for_a_moment() -> None:
    generations = GenerationTracker()
    assert generations.confirmed_generation("groups") is None
    generations.tracked = True
    generations.observe(reading(7, time.monotonic()))
    assert generations.confirmed_generation("groups") == (7, 0)
    generations.observe(reading(8, time.monotonic() - CONFIRMED_SECONDS))
    assert generations.confirmed_generation("groups") is None
    generations.observe(reading(8, time.monotonic() - 0.1))
    assert generations.confirmed_generation("groups") == (8, 0)
    # an older snapshot that came late says nothing, even if it was sent after the one that told more
    generations.observe(reading(7, time.monotonic() - 0.05))
    generations.observe(reading(None, time.monotonic()))
    assert (generations.confirmed_generation("groups"), generations.rewinds) == ((8, 0), 0)
    generations.observe(reading(3, time.monotonic()))
    assert (generations.confirmed_generation("groups"), generations.rewinds, generations.epoch) == ((3, 0), 1, 1)
    generations.tracked = False
    assert generations.confirmed_generation("groups") is None


def test_a_change_that_is_notified_makes_its_own_family_unknown() -> None:
    generations = GenerationTracker()
    generations.tracked = True
    generations.observe(reading(7, time.monotonic()))
    assert generations.notify({"family": "prices", "xid": "1"})
    assert (generations.confirmed_generation("groups"), generations.confirmed_generation("prices")) == ((7, 0), None)
    generations.observe(ReadResult([], Generation(7, 1), time.monotonic()))
    assert (generations.confirmed_generation("groups"), generations.confirmed_generation("prices")) == ((7, 1), (7, 1))
    assert generations.notify({"family": "groups", "groups": [1]})
    assert (generations.confirmed_generation("groups"), generations.confirmed_generation("prices")) == (None, (7, 1))
    generations.observe(reading(9, time.monotonic()))
    assert not generations.notify({"family": "something newer"})
    assert generations.confirmed_generation("groups") == generations.confirmed_generation("prices") == (9, 0)
    assert generations.notify("what nobody understands")
    assert (generations.confirmed_generation("groups"), generations.confirmed_generation("prices")) == (None, None)
