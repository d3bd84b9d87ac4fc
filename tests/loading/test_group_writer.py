import asyncio
import csv
import dataclasses
import os
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.errors import DatabaseUnavailable
from graph.loading.discovery import read_paths
from graph.loading.group_writer import GroupDiff, GroupRefused, Listed, Reweighting, load_groups, replace_group
from graph.loading.holdings import GroupHoldings, Holding, MembershipPeriod
from graph.postgres.database import Connection

D = Decimal
T = TypeVar("T")
Weights = Mapping[str, str | None]
VENDOR_FILES = os.environ.get("TEST_VENDOR_FILES")
"""A folder of files as vendors publish them, which may not be passed on."""
Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Connect]:
    """Opens connections to a database of the test's own."""
    async with AsyncExitStack() as stack:

        async def opened() -> "asyncpg.Connection[asyncpg.Record]":
            connection = await asyncpg.connect(database_url)
            stack.push_async_callback(connection.close, timeout=5)
            return connection

        yield opened


@pytest.fixture
async def connection(connect: Connect) -> Connection:
    return await connect()


def group(
    weights: Weights,
    name: str = "SPY",
    kind: str = "ETF",
    description: str | None = None,
    names: Mapping[str, str] | None = None,
    **more: Any,
) -> GroupHoldings:
    holdings = (
        Holding(symbol, None if weight is None else D(weight), (names or {}).get(symbol))
        for symbol, weight in weights.items()
    )
    return GroupHoldings(kind, name, tuple(holdings), description, **more)


def diff(**changes: Any) -> GroupDiff:
    """The diff of SPY that changes nothing, but for what is given."""
    nothing: dict[str, Any] = {
        "type": "ETF", "name": "SPY", "environment": "DEFAULT", "as_of": None, "created": False, "redescribed": False,
        "annotated": False, "added": (), "removed": (), "reweighted": (), "unchanged": 0, "rounded": 0, "zeroed": (),
        "symbols_changed": 0,
    }  # fmt: skip
    told = nothing | changes
    listed = {kind: Listed(len(told[kind]), told[kind]) for kind in ("added", "removed", "reweighted", "zeroed")}
    return GroupDiff(**(told | listed))


class LoadReport(NamedTuple):
    """What became of the groups of a load."""

    groups: tuple[GroupDiff, ...]
    errors: tuple[GroupRefused, ...]


async def load(connection: Connection, *groups: GroupHoldings, dry_run: bool = False) -> LoadReport:
    outcomes = [each async for each in load_groups(connection, groups, environment="DEFAULT", dry_run=dry_run)]
    diffs = tuple(each for each in outcomes if isinstance(each, GroupDiff))
    return LoadReport(diffs, tuple(each for each in outcomes if isinstance(each, GroupRefused)))


async def replace(connection: Connection, holdings: GroupHoldings) -> GroupDiff:
    return await replace_group(connection, holdings, environment="DEFAULT")


async def members(connection: Connection, name: str = "SPY") -> dict[str, Decimal | None]:
    rows = await connection.fetch(
        "SELECT m.symbol, m.weight FROM group_memberships AS m JOIN definition_groups AS g ON g.id = m.group_id"
        " WHERE g.name = $1 ORDER BY m.symbol",
        name,
    )
    return dict(map(tuple, rows))


async def symbols(connection: Connection) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await connection.fetch("SELECT * FROM symbols ORDER BY symbol")]


async def everything(connection: Connection) -> list[list[tuple[Any, ...]]]:
    """All rows of all tables, with the transactions that wrote them."""
    return [
        [tuple(row) for row in await connection.fetch(query)]
        for query in (
            "SELECT xmin::text, * FROM definition_groups ORDER BY id",
            "SELECT xmin::text, * FROM group_memberships ORDER BY id",
            "SELECT xmin::text, * FROM symbols ORDER BY symbol",
            "SELECT xmin::text, family, xid::text, weight FROM data_change ORDER BY family, xid",
            "SELECT xmin::text, * FROM group_history ORDER BY group_id, valid_from",
            "SELECT xmin::text, * FROM membership_history ORDER BY group_id, symbol, valid_from",
        )
    ]


async def today_at(connection: Connection) -> date:
    today: date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    return today


async def spells(connection: Connection, name: str = "SPY") -> list[tuple[Any, ...]]:
    """What the history knows of the members of a group."""
    rows = await connection.fetch(
        "SELECT symbol, weight, valid_from, valid_to FROM membership_history WHERE group_id = ("
        " SELECT id FROM definition_groups WHERE name = $1) ORDER BY symbol, valid_from",
        name,
    )
    return [tuple(row) for row in rows]


async def documents(connection: Connection, name: str = "SPY") -> tuple[Any, Any]:
    """The metadata and the filter of a group."""
    row = await connection.fetchrow("SELECT metadata, liquidity_filter FROM definition_groups WHERE name = $1", name)
    assert row
    return tuple(None if text is None else orjson.loads(text) for text in row)  # type: ignore[return-value]


