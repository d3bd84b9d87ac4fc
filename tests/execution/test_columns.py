"""What was read is kept column by column, for as long as it stands, and by whatever query it is asked for."""

import asyncio
import gc
import time
import weakref
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import SCHEMA, Live, seconds_until

from graph.caching.generations import GenerationTracker
from graph.execution import operation as context
from graph.execution import plan_execution as execution
from graph.execution.columns import ColumnCache, ColumnCacheRoot
from graph.execution.operation import Operation
from graph.postgres.database import Generation, ReadResult

MEMBERS = '{ group(name: "TECH") { members { nodes { symbol weight } } } }'
NESTED = '{ group(name: "BIG") { members { nodes { symbol group { members { nodes { symbol group { members { nodes { weight } } } } } } } } } }'


async def test_a_query_reads_only_what_no_query_before_has_read(live: Live) -> None:
    assert (await live.ask(MEMBERS)).statements == ["groups_named", "members_by_weight"]
    assert (await live.ask(MEMBERS)).statements == []
    other = await live.ask(
        '{ g: group(name: "TECH") { memberCount members { nodes { stock { name sector { name } } } } } }'
    )
    assert sorted(other.statements) == ["member_counts", "stock_details", "stock_memberships"]
    # another key, though the same group
    assert (await live.ask('{ group(name: "tech") { name } }')).statements == ["groups_named"]
    stats = live.runtime.column_cache.stats()
    assert (stats.entries, stats.misses, stats.evictions) == (2, 2, 0)
    assert stats.bytes
    assert stats.bytes > 1_000


async def test_a_change_is_in_the_next_answer_of_who_has_heard_of_it(live: Live) -> None:
    before = await live.ask(MEMBERS)
    await live.writer.execute("UPDATE group_memberships SET weight = 0.01 WHERE group_id = 2 AND symbol = 'NVDA'")
    await live.caught_up()
    after = await live.ask(MEMBERS)
    assert after.statements == ["groups_named", "members_by_weight"]
    weights = [
        {node["symbol"]: node["weight"] for node in answer["data"]["group"]["members"]["nodes"]}
        for answer in (before, after)
    ]
    assert weights == [
        {"NVDA": 0.4, "AAPL": 0.35, "MSFT": 0.2, "AMD": 0.05000001},
        {"NVDA": 0.01, "AAPL": 0.35, "MSFT": 0.2, "AMD": 0.05000001},
    ]


async def test_what_rests_on_more_than_the_groups_is_read_each_time(live: Live) -> None:
    for query in (
        f'{{ group(name: "TECH", asOf: "{datetime.now(UTC).date()}") {{ memberCount }} }}',
        "{ status { generation } }",
        '{ stock(symbol: "AAPL") { performance(windows: [DAY]) { change } } }',
        '{ breadth(universe: "TECH") { members } }',
    ):
        # the plan is stored when a text is asked again
        await live.ask(query)
        await live.ask(query)
        kept = live.runtime.column_cache.stats().entries
        assert SCHEMA.execute_from_cache(query, None, None, Operation(live.runtime)) is None
        await live.ask(query)
        assert live.runtime.column_cache.stats().entries == kept


async def test_where_nothing_is_recorded_nothing_is_kept(live: Live) -> None:
    await live.writer.execute("ALTER TABLE symbols DISABLE TRIGGER ALL")
    await seconds_until(lambda: _holds(not live.runtime.generations.tracked))
    for _ in range(2):
        assert (await live.ask(MEMBERS)).statements == ["groups_named", "members_by_weight"]
    assert live.runtime.column_cache.stats().entries == 0


async def _holds(what: object) -> bool:
    return bool(what)


