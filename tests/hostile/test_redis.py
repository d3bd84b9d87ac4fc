"""A Redis that hangs, and one in which somebody else has written."""

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
import redis.asyncio
from conftest import Answer, Databases, asker, seconds_until

from graph.caching import circuit_breaker
from graph.caching.circuit_breaker import REDIS_SECONDS
from graph.caching.data_cache import CachedValue, CacheSpec, DataCache
from graph.caching.generations import GenerationTracker
from graph.execution.runtime import Runtime, open_runtime
from graph.postgres.database import Generation, ReadResult
from graph.settings import Settings

KEYS = ("top3", "TECH", "BIG", "top3:TECH", "TECH-top3", "TECH&BIG")


class Server(NamedTuple):
    """A Redis that tests may stop."""

    url: str
    process: "subprocess.Popen[bytes]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server or valkey-server here")
    path = tmp_path_factory.mktemp("redis") / "socket"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_for(path)
        yield Server(f"unix://{path}", process)
        process.send_signal(signal.SIGCONT)
        process.terminate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX) as client:
            if client.connect_ex(str(path)) == 0:
                return
    raise TimeoutError


@pytest.fixture
async def runtime(server: Server, priced_template: str, databases: Databases) -> AsyncIterator[Runtime]:
    async with redis.asyncio.from_url(server.url) as client:
        await client.flushall()
    settings = Settings(database_url=await databases.make(priced_template), cache_url=server.url)
    async with open_runtime(settings) as opened:
        await opened.generations.confirmed()
        yield opened


@asynccontextmanager
async def hanging(server: Server) -> AsyncIterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def timed(runtime: Runtime, key: str) -> tuple[float, Answer]:
    runtime.column_cache.clear()
    start = time.monotonic()
    answer = await asker(runtime)(f'{{ universe(key: "{key}") {{ symbols }} }}')
    return time.monotonic() - start, answer


async def test_a_redis_that_hangs_costs_one_time_out_and_is_used_again(
    server: Server, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0.2, raising=False)
    caplog.set_level(logging.INFO, "graph.caching.circuit_breaker")
    right = {key: (await timed(runtime, key))[1] for key in KEYS}
    async with redis.asyncio.from_url(server.url) as client:
        await client.flushall()
    async with hanging(server):
        first, *rest = [await timed(runtime, key) for key in KEYS]
        assert first[0] < REDIS_SECONDS + 0.4
        # nobody waits for the requests that try again meanwhile
        assert [seconds for seconds, _ in rest if seconds > 0.4] == []
        together = await asyncio.gather(*(timed(runtime, key) for key in KEYS * 8))
        assert max(seconds for seconds, _ in together) < 0.4 + 0.4
        assert dict(zip(KEYS, [first[1], *(answer for _, answer in rest)], strict=True)) == right

    async def used() -> bool:
        return (await timed(runtime, KEYS[0]))[1].statements == []

    await seconds_until(used)
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "Redis does not answer (TimeoutError); the database is read until it does."
    assert messages[1].startswith("Redis answers again, after ")
    assert len(messages) == 2


async def test_nothing_of_before_a_rewind_is_served_by_a_redis_that_hung_meanwhile(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit_breaker, "RETRY_SECONDS", 0, raising=False)
    generations = GenerationTracker()
    generations.tracked, generations.identity = True, "rewound"
    cache: DataCache[tuple[str, ...]] = DataCache(CacheSpec("words", tuple), generations, redis_url=server.url)

    def at(generation: int) -> Generation:
        generations.observe(ReadResult([], Generation(generation, 0), time.monotonic()))
        return Generation(generation, 0)

    async def get(word: str) -> tuple[str, ...]:
        found = Generation(1, 0)

        async def load() -> CachedValue[tuple[str, ...]]:
            return CachedValue((word,), found)

        at(1)
        return (await cache.get("k", load)).value

    assert await get("old") == ("old",)
    async with hanging(server):
        at(0)
        assert await get("new") == ("new",)

    async def answers() -> bool:
        at(1)
        assert await get("newer") != ("old",)
        return await get("newest") == ("newer",)

    await seconds_until(answers)
    await cache.close()