async def waiting_for_a_lock(observer: Connection, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Return once the connection waits for what another transaction holds."""
    deadline = time.monotonic() + 10
    while not await observer.fetchval(
        "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", connection.get_server_pid()
    ):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_new_group_is_written_whole(connection: Connection) -> None:
    spy = group({"NVDA": "0.08", "AAPL": "0.07", "CASH": "-0.0001", "NEW": None}, description="The S&P 500")

    report = await load(connection, spy)

    added = ("AAPL", "CASH", "NEW", "NVDA")
    assert report == LoadReport((diff(created=True, added=added, symbols_changed=4),), ())
    assert report.groups[0].changed
    assert await members(connection) == {"AAPL": D("0.07"), "CASH": D("-0.0001"), "NEW": None, "NVDA": D("0.08")}
    assert tuple(
        await connection.fetchrow("SELECT type, name, environment, description, metadata FROM definition_groups") or ()
    ) == ("ETF", "SPY", "DEFAULT", "The S&P 500", None)


async def test_a_second_load_of_the_same_writes_nothing_and_tells_nobody(
    connection: Connection, connect: Connect
) -> None:
    first = group({"NVDA": "0.08", "AAPL": "0.07", "NEW": None}, "SPY", description="x", names={"NVDA": "NVIDIA CORP"})
    second = group({"NVDA": "0.1"}, "QQQ", names={"NVDA": "NVIDIA Corp."})
    await load(connection, first, second)
    before = await everything(connection)
    heard: list[str] = []
    listener = await connect()
    await listener.add_listener("stockgraph", lambda *notification: heard.append(str(notification[-1])))

    report = await load(connection, first, second)

    assert report == LoadReport((diff(unchanged=3), diff(name="QQQ", unchanged=1)), ())
    assert not report.groups[0].changed
    assert await everything(connection) == before
    # the first that is heard of is a load that changes something
    await load(connection, group({"NVDA": "0.2"}, "QQQ"))
    await listener.fetchval("SELECT 1")
    changed = await connection.fetchval("SELECT max(xid)::text FROM data_change")
    assert {orjson.loads(payload)["xid"] for payload in heard} == {changed}


async def test_the_difference_is_told_and_written(connection: Connection) -> None:
    await load(connection, group({"A": "0.1", "B": "0.2", "C": None, "D": "0.4", "E": None}, description="old"))
    await connection.execute("UPDATE group_memberships SET added_at = '2001-01-01', updated_at = '2001-01-01'")
    await connection.execute(
        "UPDATE definition_groups SET metadata = '{}', created_at = '2001-01-01', last_update = '2001-01-01', updated_at = NULL"
    )
    await connection.execute("SET TIME ZONE 'Asia/Tokyo'")

    report = await load(
        connection, group({"F": "0.6", "E": None, "D": None, "C": "0.3", "B": "0.25"}, description="new")
    )

    reweighted = (
        Reweighting("B", D("0.2"), D("0.25")),
        Reweighting("C", None, D("0.3")),
        Reweighting("D", D("0.4"), None),
    )
    expected = diff(
        redescribed=True, added=("F",), removed=("A",), reweighted=reweighted, unchanged=1, symbols_changed=1
    )
    assert report == LoadReport((expected,), ())
    just_now = "> now() AT TIME ZONE 'UTC' - interval '1 minute' AND {0} <= now() AT TIME ZONE 'UTC'"
    added_now, updated_now, loaded_now = (
        f"{column} {just_now.format(column)}" for column in ("added_at", "updated_at", "last_update")
    )
    rows = await connection.fetch(
        f"SELECT symbol, weight, {added_now}, {updated_now} FROM group_memberships ORDER BY symbol"
    )
    assert [tuple(row) for row in rows] == [
        ("B", D("0.25"), False, True),
        ("C", D("0.3"), False, True),
        ("D", None, False, True),
        ("E", None, False, False),
        ("F", D("0.6"), True, True),
    ]
    row = await connection.fetchrow(
        f"SELECT description, metadata, {updated_now}, {loaded_now}, created_at = '2001-01-01' FROM definition_groups"
    )
    assert tuple(row or ()) == ("new", "{}", True, True, True)

    await load(connection, group({}, "made in Tokyo"))
    row = await connection.fetchrow(
        f"SELECT {updated_now}, {loaded_now}, created_at = last_update FROM definition_groups WHERE name = 'made in Tokyo'"
    )
    assert tuple(row or ()) == (True, True, True)


async def test_a_description_alone_is_a_change_and_none_leaves_it(connection: Connection) -> None:
    await load(connection, group({"A": None}, description="old"))

    assert await load(connection, group({"A": None}, description="new")) == LoadReport(
        (diff(redescribed=True, unchanged=1),), ()
    )
    assert await load(connection, group({}, description=None)) == LoadReport((diff(removed=("A",)),), ())
    assert await connection.fetchval("SELECT description FROM definition_groups") == "new"


async def test_equal_names_of_other_types_and_environments_are_other_groups(connection: Connection) -> None:
    for kind, environment in (("ETF", "DEFAULT"), ("ETF", "TEST"), ("THEME", "DEFAULT")):
        await replace_group(connection, group({kind + environment: None}, kind=kind), environment=environment)

    await replace_group(connection, group({"X": None}), environment="TEST")

    rows = await connection.fetch(
        "SELECT g.type, g.environment, m.symbol FROM definition_groups AS g JOIN group_memberships AS m ON m.group_id = g.id"
        " ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        ("ETF", "DEFAULT", "ETFDEFAULT"),
        ("ETF", "TEST", "X"),
        ("THEME", "DEFAULT", "THEMEDEFAULT"),
    ]


async def test_stocks_are_described_and_never_undescribed(connection: Connection) -> None:
    etf = GroupHoldings("ETF", "SPY", (Holding("A", name="Agilent"), Holding("B"), Holding("C", name="Citi")))
    sector = GroupHoldings("SECTOR", "energy", (Holding("A", industry="Tools"), Holding("B", industry="Oil")))
    assert [d.symbols_changed for d in (await load(connection, etf, sector)).groups] == [3, 2]
    known = [("A", "Agilent", "Tools"), ("B", None, "Oil"), ("C", "Citi", None)]
    assert await symbols(connection) == known
    before = await everything(connection)

    bare = GroupHoldings("THEME", "x", (Holding("A"), Holding("B"), Holding("C")))
    named = GroupHoldings("CUSTOM", "x", (Holding("A", name="AGILENT"), Holding("B", name="Barnes"), Holding("C")))
    renamed = GroupHoldings("CUSTOM", "y", (Holding("A", name="Agilent Inc"), Holding("C", industry="Banks")))
    report = await load(connection, bare, named, renamed)

    assert [d.symbols_changed for d in report.groups] == [0, 2, 1]
    assert await symbols(connection) == [("A", "AGILENT", "Tools"), ("B", "Barnes", "Oil"), ("C", "Citi", "Banks")]
    assert (await everything(connection))[2][:2] != before[2][:2]


async def test_only_the_rows_of_stocks_that_change_are_written(connection: Connection) -> None:
    await load(connection, group({"A": None, "B": None}, names={"A": "a", "B": "b"}))
    before = (await everything(connection))[2]

    await load(connection, group({"A": None, "B": None}, names={"A": "a", "B": "better"}))

    after = (await everything(connection))[2]
    assert (after[0], after[1][1:]) == (before[0], ("B", "better", None))


async def test_of_two_names_in_one_load_the_first_counts_unless_its_group_is_refused(connection: Connection) -> None:
    refused = group({"A": None}, "x", "FUND", names={"A": "of a group that is not there"})
    first = group({"A": None}, "SPY", names={"A": "first"})
    second = group({"A": None}, "QQQ", names={"A": "second"})

    assert [d.symbols_changed for d in (await load(connection, refused, first, second)).groups] == [1, 0]
    assert await symbols(connection) == [("A", "first", None)]


async def test_a_dry_run_tells_what_a_load_does_and_does_nothing(connection: Connection, connect: Connect) -> None:
    await load(connection, group({"A": "0.1", "B": "0.2"}, names={"A": "a"}))
    groups = (
        group({"A": "0.3", "C": "0.4"}, names={"A": "better", "C": "c"}, description="x"),
        group({"A": None, "C": None, "D": None}, "list", "CUSTOM", names={"A": "worse", "D": "d"}),
        GroupHoldings("SECTOR", "energy", (Holding("A", industry="Oil"), Holding("D"))),
    )
    before = await everything(connection)
    heard: list[object] = []
    listener = await connect()
    await listener.add_listener("stockgraph", lambda *_: heard.append(_))

    dry = await load(connection, *groups, dry_run=True)

    assert await everything(connection) == before
    await listener.fetchval("SELECT 1")
    assert heard == []
    assert dry == await load(connection, *groups)
    assert [d.symbols_changed for d in dry.groups] == [2, 1, 1]


async def test_a_group_that_is_refused_does_not_stop_the_others(connection: Connection) -> None:
    groups = [group({"A": None}, name, kind) for name, kind in (("1", "ETF"), ("2", "FUND"), ("3", "ETF"))]

    first, refused, last = [each async for each in load_groups(connection, groups, environment="DEFAULT")]

    assert (first, last) == (
        diff(name="1", created=True, added=("A",), symbols_changed=1),
        diff(name="3", created=True, added=("A",)),
    )
    assert isinstance(refused, GroupRefused)
    assert str(refused) == (
        "FUND 2: the constraint definition_groups_type_check of definition_groups refuses it (type FUND in environment"
        " DEFAULT); widen that constraint, or load the group as another type."
    )
    assert not await connection.fetchval("SELECT EXISTS (SELECT FROM definition_groups WHERE name = '2')")


@pytest.mark.parametrize(
    ("refused", "message"),
    [
        (group({"A": "10"}), "ETF SPY: the weight 10 of A is not a number between -10 and 10."),
        (group({"A": "1", "B": "-1e30"}), "ETF SPY: the weight -1E+30 of B is not a number between -10 and 10."),
        (group({"A": "9.999999999"}), "ETF SPY: the weight 9.999999999 of A is not a number between -10 and 10."),
        (group({"A": "NaN"}), "ETF SPY: the weight NaN of A is not a number between -10 and 10."),
        (group({"A": "Infinity"}), "ETF SPY: the weight Infinity of A is not a number between -10 and 10."),
        (
            GroupHoldings("ETF", "SPY", (Holding("A"), Holding("B"), Holding("A"))),
            "ETF SPY: symbol A is given twice.",
        ),
        (
            group({"A" * 51: None}),
            "ETF SPY: the database cannot hold it (value too long for type character varying(50)).",
        ),
        (
            group({"A\udc80": None}),
            (
                "ETF SPY: the database cannot hold it ('utf-8' codec can't encode character '\\udc80' in position 1:"
                " surrogates not allowed)."
            ),
        ),
        (
            group({"A": None}, description="a\udc80b"),
            (
                "ETF SPY: the database cannot hold it (invalid input for query argument $3: 'a\\udc80b'"
                " ('utf-8' codec can't encode character '\\udc80' in position 1: surrogates not allowed))."
            ),
        ),
        (
            group({"A": None}, description="a\0b"),
            'ETF SPY: the database cannot hold it (invalid byte sequence for encoding "UTF8": 0x00).',
        ),
    ],
)  # fmt: skip
async def test_a_group_that_the_database_cannot_hold_leaves_the_old_one(
    connection: Connection, refused: GroupHoldings, message: str
) -> None:
    await load(connection, group({"OLD": "0.5"}))
    before = await everything(connection)

    with pytest.raises(GroupRefused) as raised:
        await replace(connection, refused)

    assert str(raised.value) == message
    assert await everything(connection) == before
    assert await load(connection, group({"OLD": "0.5"})) == LoadReport((diff(unchanged=1),), ())


async def test_what_a_constraint_of_the_database_forbids_is_told(connection: Connection) -> None:
    await connection.execute(
        "ALTER TABLE group_memberships ADD CONSTRAINT listed FOREIGN KEY (symbol) REFERENCES symbols DEFERRABLE INITIALLY IMMEDIATE"
    )
    (refused,) = (await load(connection, group({"A": None}))).errors
    assert str(refused) == (
        "ETF SPY: the constraint listed of group_memberships refuses it:"
        ' Key (symbol)=(A) is not present in table "symbols".'
    )


async def test_a_user_who_may_not_write_is_told(connection: Connection) -> None:
    await load(connection, group({"A": None}))
    await connection.execute("SET ROLE pg_read_all_data")
    report = await load(connection, group({"A": None}))
    assert [str(error) for error in report.errors] == [
        "ETF SPY: the database does not let this user write it (permission denied for table definition_groups)."
    ]


async def test_nothing_is_left_behind(connection: Connection) -> None:
    await load(connection, group({"A": None}), group({"A": "11"}, "X"), group({"A": "1"}, "Y"))

    assert await connection.fetch("SELECT relname FROM pg_class WHERE relpersistence = 't'") == []
    assert await connection.fetch("SELECT FROM pg_locks WHERE locktype = 'advisory'") == []
    assert not connection.is_in_transaction()


async def test_several_groups_in_one_transaction_of_the_caller(connection: Connection) -> None:
    transaction = connection.transaction()
    await transaction.start()
    assert (await replace(connection, group({"A": "0.1"}))).added.first == ("A",)
    with pytest.raises(GroupRefused):
        await replace(connection, group({"A": "10"}, "QQQ"))
    assert (await replace(connection, group({"B": "0.2"}))).removed.first == ("A",)
    await transaction.rollback()
    assert await connection.fetchval("SELECT count(*) FROM definition_groups") == 0


@pytest.mark.parametrize("missing", ["definition_groups, group_memberships", "symbols"])
async def test_missing_tables_name_the_command_that_makes_them(connection: Connection, missing: str) -> None:
    await connection.execute(f"DROP TABLE {missing} CASCADE")
    with pytest.raises(DatabaseUnavailable) as raised:
        await load(connection, group({"A": None}))
    assert str(raised.value) == f"The database lacks tables ({missing}); `stockgraph init` makes what is missing."


DAYS = [date(2024, 1, 31), date(2024, 2, 29), date(2025, 1, 1)]
weights = st.one_of(
    st.none(), st.sampled_from(["0", "0.5", "-0.25"]), st.decimals("-9.9", "9.9", places=8).map(str)
)  # fmt: skip
contents = st.one_of(
    # some that come again
    st.sampled_from([{}, {"A": "0.5"}, {"A": "0.5", "B": "0.5"}]),
    st.dictionaries(st.sampled_from("ABCDEFGH"), weights),
)
loads = st.lists(
    st.tuples(
        contents, st.sampled_from([None, "one", "two"]), st.sampled_from([None, None, *DAYS, "today"]), st.booleans()
    ),
    min_size=1,
    max_size=7,
)


def note(history: dict[date, T], day: date, state: T) -> None:
    """Note how a day ended: what changes and changes back on one day did not change."""
    history[day] = state
    *earlier, last = sorted(history)
    if earlier and history[earlier[-1]] == history[last]:
        del history[last]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads)
async def test_any_sequence_of_loads_ends_as_the_model_and_tells_its_diff(
    connection: Connection, sequence: list[tuple[dict[str, str | None], str | None, date | str | None, bool]]
) -> None:
    await connection.execute(
        "DELETE FROM definition_groups; DELETE FROM symbols; TRUNCATE group_history, membership_history"
    )
    today = await today_at(connection)
    past: dict[date, dict[str, Decimal | None]] = {}
    words: dict[date, str | None] = {}
    model: dict[str, Decimal | None] = {}
    listed: set[str] = set()
    described: str | None = None
    kept: date | None = None
    metadata: str | None = None
    generation = await connection.fetchval("SELECT coalesce(sum(weight), 0) FROM data_change")
    for wanted, description, day, dry_run in sequence:
        as_of = today if isinstance(day, str) else day
        holdings = group(wanted, description=description, as_of=as_of)
        new = {symbol: None if weight is None else D(weight) for symbol, weight in wanted.items()}
        newest = max(kept or date.min, *past, *words, date.min)
        report = await load(connection, holdings, dry_run=dry_run)
        if as_of and as_of < newest:
            (refused,) = report.errors
            assert str(refused) == (
                f"ETF SPY: the holdings are of {as_of}, older than what is here ({newest});"
                f" --as-of {newest} or later takes them as of then."
            )
        else:
            created, moved = not past, model != new
            stayed = model.keys() & new.keys()
            still = None if moved else kept
            expected = diff(
                as_of=as_of,
                created=created,
                redescribed=not created and description not in (None, described),
                annotated=not created and (as_of or still) != kept,
                added=tuple(sorted(new.keys() - model.keys())),
                removed=tuple(sorted(model.keys() - new.keys())),
                reweighted=tuple(Reweighting(s, model[s], new[s]) for s in sorted(stayed) if model[s] != new[s]),
                unchanged=sum(model[s] == new[s] for s in stayed),
                symbols_changed=len(new.keys() - listed),
            )
            assert report == LoadReport((expected,), ())
            if not dry_run:
                model, described, listed, kept = new, description or described, listed | new.keys(), as_of or still
                note(past, as_of or today, new)
                note(words, as_of or today, described)
                generation += expected.changed or expected.symbols_changed > 0
        assert await members(connection) == model
        if past:
            row = await connection.fetchrow("SELECT description, metadata FROM definition_groups")
            metadata = f'{{"as_of": "{kept}"}}' if kept else metadata and "{}"
            assert tuple(row or ()) == (described, metadata)
        assert await connection.fetchval("SELECT coalesce(sum(weight), 0) FROM data_change") == generation
        for asked in [date(2000, 1, 1), *DAYS, today]:
            held = await connection.fetch("SELECT symbol, weight FROM memberships_on($1)", asked)
            last = max((known for known in past if known <= asked), default=None)
            assert dict(map(tuple, held)) == (past[last] if last else {})


async def test_a_load_waits_for_another_of_its_group_and_no_other(connect: Connect) -> None:
    first, second, observer = await connect(), await connect(), await connect()
    await second.execute("SET default_transaction_isolation = 'serializable'")
    transaction = first.transaction()
    await transaction.start()
    assert (await replace(first, group({"A": "0.1", "B": "0.2"}))).created

    assert (await replace(second, group({"X": None, "Y": None}, "QQQ"))).created
    waiting = asyncio.create_task(replace(second, group({"B": "0.3", "C": "0.4"})))
    await waiting_for_a_lock(observer, second)
    await transaction.commit()

    assert await waiting == diff(
        added=("C",), removed=("A",), reweighted=(Reweighting("B", D("0.2"), D("0.3")),), symbols_changed=1
    )
    assert await members(observer) == {"B": D("0.3"), "C": D("0.4")}


async def test_a_load_whose_group_another_made_and_took_back_makes_it(connect: Connect) -> None:
    first, second, observer = await connect(), await connect(), await connect()
    transaction = first.transaction()
    await transaction.start()
    await replace(first, group({"A": "0.1"}))

    waiting = asyncio.create_task(replace(second, group({"A": "0.2"})))
    await waiting_for_a_lock(observer, second)
    await transaction.rollback()

    assert await waiting == diff(created=True, added=("A",), symbols_changed=1)
    assert await members(observer) == {"A": D("0.2")}


async def test_loads_of_one_group_at_once_end_whole_and_their_diffs_chain(connect: Connect) -> None:
    connections = [await connect() for _ in range(6)]
    wanted = [{f"S{(number * step) % 50}": f"0.{step}" for number in range(30)} for step in (1, 3, 7, 9, 11, 13)]

    diffs = await asyncio.gather(
        *(replace(connection, group(each)) for connection, each in zip(connections, wanted, strict=True))
    )

    assert sum(each.created for each in diffs) == 1
    final = await members(connections[0])
    assert final in [{symbol: D(weight) for symbol, weight in each.items()} for each in wanted]
    # each was computed from what the one before it left
    appeared = [symbol for each in diffs for symbol in each.added.first]
    vanished = [symbol for each in diffs for symbol in each.removed.first]
    assert {s: appeared.count(s) - vanished.count(s) for s in {*appeared, *vanished}} == {
        s: int(s in final) for s in {*appeared, *vanished}
    }
    for each, loaded in zip(diffs, wanted, strict=True):
        assert each.added.total + each.reweighted.total + each.unchanged == len(loaded)


async def test_loads_of_different_groups_in_opposite_orders_never_deadlock(connect: Connect) -> None:
    connections = [await connect() for _ in range(6)]
    listed = [f"S{number}" for number in range(200)]

    async def load_often(number: int) -> None:
        order = listed if number % 2 else listed[::-1]
        for turn in range(5):
            stocks = tuple(
                Holding(symbol, name=f"name {number} {turn}", industry=f"industry {turn} {number}")
                for symbol in order[turn * 7 :]
            )
            await replace(connections[number], GroupHoldings("CUSTOM", f"list {number}", stocks))

    await asyncio.gather(*map(load_often, range(6)))

    assert await connections[0].fetchval("SELECT count(*) FROM group_memberships") == 6 * 172
    names = await connections[0].fetch("SELECT DISTINCT name FROM symbols WHERE symbol = ANY ($1)", listed[28:172])
    # the last to write a stock wrote all of them
    assert len(names) == 1


async def test_what_others_write_meanwhile_is_overwritten_and_told_as_it_was(connect: Connect) -> None:
    loader, writer, observer = await connect(), await connect(), await connect()
    await load(loader, group({"A": "0.1", "B": "0.2", "C": "0.3"}))
    async with writer.transaction():
        await writer.execute("UPDATE group_memberships SET weight = 0.9 WHERE symbol = 'A'")
        await writer.execute(
            "INSERT INTO group_memberships (group_id, symbol, weight) SELECT id, unnest('{N,M}'::text[]), 0.7"
            " FROM definition_groups"
        )
        waiting = asyncio.create_task(replace(loader, group({"A": "0.5", "B": "0.2", "N": "0.6", "M": "0.7"})))
        await waiting_for_a_lock(observer, loader)

    assert await waiting == diff(
        added=("N",),
        removed=("C",),
        reweighted=(Reweighting("A", D("0.9"), D("0.5")),),
        unchanged=2,
        symbols_changed=2,
    )
    assert await members(observer) == {"A": D("0.5"), "B": D("0.2"), "M": D("0.7"), "N": D("0.6")}


async def test_a_lock_that_is_never_given_is_told(connect: Connect) -> None:
    loader, writer = await connect(), await connect()
    await load(loader, group({"A": "0.1"}))
    await loader.execute("SET lock_timeout = '20ms'")
    async with writer.transaction():
        await writer.execute("UPDATE definition_groups SET metadata = '{}'")
        report = await load(loader, group({"A": "0.2"}))
    assert [str(error) for error in report.errors] == [
        "ETF SPY: another transaction was in the way (canceling statement due to lock timeout); load it again."
    ]
    assert await replace(loader, group({"A": "0.2"})) == diff(reweighted=(Reweighting("A", D("0.1"), D("0.2")),))


async def test_what_is_not_the_fault_of_a_group_ends_the_load(connect: Connect) -> None:
    loader, writer = await connect(), await connect()
    await load(loader, group({"A": "0.1"}))
    await loader.execute("SET statement_timeout = '20ms'")
    async with writer.transaction():
        await writer.execute("UPDATE definition_groups SET metadata = '{}'")
        with pytest.raises(asyncpg.QueryCanceledError):
            await load(loader, group({"A": "0.2"}), group({"A": "0.2"}, "QQQ"))
    assert await members(writer) == {"A": D("0.1")}
    assert await members(writer, "QQQ") == {}


@pytest.mark.parametrize("ending", ["terminate", "cancel"])
async def test_a_load_that_is_cut_off_leaves_the_old_state_whole(connect: Connect, ending: str) -> None:
    loader, writer, observer = await connect(), await connect(), await connect()
    await load(observer, group({"A": "0.1", "B": "0.2"}, names={"B": "b"}))
    before = await everything(observer)
    # the load has written its members when it comes to the stocks
    blocked = writer.transaction()
    await blocked.start()
    await writer.execute("UPDATE symbols SET name = 'mine' WHERE symbol = 'B'")
    loading = asyncio.create_task(load(loader, group({"B": "0.3", "C": "0.4"}, names={"B": "other"})))
    await waiting_for_a_lock(observer, loader)

    if ending == "terminate":
        await observer.execute("SELECT pg_terminate_backend($1)", loader.get_server_pid())
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await loading
        assert loader.is_closed()
    else:
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
    await blocked.rollback()

    assert await everything(observer) == before
    if ending == "cancel":
        assert (await replace(loader, group({"B": "0.2"}))).removed.first == ("A",)


JUNE, OCTOBER = date(2025, 6, 5), date(2025, 10, 4)


async def test_holdings_take_effect_on_their_day_and_the_group_keeps_it(connection: Connection) -> None:
    june = group({"A": "0.6", "B": "0.4"}, as_of=JUNE)
    october = group({"A": "0.7", "C": "0.3"}, as_of=OCTOBER)
    expected = (
        diff(as_of=JUNE, created=True, added=("A", "B"), symbols_changed=2),
        diff(
            as_of=OCTOBER,
            annotated=True,
            added=("C",),
            removed=("B",),
            reweighted=(Reweighting("A", D("0.6"), D("0.7")),),
            symbols_changed=1,
        ),
    )
    # also where nothing of it stays
    assert await load(connection, june, october, dry_run=True) == LoadReport(expected, ())
    assert await connection.fetch("SELECT FROM group_history") == []

    assert await load(connection, june, october) == LoadReport(expected, ())

    assert await documents(connection) == ({"as_of": "2025-10-04"}, None)
    assert await spells(connection) == [
        ("A", D("0.6"), JUNE, OCTOBER),
        ("A", D("0.7"), OCTOBER, None),
        ("B", D("0.4"), JUNE, OCTOBER),
        ("C", D("0.3"), OCTOBER, None),
    ]
    (known,) = await connection.fetch("SELECT name, valid_from, valid_to FROM group_history")
    assert tuple(known) == ("SPY", JUNE, None)


async def test_what_is_older_than_the_group_is_refused_and_writes_nothing(connection: Connection) -> None:
    today = await today_at(connection)
    tomorrow = today + timedelta(days=1)
    await load(connection, group({"A": "0.6"}, as_of=JUNE), group({"A": "0.6"}, as_of=OCTOBER))
    before = await everything(connection)

    report = await load(
        connection,
        group({"A": "0.6"}, as_of=JUNE),
        group({"B": "0.6"}, as_of=OCTOBER - timedelta(days=1)),
        group({"B": "0.6"}, as_of=tomorrow),
        # the same again
        group({"A": "0.6"}, as_of=OCTOBER),
    )

    assert report.groups == (diff(as_of=OCTOBER, unchanged=1),)
    here = "older than what is here (2025-10-04); --as-of 2025-10-04 or later takes them as of then."
    assert [str(error) for error in report.errors] == [
        f"ETF SPY: the holdings are of 2025-06-05, {here}",
        f"ETF SPY: the holdings are of 2025-10-03, {here}",
        f"ETF SPY: the holdings are of {tomorrow}, a day to come; --as-of says from when on they hold.",
    ]
    assert await everything(connection) == before


async def test_a_later_day_of_the_same_holdings_is_a_change_of_the_day_alone(connection: Connection) -> None:
    await replace(connection, group({"A": "0.6"}, as_of=JUNE))
    past = await spells(connection)

    moved = await replace(connection, group({"A": "0.6"}, as_of=OCTOBER))

    assert moved == diff(as_of=OCTOBER, annotated=True, unchanged=1)
    assert moved.changed
    assert await documents(connection) == ({"as_of": "2025-10-04"}, None)
    assert await spells(connection) == past == [("A", D("0.6"), JUNE, None)]


async def test_members_of_today_take_away_the_day_that_was_kept(connection: Connection) -> None:
    today = await today_at(connection)
    await replace(connection, group({"A": "0.6"}, as_of=JUNE, metadata={"issuer": "x"}))
    assert await replace(connection, group({"A": "0.6"})) == diff(unchanged=1)
    assert await documents(connection) == ({"issuer": "x", "as_of": "2025-06-05"}, None)

    assert (await replace(connection, group({"A": "0.6", "B": None}))).annotated

    assert await documents(connection) == ({"issuer": "x"}, None)
    assert await spells(connection) == [("A", D("0.6"), JUNE, None), ("B", None, today, None)]
    yesterday = today - timedelta(days=1)
    with pytest.raises(GroupRefused, match=f"are of {yesterday}, older than what is here .{today}."):
        await replace(connection, group({"A": "0.6"}, as_of=yesterday))
    assert await replace(connection, group({"A": "0.6", "B": None}, as_of=today)) == diff(
        as_of=today, annotated=True, unchanged=2
    )


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO group_memberships (group_id, symbol) SELECT id, 'B' FROM definition_groups",
        "DELETE FROM group_memberships",
        "UPDATE definition_groups SET description = 'x'",
        "DELETE FROM definition_groups",
    ],
)
async def test_what_others_changed_today_is_newer_than_yesterdays_file(connection: Connection, change: str) -> None:
    today = await today_at(connection)
    await replace(connection, group({"A": "0.6"}, as_of=JUNE))
    await connection.execute(change)

    with pytest.raises(GroupRefused, match=f"the holdings are of 2025-10-04, older than .* .{today}."):
        await replace(connection, group({"A": "0.6"}, as_of=OCTOBER))

    # neither another name nor another environment is meant
    assert (await replace(connection, group({"A": "0.6"}, "spy", as_of=OCTOBER))).created
    assert (await replace_group(connection, group({"A": "0.6"}, as_of=OCTOBER), environment="TEST")).created


async def test_the_day_of_a_caller_who_set_one_does_not_count(connection: Connection) -> None:
    today = await today_at(connection)
    async with connection.transaction():
        await connection.execute("SET LOCAL stockgraph.effective_day = '2001-01-01'")
        await replace(connection, group({"A": "0.6"}, as_of=JUNE))
        await replace(connection, group({"A": "0.6"}, "QQQ"))
    assert await spells(connection) == [("A", D("0.6"), JUNE, None)]
    assert await spells(connection, "QQQ") == [("A", D("0.6"), today, None)]


@pytest.mark.parametrize("as_of", ["2999-01-01", "2025-02-31", "soon", "", 7, None])
async def test_a_day_in_the_metadata_that_cannot_be_is_no_reason_to_refuse(
    connection: Connection, as_of: object
) -> None:
    await replace(connection, group({"A": "0.6"}, as_of=JUNE))
    await connection.execute("UPDATE definition_groups SET metadata = $1", orjson.dumps({"as_of": as_of}).decode())
    assert (await replace(connection, group({"A": "0.6"}, as_of=OCTOBER))).annotated
    assert await documents(connection) == ({"as_of": "2025-10-04"}, None)


async def test_metadata_are_merged_and_a_filter_replaced(connection: Connection) -> None:
    first = group({"A": None}, metadata={"issuer": "x", "n": [1, {"ü": None}]}, liquidity_filter={"cap": 1e9})
    assert await replace(connection, first) == diff(created=True, added=("A",), symbols_changed=1)
    assert await documents(connection) == ({"issuer": "x", "n": [1, {"ü": None}]}, {"cap": 1e9})
    before = await everything(connection)
    assert await replace(connection, first) == await replace(connection, group({"A": None})) == diff(unchanged=1)
    assert await replace(connection, group({"A": None}, metadata={}, liquidity_filter={"cap": 1000000000})) == diff(
        unchanged=1
    )
    assert await everything(connection) == before

    more = group({"A": None}, metadata={"issuer": "y", "z": 1}, liquidity_filter=[1])
    assert await replace(connection, more) == diff(annotated=True, unchanged=1)
    assert await documents(connection) == ({"issuer": "y", "n": [1, {"ü": None}], "z": 1}, [1])


@pytest.mark.parametrize("foreign", ["[1]", '"text"', "null", "7"])
async def test_metadata_that_are_no_object_stay_as_they_are(connection: Connection, foreign: str) -> None:
    await replace(connection, group({"A": None}))
    await connection.execute("UPDATE definition_groups SET metadata = $1", foreign)
    await connection.execute("TRUNCATE group_history, membership_history")
    assert await replace(connection, group({"B": None}, as_of=JUNE, metadata={"a": 1})) == diff(
        as_of=JUNE, added=("B",), removed=("A",), symbols_changed=1
    )
    assert await documents(connection) == (orjson.loads(foreign), None)


@pytest.mark.parametrize("text", ["a\0b", "\udc80"])
async def test_metadata_that_the_database_cannot_hold_are_told(connection: Connection, text: str) -> None:
    with pytest.raises(GroupRefused, match=r"ETF SPY: the database cannot hold it \(.*\)\."):
        await replace(connection, group({"A": None}, metadata={"x": text}))
    assert await connection.fetchval("SELECT count(*) FROM definition_groups") == 0


async def test_a_group_is_made_with_its_past(connection: Connection) -> None:
    past = (
        MembershipPeriod("A", date(2001, 1, 1), date(2003, 1, 1)),
        MembershipPeriod("A", date(2004, 1, 1), None),
        MembershipPeriod("GONE", date(2002, 1, 1), date(2004, 1, 1)),
        MembershipPeriod("B", date(2005, 1, 1), None),
    )
    index = group({"A": "0.6", "B": None, "C": "0.1"}, as_of=JUNE, past=past)

    assert await replace(connection, index) == diff(as_of=JUNE, created=True, added=("A", "B", "C"), symbols_changed=3)

    assert await spells(connection) == [
        ("A", None, date(2001, 1, 1), date(2003, 1, 1)),
        ("A", D("0.6"), date(2004, 1, 1), None),
        ("B", None, date(2005, 1, 1), None),
        ("C", D("0.1"), JUNE, None),
        ("GONE", None, date(2002, 1, 1), date(2004, 1, 1)),
    ]
    assert await connection.fetchval("SELECT min(valid_from) FROM group_history") == date(2001, 1, 1)
    before = await everything(connection)
    assert await replace(connection, index) == diff(as_of=JUNE, unchanged=3)
    assert await everything(connection) == before


async def test_any_number_of_changes_is_counted_and_five_thousand_of_a_kind_listed(connection: Connection) -> None:
    heard: list[tuple[str, int, int | None]] = []
    everyone = {f"S{number:05}": "0.0001" for number in range(5_001)}

    made = await replace_group(
        connection, group(everyone), environment="DEFAULT", progress=lambda *each: heard.append(each)
    )

    assert (made.added.total, made.unchanged) == (5_001, 0)
    assert made.added.first == tuple(everyone)[:5_000]
    assert heard == [("Copying ETF SPY", 0, 5_001), ("Copying ETF SPY", 5_000, 5_001), ("Merging ETF SPY", 0, None)]
    halved = await replace(connection, group(dict.fromkeys(everyone, "0.0002")))
    assert (halved.reweighted.total, len(halved.reweighted.first), halved.unchanged) == (5_001, 5_000, 0)
    assert halved.reweighted.first[0] == Reweighting("S00000", D("0.0001"), D("0.0002"))
    emptied = await replace(connection, group({}))
    assert (emptied.removed.total, emptied.removed.first) == (5_001, tuple(everyone)[:5_000])


async def test_the_memory_that_a_load_takes_does_not_grow_with_the_file(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that a file need not have a million rows
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 2_000)
    monkeypatch.setattr("graph.loading.group_writer.MAX_KEPT", 2_000)
    peaks = {}
    for count in (6_000, 20_000):
        file = tmp_path / f"etf_{count}.csv"
        file.write_text("symbol,name,weight\n" + "".join(f"S{n},Number {n},{1 / count}\n" for n in range(count)))
        tracemalloc.start()
        report = await load(connection, *read_paths([file]).groups)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [each.added.total for each in report.groups] == [count]
    # 14,000 holdings take 4 MB
    assert peaks[20_000] < peaks[6_000] + 1_000_000


async def test_a_file_that_changes_between_its_check_and_its_load_changes_nothing(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.loading.holdings.MAX_KEPT", 2)
    await load(connection, group({"OLD": "0.5"}))
    before = await everything(connection)
    file = tmp_path / "etf_SPY.csv"
    file.write_text("symbol,weight\nA,0.5\nB,0.3\nC,0.2\n")
    reading = read_paths([file])
    file.write_text("symbol,weight\nA,0.5\nB,0.2\nX,0.30\n")

    report = await load(connection, *reading.groups, group({"A": None}, "QQQ"))

    assert report.groups == (diff(name="QQQ", created=True, added=("A",), symbols_changed=1),)
    assert [str(error) for error in report.errors] == [f"ETF SPY: {file}: changed while it was read; load it again."]
    assert await members(connection) == {"OLD": D("0.5")}
    (spell, _) = (await everything(connection))[5]
    assert [spell] == before[5]


async def test_files_of_a_folder_end_in_the_database(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "etf_SPY.csv").write_text("symbol,name,weight\nNVDA,NVIDIA CORP,7.830057\nBRK.B,Berkshire,92\n")
    (tmp_path / "sectors.csv").write_text("symbol,sector,industry\nNVDA,Information Technology,Semiconductors\n")
    reading = read_paths([tmp_path])
    assert reading.errors == ()

    report = await load(connection, *reading.groups)

    assert [(d.type, d.name, d.added.first) for d in report.groups] == [
        ("ETF", "SPY", ("BRK.B", "NVDA")),
        ("SECTOR", "information_technology", ("NVDA",)),
    ]
    assert await members(connection) == {"BRK.B": D("0.92"), "NVDA": D("0.07830057")}
    assert await symbols(connection) == [("BRK.B", "Berkshire", None), ("NVDA", "NVIDIA CORP", "Semiconductors")]


async def test_the_file_of_a_later_day_brings_what_joined_and_takes_what_left(
    connection: Connection, tmp_path: Path
) -> None:
    # as one vendor wrote them four months apart
    (tmp_path / "qqq_2025-10-04.csv").write_text(
        "Rank,Ticker,Name,Weight\n0,NVDA ,NVIDIA Corp,60.5\n1,TRI ,Thomson Reuters Corp,30.25\n2,BRK-B,Berkshire,9.25\n"
    )
    (tmp_path / "qqq_2025-06-05.csv").write_text(
        "Holding Ticker,Name,Weight,Shares/Par Value\nANSS ,ANSYS Inc,30,1\nBRK-B ,Berkshire,9.25,2\nNVDA ,Nvidia,60.75,3\n"
    )

    assert await load(connection, *read_paths([tmp_path]).groups) == LoadReport(
        (
            diff(name="QQQ", as_of=JUNE, created=True, added=("ANSS", "BRK.B", "NVDA"), symbols_changed=3),
            diff(
                name="QQQ",
                as_of=OCTOBER,
                annotated=True,
                added=("TRI",),
                removed=("ANSS",),
                reweighted=(Reweighting("NVDA", D("0.6075"), D("0.605")),),
                unchanged=1,
                symbols_changed=2,
            ),
        ),
        (),
    )
    # the later file's names count
    assert ("NVDA", "NVIDIA Corp", None) in await symbols(connection)
    before = await everything(connection)
    assert (await load(connection, *read_paths([tmp_path / "qqq_2025-10-04.csv"]).groups)).groups == (
        diff(name="QQQ", as_of=OCTOBER, unchanged=3),
    )
    assert await everything(connection) == before


@pytest.mark.skipif(not VENDOR_FILES, reason="TEST_VENDOR_FILES names no folder")
async def test_files_that_vendors_did_publish_end_in_the_database_on_their_days(connection: Connection) -> None:
    reading = read_paths([Path(VENDOR_FILES or "")])

    report = await load(connection, *reading.groups)

    assert report.errors == ()
    assert [(each.name, str(each.as_of), each.created) for each in report.groups] == [
        ("ARKK", "2024-06-04", True),
        ("IVV", "2025-11-18", True),
        ("QQQ", "2020-07-02", True),
        ("QQQ", "2025-06-05", False),
        ("QQQ", "2025-10-04", False),
        ("SPY", "2025-11-18", True),
    ]
    rows = await connection.fetch(
        "SELECT g.name, g.metadata, count(*) FROM definition_groups AS g JOIN group_memberships AS m ON m.group_id = g.id"
        " GROUP BY g.id ORDER BY g.name"
    )
    assert [tuple(row) for row in rows] == [
        ("ARKK", '{"as_of": "2024-06-04"}', 35),
        ("IVV", '{"as_of": "2025-11-18"}', 503),
        ("QQQ", '{"as_of": "2025-10-04"}', 101),
        ("SPY", '{"as_of": "2025-11-18"}', 503),
    ]

    def published(name: str, column: int) -> set[str]:
        with Path(VENDOR_FILES or "", name).open(encoding="utf-8-sig", newline="") as file:
            return {row[column].strip() for row in list(csv.reader(file))[1:]}

    june, october = published("qqq_2025-06-05.csv", 0), published("qqq_2025-10-04.csv", 1)
    quarter = report.groups[4]
    assert (set(quarter.added.first), set(quarter.removed.first)) == (october - june, june - october)
    assert quarter.unchanged + quarter.reweighted.total == len(october & june)
    for day, held in ((JUNE, june), (OCTOBER - timedelta(days=1), june), (OCTOBER, october)):
        rows = await connection.fetch(
            "SELECT symbol FROM memberships_on($1) WHERE group_id = (SELECT id FROM definition_groups WHERE name = 'QQQ')",
            day,
        )
        assert {row["symbol"] for row in rows} == held


@pytest.fixture
async def foreign(bare_url: str) -> AsyncIterator[Connection]:
    """A database of the system before this one: narrower weights, no UNIVERSE, a table of stocks of its own."""
    opened = await asyncpg.connect(bare_url)
    await opened.execute("""
        CREATE TABLE definition_groups (
            id serial PRIMARY KEY, name varchar(100) NOT NULL,
            type varchar(50) NOT NULL CHECK (type IN ('ETF', 'THEME', 'SECTOR', 'SEGMENT', 'CUSTOM')),
            description text, metadata jsonb, liquidity_filter jsonb,
            environment varchar(10) NOT NULL CHECK (environment IN ('DEFAULT', 'TEST', 'UAT', 'PROD')),
            created_at timestamp DEFAULT CURRENT_TIMESTAMP, updated_at timestamp DEFAULT CURRENT_TIMESTAMP,
            last_update timestamp DEFAULT CURRENT_TIMESTAMP,
            CONSTRAINT unique_group UNIQUE (name, type, environment));
        CREATE TABLE group_memberships (
            id serial PRIMARY KEY, group_id integer NOT NULL REFERENCES definition_groups (id) ON DELETE CASCADE,
            symbol varchar(50) NOT NULL, weight numeric(5,4), metadata jsonb,
            added_at timestamp DEFAULT CURRENT_TIMESTAMP, updated_at timestamp DEFAULT CURRENT_TIMESTAMP,
            CONSTRAINT unique_membership UNIQUE (group_id, symbol));
        CREATE TABLE symbols (
            symbol varchar(20) PRIMARY KEY, name varchar(100), industry varchar(100), exchange text NOT NULL);
        INSERT INTO symbols VALUES ('A', NULL, 'Tools', 'NYSE'), ('B', 'Barnes', NULL, 'NYSE');
    """)
    yield opened
    await opened.close()


async def test_weights_are_compared_and_rounded_at_the_scale_of_the_column(foreign: Connection) -> None:
    spy = group(
        {"A": "0.00005", "B": "0.00015", "C": "-0.00005", "D": "0.00004999", "E": "0", "F": "0.1234", "G": None}
    )

    report = await load(foreign, spy)

    rounding: dict[str, Any] = {"rounded": 4, "zeroed": ("A", "C", "D")}
    assert report == LoadReport((diff(created=True, added=tuple("ABCDEFG"), **rounding),), ())
    # half to even
    assert await members(foreign) == {
        "A": D(0), "B": D("0.0002"), "C": D(0), "D": D(0), "E": D(0), "F": D("0.1234"), "G": None,
    }  # fmt: skip
    assert await load(foreign, spy) == LoadReport((diff(unchanged=7, **rounding),), ())
    assert [str(error) for error in (await load(foreign, group({"A": "9.99996"}))).errors] == [
        "ETF SPY: the weight 9.99996 of A is not a number between -10 and 10."
    ]


async def test_without_a_history_the_day_that_was_kept_is_the_groups(foreign: Connection) -> None:
    past = (MembershipPeriod("A", date(2001, 1, 1), None),)
    assert (await replace(foreign, group({"A": "0.5"}, as_of=OCTOBER, past=past))).created
    assert await documents(foreign) == ({"as_of": "2025-10-04"}, None)
    with pytest.raises(GroupRefused, match="older than what is here"):
        await replace(foreign, group({"A": "0.6"}, as_of=JUNE))
    assert (await replace(foreign, group({"A": "0.6"}))).annotated
    assert (await replace(foreign, group({"A": "0.7"}, as_of=JUNE))).annotated


async def test_a_column_without_a_scale_keeps_all_decimals(foreign: Connection) -> None:
    await foreign.execute("ALTER TABLE group_memberships ALTER weight TYPE numeric")
    spy = group({"A": "0.12345678901234567890", "B": "12345"})
    assert await load(foreign, spy) == LoadReport((diff(created=True, added=("A", "B")),), ())
    assert await load(foreign, spy) == LoadReport((diff(unchanged=2),), ())
    assert [str(error) for error in (await load(foreign, group({"A": "NaN"}))).errors] == [
        "ETF SPY: the weight NaN of A is not a number between -Infinity and Infinity."
    ]


async def test_a_check_that_refuses_universe_is_named(foreign: Connection) -> None:
    report = await load(foreign, group({"A": None}, "dow30", "UNIVERSE"), group({"A": None}))
    assert report.groups == (diff(created=True, added=("A",)),)
    (refused,) = report.errors
    assert str(refused) == (
        "UNIVERSE dow30: the constraint definition_groups_type_check of definition_groups refuses it (type UNIVERSE in"
        " environment DEFAULT); widen that constraint, or load the group as another type."
    )


async def test_of_a_foreign_table_of_stocks_only_existing_rows_are_updated(foreign: Connection) -> None:
    holdings = (
        Holding("A", None, "Agilent", None),
        Holding("B", None, None, "Metal"),
        Holding("C", None, "Citi", "Banks"),
    )
    spy = GroupHoldings("ETF", "SPY", holdings)
    assert (await replace(foreign, spy)).symbols_changed == 2
    assert await symbols(foreign) == [("A", "Agilent", "Tools", "NYSE"), ("B", "Barnes", "Metal", "NYSE")]
    assert await replace(foreign, spy) == diff(unchanged=3)


@pytest.mark.parametrize(
    ("lacking", "changed", "rows"),
    [
        (["industry"], 1, [("A", "Agilent", "NYSE"), ("B", "Barnes", "NYSE")]),
        (["name"], 2, [("A", "Life", "NYSE"), ("B", "Metal", "NYSE")]),
        (["name", "industry"], 0, [("A", "NYSE"), ("B", "NYSE")]),
    ],
)
async def test_columns_that_a_foreign_table_of_stocks_lacks_are_left_alone(
    foreign: Connection, lacking: list[str], changed: int, rows: list[tuple[str, ...]]
) -> None:
    for column in lacking:
        await foreign.execute(f"ALTER TABLE symbols DROP {column}")
    spy = GroupHoldings("ETF", "SPY", (Holding("A", None, "Agilent", "Life"), Holding("B", None, None, "Metal")))

    assert (await replace(foreign, spy)).symbols_changed == changed

    assert await symbols(foreign) == rows
    assert (await replace(foreign, spy)).symbols_changed == 0


async def test_the_demo_gives_way_where_no_history_is_kept_too(foreign: Connection) -> None:
    demo = dataclasses.replace(group({"A": None}, as_of=OCTOBER), metadata={"stockgraph": "demo"})
    await replace(foreign, demo)
    assert (await replace(foreign, group({"B": None}, as_of=JUNE))).created
    assert await members(foreign) == {"B": None}
