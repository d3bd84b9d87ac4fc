"""What is asked for at the same time goes in one statement, and each gets what he would have got alone."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from conftest import Live, asker, seconds_until

from graph.errors import DatabaseUnavailable, InvalidArgument
from graph.execution import dataloaders as batches
from graph.execution.columns import LazyObjects
from graph.execution.dataloaders import BatchQueue, DataLoader, group_by_ordinal
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.postgres import database as database_module
from graph.postgres.database import POOL_SIZE, Database, ReadResult
from graph.settings import Settings

HOLDERS = "query ($symbol: String!) { stock(symbol: $symbol) { memberships(type: ETF) { weight group { name } } } }"
SYMBOLS = ["AAPL", "MSFT", "NVDA", "XOM", "JPM", "AMD", "BRK.B", "NOPE"]


class Wire:
    """Reads from nowhere: each statement is answered when the test says so."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.answers: list[asyncio.Future[list[Any]]] = []
        self.under_way = asyncio.Condition()

    async def read(self, statement: str, *arguments: Any, **_: Any) -> ReadResult:
        async with self.under_way:
            self.sent.append((statement, *arguments))
            self.answers.append(asyncio.get_running_loop().create_future())
            answer = self.answers[-1]
            self.under_way.notify_all()
        return ReadResult(await answer, None, 0)

    async def statements(self, count: int) -> None:
        async with asyncio.timeout(10), self.under_way:
            await self.under_way.wait_for(lambda: len(self.sent) == count)


def rows(*values: str) -> list[Any]:
    return [{"ordinal": place, "value": value} for place, value in enumerate(values, 1)]


@asynccontextmanager
async def nothing_kept(url: str) -> AsyncIterator[Runtime]:
    async with open_runtime(Settings(database_url=url, data_cache="off")) as runtime:
        await runtime.generations.confirmed()
        yield runtime