SYMBOLS = ["AAPL", "MSFT"]
UNIVERSE, NAMES, HOLDINGS = "universes", "group_names", "holdings"
WEIGHTS = [0.5, 0.5]
FORMS: list[tuple[str, object]] = [
    (UNIVERSE, form)
    for form in ("AAPL", {"AAPL": 1}, [1, 2], [None], [["AAPL"]], [{"a": 1}], [True], 7, None, ["B", "A"], ["A", "A"], ["A\0"])
] + [
    (NAMES, form)
    for form in (
        "abc", {"a": 1}, 7, None, [7], ["abc"], [[1, "top3"]], [[1, "top3", "ETF", 4]], [["9", "top3", "UNIVERSE"]],
        [[9, 3, "UNIVERSE"]], [[9, None, "UNIVERSE"]], [[9, "top3", 5]], [[True, "top3", "UNIVERSE"]], [[2**40, "top3", "UNIVERSE"]],
        [[-1, "top3", "UNIVERSE"]], [[9, ["top3"], "UNIVERSE"]], [{"id": 9, "name": "top3", "type": "UNIVERSE"}],
    )
] + [
    (HOLDINGS, form)
    for form in (
        "ab", 7, None, [], [[SYMBOLS, WEIGHTS]] * 2, [[SYMBOLS]], [[SYMBOLS, "ab"]], [[SYMBOLS, [0.5]]], [["AB", WEIGHTS]], [[[1, 2], WEIGHTS]],
        [[SYMBOLS, ["a", "b"]]], [[SYMBOLS, [[1], [2]]]], [[SYMBOLS, [True, False]]], [{"symbols": SYMBOLS, "weights": WEIGHTS}], [SYMBOLS, WEIGHTS],
    )
]  # fmt: skip
QUERIES = {
    UNIVERSE: '{ universe(key: "top3") { symbols stocks { nodes { symbol name } } } }',
    NAMES: '{ universe(key: "top3") { key size groups { name } } }',
    HOLDINGS: '{ universe(key: "TECH") { performance { window change members } } }',
}


@pytest.mark.parametrize("content", [*FORMS, (UNIVERSE, b"{"), (UNIVERSE, b"[" * 5000), (UNIVERSE, b"\xff\xfe"), (UNIVERSE, b'["\\ud800"]'), (UNIVERSE, b"")], ids=repr)  # fmt: skip
async def test_what_no_server_wrote_is_read_anew_and_overwritten(
    server: Server, runtime: Runtime, content: tuple[str, object]
) -> None:
    cache, form = content
    right = await asker(runtime)(QUERIES[cache])
    assert "errors" not in right
    async with redis.asyncio.from_url(server.url) as client:
        (key,) = await client.keys(f"stockgraph:{cache}:*")
        written = await client.get(key)
        await client.set(key, form if isinstance(form, bytes) else orjson.dumps(form))
        runtime.column_cache.clear()
        assert await asker(runtime)(QUERIES[cache]) == right
        assert await client.get(key) == written


async def test_a_key_of_another_kind_is_no_error(server: Server, runtime: Runtime) -> None:
    right = await asker(runtime)(QUERIES[UNIVERSE])
    async with redis.asyncio.from_url(server.url) as client:
        (key,) = await client.keys(f"stockgraph:{UNIVERSE}:*")
        await client.delete(key)
        await client.lpush(key, "AAPL")
        runtime.column_cache.clear()
        assert await asker(runtime)(QUERIES[UNIVERSE]) == right
        assert await client.get(key) == b'["AAPL","MSFT","NVDA"]'


async def test_of_a_huge_entry_little_is_read(server: Server, runtime: Runtime) -> None:
    right = await asker(runtime)(QUERIES[UNIVERSE])
    async with redis.asyncio.from_url(server.url) as client:
        (key,) = await client.keys(f"stockgraph:{UNIVERSE}:*")
        await client.set(key, b"[" + b'"A",' * 7_500_000 + b'"A"]')
        runtime.column_cache.clear()
        tracemalloc.start()
        try:
            assert await asker(runtime)(QUERIES[UNIVERSE]) == right
            assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
        finally:
            tracemalloc.stop()
        assert await client.get(key) == b'["AAPL","MSFT","NVDA"]'