async def test_a_column_that_many_ask_for_is_read_once_also_where_the_first_of_them_goes(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way, let_go = asyncio.Event(), asyncio.Event()
    fetch = live.runtime.database.fetch
    sent: list[str] = []

    async def slowly(statement: str, *arguments: Any, **options: Any) -> ReadResult:
        if statement != "tracking":
            sent.append(statement)
            under_way.set()
            await let_go.wait()
        return await fetch(statement, *arguments, **options)

    monkeypatch.setattr(live.runtime.database, "fetch", slowly)
    asked = [asyncio.create_task(live.ask(MEMBERS)) for _ in range(8)]
    await under_way.wait()
    let_go.set()
    first, *others = await asyncio.gather(*asked)
    assert all(other == first for other in others)
    assert sorted(sent) == ["groups_named", "members_by_weight"]

    live.runtime.column_cache.clear()
    sent.clear()
    under_way.clear()
    let_go.clear()
    leader = asyncio.create_task(live.ask(MEMBERS))
    await under_way.wait()
    followers = [asyncio.create_task(live.ask(MEMBERS)) for _ in range(3)]
    await asyncio.sleep(0)
    leader.cancel()
    await asyncio.wait([leader])
    let_go.set()
    assert leader.cancelled()
    assert all(answer == first for answer in await asyncio.gather(*followers))


@pytest.mark.parametrize("most", [156, 157])
async def test_objects_count_as_often_as_they_are_in_the_answer(
    live: Live, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """One group, five members, in the answer 1 + 5 + 25 + 125 times; and a stock."""
    monkeypatch.setattr(context, "MAX_OBJECTS", most)
    for _ in range(3):
        answer = await live.ask(f'{{ stock(symbol: "XOM") {{ name }} {NESTED[1:]}')
        assert answer["data"]["stock"] == {"name": "Exxon Mobil"}
        codes = [(error["path"], error["extensions"]["code"]) for error in answer.get("errors", ())]
        assert codes == ([(["group"], "LIMIT_EXCEEDED")] if most == 156 else [])


async def test_what_was_not_used_for_longest_is_put_out(live: Live) -> None:
    queries = [f'{{ stock(symbol: "{symbol}") {{ name groups {{ name }} }} }}' for symbol in ("AAPL", "MSFT", "NVDA")]
    await live.ask(queries[0])
    size = live.runtime.column_cache.stats().bytes
    assert size
    live.runtime.column_cache.clear()
    live.runtime.column_cache._max_bytes = size * 5 // 2  # noqa: SLF001 - no setting is worth it
    for query in (queries[0], queries[1], queries[0], queries[2]):
        await live.ask(query)
    again = [(await live.ask(query)).statements for query in (queries[0], queries[2], queries[1])]
    assert again == [[], [], ["stocks", "stock_memberships"]]
    assert live.runtime.column_cache.stats().evictions == 2
    stats = live.runtime.column_cache.stats()
    assert stats.bytes
    assert stats.bytes <= size * 5 // 2


async def test_a_field_with_arguments_of_any_length_is_not_kept(live: Live) -> None:
    for _ in range(2):
        answer = await live.ask(
            "query ($text: String!) { search(text: $text) { __typename } }", text="x" * execution.MAX_KEY
        )
        assert answer == {"data": {"search": []}}
        assert answer.statements == ["search_hits"]
    assert live.runtime.column_cache.stats().entries == 0


async def test_what_a_generation_kept_goes_with_it_and_needs_no_collector(live: Live) -> None:
    await live.ask(MEMBERS)
    root = live.runtime.column_cache.root()
    assert isinstance(root, ColumnCacheRoot)
    old = weakref.ref(root)
    del root
    gc.disable()
    try:
        await live.writer.execute("UPDATE symbols SET name = 'Apple' WHERE symbol = 'AAPL'")
        await live.caught_up()
        await live.ask(MEMBERS)
        assert old() is None
    finally:
        gc.enable()


def test_a_root_is_of_one_generation_of_one_database() -> None:
    generations = GenerationTracker()
    generations.tracked = True
    kept = ColumnCache(generations)
    assert kept.root() is None
    generations.observe(ReadResult([], Generation(1, 0), time.monotonic()))
    first = kept.root()
    assert isinstance(first, ColumnCacheRoot)
    generations.notify({"family": "prices"})
    generations.observe(ReadResult([], Generation(1, 1), time.monotonic()))
    assert kept.root() is first
    generations.notify({"family": "groups"})
    assert kept.root() is None
    generations.observe(ReadResult([], Generation(2, 1), time.monotonic()))
    second = kept.root()
    assert second is not first
    # another database, which comes to as many changes
    generations.observe(ReadResult([], Generation(0, 0), time.monotonic()))
    generations.observe(ReadResult([], Generation(2, 1), time.monotonic()))
    assert kept.root() is not first
    assert kept.root() is not second
    generations.observe(ReadResult([], Generation(2, 1), time.monotonic() - 1))
    assert kept.root() is not None