async def test_operations_that_come_together_are_answered_by_one_statement_for_each_relation(
    market_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    fetch = Database.fetch

    async def noting(self: Database, statement: str, *arguments: Any, **options: Any) -> ReadResult:
        sent.append(statement)
        return await fetch(self, statement, *arguments, **options)

    async with nothing_kept(market_url) as runtime:
        ask = asker(runtime)
        alone = [await ask(HOLDERS, symbol=symbol) for symbol in SYMBOLS]
        monkeypatch.setattr(Database, "fetch", noting)
        together = await asyncio.gather(*(ask(HOLDERS, symbol=symbol) for symbol in SYMBOLS for _ in range(3)))
    assert together == [answer for answer in alone for _ in range(3)]
    assert [name for name in sent if name != "tracking"] == ["stocks", "stock_memberships"]
    # each says what it needed
    assert {tuple(answer.statements) for answer in together} == {("stocks", "stock_memberships"), ("stocks",)}


async def test_what_one_asks_wrongly_the_others_do_not_suffer_for(market_url: str) -> None:
    async with nothing_kept(market_url) as runtime:
        ask = asker(runtime)
        alone = await ask(HOLDERS, symbol="AAPL")
        wrong, right, also = await asyncio.gather(
            ask(HOLDERS, symbol="A\0"), ask(HOLDERS, symbol="AAPL"), ask(HOLDERS, symbol="AAPL")
        )
        assert [error["extensions"]["code"] for error in wrong["errors"]] == ["INVALID_ARGUMENT"]
        assert right == also == alone
        # all keys of an operation go alone then, and once
        first, second = Operation(runtime), Operation(runtime)
        async with first.attempt(snapshot=False), second.attempt(snapshot=False):
            *found, error = await asyncio.gather(
                first.load_rows("stocks", "AAPL", "DEFAULT"),
                first.load_rows("stocks", "MSFT", "DEFAULT"),
                second.load_rows("stocks", "A\0", "DEFAULT"),
                return_exceptions=True,
            )
            assert [[row["symbol"] for row in rows] for rows in found] == [["AAPL"], ["MSFT"]]  # type: ignore[union-attr]
            assert isinstance(error, InvalidArgument)
        assert (first.statements, second.statements) == (["stocks"] * 2, ["stocks"] * 2)


async def test_an_outage_costs_no_more_statements_than_there_are_loaders(
    market_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nothing_kept(market_url) as runtime:
        sent: list[str] = []

        async def fail(statement: str, *_: Any, **__: Any) -> ReadResult:
            sent.append(statement)
            raise DatabaseUnavailable("gone")

        monkeypatch.setattr(runtime.database, "fetch", fail)
        operations = [Operation(runtime) for _ in range(4)]
        async with AsyncExitStack() as attempts:
            for operation in operations:
                await attempts.enter_async_context(operation.attempt(snapshot=False))
            asked = [operation.load_rows("stocks", "AAPL", "DEFAULT") for operation in operations]
            found = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in found] == [DatabaseUnavailable] * 4
        assert [statement for statement in sent if statement != "tracking"] == ["stocks"]


async def test_who_asks_after_a_statement_was_sent_gets_another() -> None:
    wire = Wire()
    loader, shared = DataLoader("stocks"), BatchQueue(wire.read)
    first = shared.enqueue(loader, [("AAPL",)])
    assert shared.enqueue(loader, [("MSFT",), ("AAPL",)]) is first
    first.subscribe("somebody")
    await wire.statements(1)
    second = shared.enqueue(loader, [("AAPL",)])
    assert second is not first
    second.subscribe("somebody")
    await wire.statements(2)
    wire.answers[1].set_result(rows("later"))
    wire.answers[0].set_result(rows("earlier", "other"))
    found = await asyncio.gather(first.loaded, second.loaded)
    assert wire.sent == [("stocks", ["AAPL", "MSFT"]), ("stocks", ["AAPL"])]
    values = [{key: answer[0]["value"] for key, answer in each.values.items()} for each in found]
    assert values == [{("AAPL",): "earlier", ("MSFT",): "other"}, {("AAPL",): "later"}]


async def test_keys_of_several_batches_are_of_all_their_generations(live: Live) -> None:
    operation = Operation(live.runtime)
    async with operation.attempt(snapshot=False):
        first, both, again = operation.fork(), operation.fork(), operation.fork()
        before = await first.load_rows_many("member_counts", [(1,)])
        await live.writer.execute("UPDATE definition_groups SET description = 'other' WHERE id = 1")
        found = await both.load_rows_many("member_counts", [(1,), (2,)])
        assert (found[:1], len(first.dependencies.generations), len(both.dependencies.generations)) == (before, 1, 2)
        await again.load_rows_many("member_counts", [(2,), (1,)])
        assert again.dependencies.generations == both.dependencies.generations
        operation.merge(both.dependencies)
        assert not operation.is_consistent


async def test_loaders_of_other_arguments_or_too_many_keys_go_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MAX_KEYS", 3)
    wire = Wire()
    shared = BatchQueue(wire.read)
    asked = [
        shared.enqueue(DataLoader("stock_memberships", shared_args=("DEFAULT",)), [("A",), ("B",)]),
        shared.enqueue(DataLoader("stock_memberships", shared_args=("TEST",)), [("A",)]),
        shared.enqueue(DataLoader("stock_memberships", shared_args=("DEFAULT",)), [("C",), ("D",)]),
        shared.enqueue(DataLoader("stock_memberships", shared_args=("DEFAULT",)), [("E",)]),
        # who asks only for what is asked for already joins
        shared.enqueue(DataLoader("stock_memberships", shared_args=("DEFAULT",)), [("E",), ("C",)]),
        shared.enqueue(DataLoader("stocks"), [("A",), ("B",), ("C",), ("D",)]),
        shared.enqueue(DataLoader("stocks"), [("B",), ("D",)]),
    ]
    for batch in asked:
        batch.subscribe("somebody")
    await wire.statements(4)
    assert sorted(wire.sent) == [
        ("stock_memberships", ["A"], "TEST"),
        ("stock_memberships", ["A", "B"], "DEFAULT"),
        ("stock_memberships", ["C", "D", "E"], "DEFAULT"),
        ("stocks", ["A", "B", "C", "D"]),
    ]
    for answer in wire.answers:
        answer.set_exception(DatabaseUnavailable("gone"))
    found = await asyncio.gather(*(batch.loaded for batch in asked), return_exceptions=True)
    assert [type(each) for each in found] == [DatabaseUnavailable] * 7


async def test_a_statement_goes_on_while_anybody_has_use_for_it_and_no_longer() -> None:
    wire = Wire()
    loader, shared = DataLoader("stocks"), BatchQueue(wire.read)
    batch = shared.enqueue(loader, [("AAPL",)])
    assert [batch.subscribe(asker) for asker in ("one", "other", "one")] == [True, True, False]
    await wire.statements(1)
    batch.unsubscribe("one")
    await asyncio.sleep(0)
    assert not wire.answers[0].cancelled()
    batch.unsubscribe("other")
    await asyncio.wait([batch.loaded])
    assert wire.answers[0].cancelled()
    # what nobody has use for is not sent; who joins then is answered
    nobodys = shared.enqueue(loader, [("MSFT",)])
    nobodys.subscribe("one")
    nobodys.unsubscribe("one")
    await asyncio.wait([nobodys.loaded])
    joined = shared.enqueue(loader, [("NVDA",)])
    joined.subscribe("one")
    joined.unsubscribe("one")
    joined.subscribe("other")
    await wire.statements(2)
    wire.answers[1].set_result(rows("there"))
    assert await joined.loaded == ({("NVDA",): rows("there")}, None)
    assert nobodys.loaded.cancelled()


async def test_a_client_that_goes_takes_no_statement_from_others(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way, let_go = asyncio.Event(), asyncio.Event()
    fetch = live.runtime.database.fetch

    async def slowly(statement: str, *arguments: Any, **options: Any) -> ReadResult:
        if statement == "stock_memberships":
            under_way.set()
            await let_go.wait()
        return await fetch(statement, *arguments, **options)

    right = await live.ask(HOLDERS, symbol="AAPL")
    live.runtime.column_cache.clear()
    monkeypatch.setattr(live.runtime.database, "fetch", slowly)
    goes, stays = (asyncio.create_task(live.ask(HOLDERS, symbol=symbol)) for symbol in ("MSFT", "AAPL"))
    await under_way.wait()
    goes.cancel()
    await asyncio.wait([goes])
    let_go.set()
    assert await stays == right


@pytest.mark.parametrize("snapshot", [True, False])
async def test_who_is_cancelled_takes_nothing_from_others_of_the_operation(live: Live, *, snapshot: bool) -> None:
    operation = Operation(live.runtime)
    await live.writer.execute("BEGIN; LOCK TABLE group_memberships")
    async with operation.attempt(snapshot=snapshot):
        counts = asyncio.create_task(operation.load_rows("member_counts", 1))
        await seconds_until(lambda: _waits_for_a_lock(live))
        counts.cancel()
        await asyncio.wait([counts])
        await live.writer.execute("ROLLBACK")
        assert [row["symbol"] for row in await operation.load_rows("stocks", "AAPL", "DEFAULT")] == ["AAPL"]
        # it was read all the same
        assert [row["total"] for row in await operation.load_rows("member_counts", 1)] == [5]
    assert operation.statements == ["member_counts", "stocks"]


async def _waits_for_a_lock(live: Live) -> bool:
    found: bool = await live.writer.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
    return found


async def test_a_statement_ends_with_the_only_operation_that_asked(live: Live) -> None:
    operation = Operation(live.runtime)
    await live.writer.execute("BEGIN; LOCK TABLE group_memberships")
    async with operation.attempt(snapshot=False):
        asked = asyncio.create_task(operation.load_rows("member_counts", 1))
        await seconds_until(lambda: _waits_for_a_lock(live))
    await asyncio.wait([asked])
    assert asked.cancelled()
    await seconds_until(lambda: _no_longer_waits(live))
    await live.writer.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await operation.load_rows("member_counts", 1)


async def _no_longer_waits(live: Live) -> bool:
    return not await _waits_for_a_lock(live)


async def test_connections_stay_at_hand_unless_they_were_ended(live: Live) -> None:
    database = live.runtime.database

    async def process() -> int:
        assert (await database.fetch("tracking", with_generation=False)).rows
        return database._idle[-1].get_server_pid()  # noqa: SLF001

    first = await process()
    assert await process() == first
    ended = asyncio.Event()
    database._idle[-1].add_termination_listener(lambda _: ended.set())  # noqa: SLF001
    await live.writer.execute(f"SELECT pg_terminate_backend({first})")
    async with asyncio.timeout(15):
        await ended.wait()
    assert await process() != first


async def test_connections_that_are_not_used_go_back_to_the_pool(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "IDLE_SECONDS", 0.05)
    database = live.runtime.database
    await asyncio.gather(*(database.fetch("tracking", with_generation=False) for _ in range(8)))
    pool = database._pool  # noqa: SLF001
    assert pool
    await seconds_until(lambda: _holds(pool.get_idle_size() == pool.get_size() == 8))
    assert database._idle == []  # noqa: SLF001


async def _holds(what: object) -> bool:
    return bool(what)


async def test_all_connections_of_the_pool_are_used_and_none_is_lost(live: Live) -> None:
    names = ["AAPL", "MSFT", "NVDA"]
    database = live.runtime.database

    async def read(name: str) -> list[str]:
        reading = await database.fetch("stocks", [name], ["DEFAULT"], with_generation=True)
        return [row["symbol"] for row in reading.rows]

    async def fail() -> None:
        with pytest.raises(asyncpg.DataError):
            await database.fetch("stocks", [1], ["DEFAULT"], with_generation=True)

    for _ in range(5):
        async with asyncio.timeout(30):
            answers = await asyncio.gather(
                *(read(names[place % 3]) for place in range(40)), *(fail() for _ in range(15))
            )
        assert answers[:40] == [[names[place % 3]] for place in range(40)]
    assert database._pool  # noqa: SLF001
    assert database._pool.get_size() == POOL_SIZE  # noqa: SLF001


class Made:
    """An object that counts how many there are."""

    count = 0

    def __init__(self, **attributes: Any) -> None:
        Made.count += 1
        self.attributes = attributes


def test_records_are_made_of_their_columns_only_when_asked_for() -> None:
    Made.count = 0
    first = LazyObjects(Made, {"symbol": ["A", "B", "C"], "weight": [0.5, None, 0.1]}, group="X")
    other = LazyObjects(Made, {"symbol": ["D"], "weight": [0.2]}, group="Y")
    joined = LazyObjects.joined([first[:2], LazyObjects(Made, {"symbol": [], "weight": []}, group="Z"), other])
    assert (len(first), len(joined)) == (3, 3)
    assert [joined.values(name) for name in joined.attributes] == [["A", "B", "D"], [0.5, None, 0.2], ["X", "X", "Y"]]
    assert first.values("group") == ["X"] * 3
    assert Made.count == 0
    assert [each.attributes for each in joined] == [
        {"symbol": "A", "weight": 0.5, "group": "X"},
        {"symbol": "B", "weight": None, "group": "X"},
        {"symbol": "D", "weight": 0.2, "group": "Y"},
    ]
    assert (joined[-1].attributes, Made.count) == ({"symbol": "D", "weight": 0.2, "group": "Y"}, 4)


def test_slices_of_records_share_their_columns_and_are_joined_without_a_copy() -> None:
    symbols = ["A", "B", "C", "D"]
    records = LazyObjects(Made, {"symbol": symbols}, group="X")
    parts = records.split(2, 2)
    assert [part.values("symbol") for part in parts] == [["A", "B"], ["C", "D"]]
    assert (parts[1].first("symbol"), parts[1].first("group"), parts[1][1:].values("group")) == ("C", "X", ["X"])
    assert LazyObjects.joined(parts).values("symbol") is symbols
    # neither in another order nor with a gap
    assert LazyObjects.joined(parts[::-1]).values("symbol") == ["C", "D", "A", "B"]
    assert LazyObjects.joined([records[:1], records[2:]]).values("symbol") == ["A", "C", "D"]
    assert [each.attributes for each in parts[1]] == [{"symbol": "C", "group": "X"}, {"symbol": "D", "group": "X"}]
    assert [len(part) for part in records[4:].split(0, 3)] == [0, 0, 0]
    assert (len(records[3:1]), records[-3:-1].values("symbol")) == (0, ["B", "C"])


async def test_what_was_asked_goes_with_the_operation_and_needs_no_collector(live: Live) -> None:
    operation = Operation(live.runtime)
    gc.disable()
    try:
        async with operation.attempt(snapshot=False):
            await operation.load_rows("groups_named", "BIG", "DEFAULT")
            ((asked,),) = (each.values() for each in operation._attempt._batch_of.values())  # noqa: SLF001
            batch = weakref.ref(asked)
            del asked
        await asyncio.sleep(0)
        assert batch() is None
    finally:
        gc.enable()


# the contract of DataLoader, line by line


def test_values_come_in_the_order_of_the_keys_and_those_without_rows_have_one_too() -> None:
    found = [{"ordinal": 3, "value": "c"}, {"ordinal": 1, "value": "a"}, {"ordinal": 3, "value": "d"}]
    grouped = group_by_ordinal(DataLoader("stocks"), [("A",), ("B",), ("C",)], found)  # type: ignore[arg-type]
    assert grouped == [[found[1]], [], [found[0], found[2]]]


async def test_a_key_is_sent_once_a_batch_however_often_it_is_loaded() -> None:
    wire = Wire()
    queue = BatchQueue(wire.read)
    batch = queue.enqueue(DataLoader("stocks"), [("A",), ("B",), ("A",)])
    assert queue.enqueue(DataLoader("stocks"), [("B",)]) is batch
    batch.subscribe("an attempt")
    await wire.statements(1)
    assert wire.sent == [("stocks", ["A", "B"])]
    wire.answers[0].set_result(rows("a", "b"))
    loaded = await batch.wait()
    assert {key: value[0]["value"] for key, value in loaded.values.items()} == {("A",): "a", ("B",): "b"}


async def test_an_error_is_that_of_its_attempt_and_not_of_the_next(
    market_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nothing_kept(market_url) as runtime:
        failing = [DatabaseUnavailable("away")]
        fetch = runtime.database.fetch

        async def flaky(*arguments: Any, **options: Any) -> ReadResult:
            if failing:
                raise failing.pop()
            return await fetch(*arguments, **options)

        monkeypatch.setattr(runtime.database, "fetch", flaky)
        operation = Operation(runtime)
        async with operation.attempt(snapshot=False):
            for _ in range(2):
                with pytest.raises(DatabaseUnavailable):
                    await operation.load_rows("stocks", "AAPL", "DEFAULT")
        async with operation.attempt(snapshot=False):
            assert [row["symbol"] for row in await operation.load_rows("stocks", "AAPL", "DEFAULT")] == ["AAPL"]
