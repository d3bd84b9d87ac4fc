import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.database import Connection
from graph.errors import DatabaseUnavailable
from graph.holdings import GroupHoldings, Holding, read_paths
from graph.loading import GroupDiff, GroupRefused, Listed, Reweighting, load_groups, replace_group

D = Decimal
Weights = Mapping[str, str | None]
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
) -> GroupHoldings:
    holdings = (
        Holding(symbol, None if weight is None else D(weight), (names or {}).get(symbol))
        for symbol, weight in weights.items()
    )
    return GroupHoldings(kind, name, tuple(holdings), description)


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
        )
    ]


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
    report = await load(
        connection, *(group({"A": None}, name, kind) for name, kind in (("1", "ETF"), ("2", "FUND"), ("3", "ETF")))
    )

    assert [d.name for d in report.groups] == ["1", "3"]
    (refused,) = report.errors
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


weights = st.one_of(
    st.none(), st.sampled_from(["0", "0.5", "-0.25"]), st.decimals("-9.9", "9.9", places=8).map(str)
)  # fmt: skip
loads = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("ABCDEFGH"), weights), st.sampled_from([None, "one", "two"])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads)
async def test_any_sequence_of_loads_ends_as_the_model_and_tells_its_diff(
    connection: Connection, sequence: list[tuple[dict[str, str | None], str | None]]
) -> None:
    await connection.execute("DELETE FROM definition_groups; DELETE FROM symbols")
    model: dict[str, Decimal | None] = {}
    listed: set[str] = set()
    described: str | None = None
    generation = await connection.fetchval("SELECT coalesce(sum(weight), 0) FROM data_change")
    for step, (wanted, description) in enumerate(sequence):
        new = {symbol: None if weight is None else D(weight) for symbol, weight in wanted.items()}
        stayed = model.keys() & new.keys()
        expected = diff(
            created=step == 0,
            redescribed=step > 0 and description not in (None, described),
            added=tuple(sorted(new.keys() - model.keys())),
            removed=tuple(sorted(model.keys() - new.keys())),
            reweighted=tuple(Reweighting(s, model[s], new[s]) for s in sorted(stayed) if model[s] != new[s]),
            unchanged=sum(model[s] == new[s] for s in stayed),
            symbols_changed=len(new.keys() - listed),
        )

        assert await replace(connection, group(wanted, description=description)) == expected

        model, described, listed = new, description or described, listed | new.keys()
        assert await members(connection) == model
        assert await connection.fetchval("SELECT description FROM definition_groups") == described
        generation += expected.changed or expected.symbols_changed > 0
        assert await connection.fetchval("SELECT sum(weight) FROM data_change") == generation


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
    assert (await replace(loader, group({"A": "0.2"}))).reweighted.first == (Reweighting("A", D("0.1"), D("0.2")),)


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
