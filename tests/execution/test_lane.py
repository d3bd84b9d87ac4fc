"""The lane of dear operations: places, turns, refusals, and nobody who waits for ever."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from conftest import Live

from graph.errors import Overloaded
from graph.execution.lane import CHEAP_OBJECTS, Lane, Turn, Work


@pytest.fixture
async def lane() -> AsyncIterator[Lane]:
    made = Lane(places=1, max_waiting=4)
    yield made
    made.close()


async def turns(count: int = 3) -> None:
    """Let the event loop come round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_askers_take_turns(lane: Lane) -> None:
    order: list[str] = []

    async def ask(asker: str) -> None:
        await lane.enter(asker)
        order.append(asker)
        await turns()
        lane.leave()

    await lane.enter("first")
    asking = [asyncio.create_task(ask(asker)) for asker in ("a", "a", "a", "b")]
    await turns()
    assert (order, lane.waiting) == ([], 4)
    lane.leave()
    await asyncio.gather(*asking)
    assert (order, lane.waiting) == (["a", "b", "a", "a"], 0)


async def test_beyond_the_bound_those_of_the_asker_who_has_most_are_refused(lane: Lane) -> None:
    await lane.enter("first")
    greedy = [asyncio.create_task(lane.enter("greedy")) for _ in range(4)]
    await turns()
    modest = asyncio.create_task(lane.enter("modest"))
    await turns()
    assert [task.done() for task in greedy] == [False, False, False, True]
    with pytest.raises(Overloaded) as caught:
        await greedy[3]
    assert caught.value.extensions == {"code": "OVERLOADED", "retryAfter": 2}
    with pytest.raises(Overloaded):
        await lane.enter("greedy")
    assert (modest.done(), lane.waiting) == (False, 4)
    for task in (*greedy[:3], modest):
        lane.leave()
        await asyncio.wait([task], timeout=5) if not task.done() else None
    assert lane.waiting == 0


async def test_a_refusal_of_one_who_has_just_stopped_waiting_loses_no_place() -> None:
    lane = Lane(places=1, max_waiting=2)
    await lane.enter("first")
    waiting = [asyncio.create_task(lane.enter(asker)) for asker in ("a", "a")]
    await turns()
    # in the same turn of the event loop
    waiting[1].cancel()
    newcomer = asyncio.create_task(lane.enter("b"))
    await turns()
    assert waiting[1].cancelled()
    for task in (waiting[0], newcomer):
        lane.leave()
        await asyncio.wait_for(task, 5)
    lane.leave()
    await asyncio.wait_for(lane.enter("next"), 5)
    lane.close()


async def test_who_waits_too_long_is_refused(monkeypatch: pytest.MonkeyPatch, lane: Lane) -> None:
    monkeypatch.setattr("graph.execution.lane.WAIT_SECONDS", 0.01)
    await lane.enter("first")
    with pytest.raises(Overloaded):
        await lane.enter("a")
    assert lane.waiting == 0
    lane.leave()
    await lane.enter("next")


async def test_what_waits_for_a_thread_is_bounded(lane: Lane) -> None:
    hold = threading.Event()
    working = [asyncio.create_task(lane.run(Work.ANSWERS, hold.wait, 20)) for _ in range(5)]
    await turns()
    with pytest.raises(Overloaded):
        await lane.run(Work.ANSWERS, int)
    assert await lane.run(Work.DOCUMENTS, int) == 0
    hold.set()
    assert await asyncio.gather(*working) == [True] * 5
    assert await lane.run(Work.ANSWERS, int) == 0


async def test_who_stops_waiting_takes_no_place(lane: Lane) -> None:
    await lane.enter("first")
    waiting = [asyncio.create_task(lane.enter(asker)) for asker in ("a", "b")]
    await turns()
    waiting[0].cancel()
    await asyncio.wait([waiting[0]])
    lane.leave()
    await asyncio.wait_for(waiting[1], 5)
    # one who was given the place in the moment that it stopped gives it on
    late = asyncio.create_task(lane.enter("late"))
    await turns()
    lane.leave()
    late.cancel()
    await asyncio.wait([late])
    await asyncio.wait_for(lane.enter("next"), 5)


async def test_several_columns_of_an_operation_wait_for_one_place(lane: Lane) -> None:
    dear, other = Turn(lane, "a"), Turn(lane, "b")
    await dear.enter()
    await dear.enter()
    waiting = [asyncio.create_task(other.enter()) for _ in range(2)]
    await turns()
    assert (lane.waiting, [task.done() for task in waiting]) == (1, [False, False])
    dear.end()
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    other.end()
    await asyncio.wait_for(lane.enter("next"), 5)


async def test_an_operation_that_ends_while_it_waits_takes_no_place(lane: Lane) -> None:
    await lane.enter("first")
    turn = Turn(lane, "a")
    entering = asyncio.create_task(turn.enter())
    await turns()
    turn.end()
    await asyncio.wait([entering])
    assert (entering.cancelled(), lane.waiting) == (True, 0)
    lane.leave()
    await asyncio.wait_for(lane.enter("next"), 5)


async def test_a_dear_query_waits_and_a_cheap_one_does_not(live: Live) -> None:
    await live.writer.execute(
        "INSERT INTO group_memberships (group_id, symbol)"
        " SELECT (SELECT id FROM definition_groups WHERE name = 'BIG' AND environment = 'DEFAULT'), 'S' || n FROM generate_series(1, 3000) AS n"
    )
    live.runtime.lane = Lane(places=1)
    await live.runtime.lane.enter("somebody")
    dear = asyncio.create_task(
        live.ask('{ group(name: "BIG") { members { nodes { stock { memberships { weight } } } } } }')
    )
    cheap = await live.ask('{ stock(symbol: "AAPL") { name } group(name: "TECH") { memberCount } }')
    assert cheap == {"data": {"stock": {"name": "Apple Inc."}, "group": {"memberCount": 4}}}
    while not live.runtime.lane.waiting:
        await asyncio.sleep(0.01)
    assert not dear.done()
    live.runtime.lane.leave()
    answer = await asyncio.wait_for(dear, 30)
    assert len(answer["data"]["group"]["members"]["nodes"]) > 3_000
    # it has given its place back
    await asyncio.wait_for(live.runtime.lane.enter("next"), 5)


async def test_a_refused_query_has_no_data(live: Live) -> None:
    live.runtime.lane = Lane(places=0, max_waiting=0)
    live.runtime.costs.clear()
    query = (
        "{ " + " ".join(f'{symbol}: stock(symbol: "{symbol}") {{ name }}' for symbol in ("AAPL", "MSFT", "NVDA")) + " }"
    )
    for resolver in list(live.runtime.costs):
        live.runtime.costs[resolver] = CHEAP_OBJECTS
    assert "errors" not in await live.ask(query)
    live.runtime.costs = dict.fromkeys(live.runtime.costs, CHEAP_OBJECTS + 1.0)
    live.runtime.column_cache.clear()
    answer = await live.ask(query)
    assert answer["data"] is None
    assert answer["errors"] == [
        {
            "message": "Too many dear queries are waiting; ask again in 2 seconds, or for less at a time.",
            "extensions": {"code": "OVERLOADED", "retryAfter": 2},
        }
    ]
