"""The cache: one load in flight, bounded, never an error, and in a Redis alike."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import redis.asyncio
from conftest import Live, asker

from graph.api.nodes import UNIVERSES
from graph.caching.data_cache import CachedValue, CacheSpec, DataCache
from graph.caching.generations import CONFIRMED_SECONDS, GenerationTracker
from graph.errors import DatabaseUnavailable
from graph.execution.operation import Runtime
from graph.execution.runtime import open_runtime
from graph.postgres.database import Generation, ReadResult
from graph.settings import Settings

Words = tuple[str, ...]


def at(groups: int) -> Generation:
    """The generation after so many changes of groups."""
    return Generation(groups, 0)


def known(generation: int) -> GenerationTracker:
    """A tracker with a confirmed generation."""
    generations = GenerationTracker()
    generations.tracked, generations.identity = True, "here"
    generations.observe(ReadResult([], at(generation), time.monotonic()))
    return generations


def giving(*words: str, generation: int | None = 1) -> Callable[[], Awaitable[CachedValue[Words]]]:
    async def load() -> CachedValue[Words]:
        return CachedValue(words, None if generation is None else at(generation))

    return load


async def refusing() -> CachedValue[Words]:
    raise DatabaseUnavailable("gone")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis or Valkey of the tests' own."""
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server or valkey-server here")
    folder = tmp_path_factory.mktemp("redis")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), "--requirepass", "s3"],
        stdout=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                continue
        yield f"redis://default:s3@127.0.0.1:{port}/0"
        process.terminate()


WORDS: CacheSpec[Words] = CacheSpec("words", deserialize=tuple)


@pytest.fixture(params=["memory", "redis"])
def cache_url(request: pytest.FixtureRequest) -> str | None:
    """Where the cache keeps what it keeps."""
    return None if request.param == "memory" else request.getfixturevalue("redis_url")


@pytest.fixture
async def make(cache_url: str | None) -> AsyncIterator[Callable[..., DataCache[Words]]]:
    """Make memos over an empty cache."""
    made: list[DataCache[Words]] = []
    if cache_url:
        async with redis.asyncio.from_url(cache_url) as client:
            await client.flushdb()

    def cache(generations: GenerationTracker, **options: bool) -> DataCache[Words]:
        made.append(DataCache(WORDS, generations, redis_url=cache_url, **options))
        return made[-1]

    yield cache
    for each in made:
        await each.close()


MakeCache = Callable[..., DataCache[Words]]


async def test_what_was_loaded_is_remembered_under_its_generation(make: MakeCache) -> None:
    generations = known(1)
    cache = make(generations)
    assert await cache.get("k", giving("a", "b")) == CachedValue(("a", "b"), at(1))
    assert await cache.get("k", refusing) == CachedValue(("a", "b"), at(1))
    generations.observe(ReadResult([], at(2), time.monotonic()))
    assert await cache.get("k", giving("c", generation=2)) == CachedValue(("c",), at(2))
    assert await cache.get("k", refusing) == CachedValue(("c",), at(2))
    stats = cache.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.evictions) == (1, 2, 2, 0)


async def test_a_load_that_fails_is_not_kept(make: MakeCache) -> None:
    cache = make(known(1))
    for _ in range(2):
        with pytest.raises(DatabaseUnavailable):
            await cache.get("k", refusing)
    assert await cache.get("k", giving("a")) == CachedValue(("a",), at(1))


async def test_nothing_is_kept_without_a_generation(make: MakeCache) -> None:
    cache = make(known(1))
    await cache.get("k", giving("a", generation=None))
    assert (await cache.get("k", giving("b"))).value == ("b",)


async def test_nothing_is_served_while_the_generation_is_not_known(make: MakeCache) -> None:
    generations = known(1)
    cache = make(generations)
    await cache.get("k", giving("a"))
    generations.tracked = False
    assert (await cache.get("k", giving("b"))).value == ("b",)


async def test_all_who_ask_at_once_share_one_load(make: MakeCache) -> None:
    cache = make(known(1))
    loads, going = 0, asyncio.Event()

    async def slow() -> CachedValue[Words]:
        nonlocal loads
        loads += 1
        await going.wait()
        return CachedValue(("a",), at(1))

    asked = [asyncio.create_task(cache.get("k", slow)) for _ in range(50)]
    while loads == 0:
        await asyncio.sleep(0)
    asked[0].cancel()  # who asked first may go: the others still wait
    going.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [CachedValue(("a",), at(1))] * 49
    assert loads == 1


async def test_all_who_share_a_load_that_fails_are_told(make: MakeCache) -> None:
    cache = make(known(1))
    answers = await asyncio.gather(*(cache.get("k", refusing) for _ in range(5)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["gone"] * 5


async def test_a_load_that_began_too_long_ago_is_not_shared(make: MakeCache, monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    cache = make(known(1))
    going = asyncio.Event()

    async def old() -> CachedValue[Words]:
        await going.wait()
        return CachedValue(("old",), at(1))

    first = asyncio.create_task(cache.get("k", old))
    while not cache._flights:  # noqa: SLF001 - how it ends is what matters
        await asyncio.sleep(0)
    later = time.monotonic() + CONFIRMED_SECONDS
    monkeypatch.setattr("graph.caching.data_cache.time.monotonic", lambda: later)
    assert (await cache.get("k", giving("new", generation=2))).value == ("new",)
    going.set()
    assert (await first).value == ("old",)
    await asyncio.sleep(0)
    asyncio.get_running_loop().set_exception_handler(None)
    assert (cache._flights, complaints) == ({}, [])  # noqa: SLF001 - how it ends is what matters


async def test_an_outage_is_an_error_or_where_that_is_set_what_was_last_known(make: MakeCache) -> None:
    generations = known(1)
    strict, stale = make(generations), make(generations, serve_stale=True)
    for cache in (strict, stale):
        await cache.get("k", giving("a"))
    generations.tracked = False
    with pytest.raises(DatabaseUnavailable):
        await strict.get("k", refusing)
    assert await stale.get("k", refusing) == CachedValue(("a",), at(1), stale=True)
    with pytest.raises(DatabaseUnavailable):
        await stale.get("other", refusing)
    # what was known to be superseded is not served under the name of what came after
    generations.tracked = True
    generations.observe(ReadResult([], at(2), time.monotonic()))
    generations.tracked = False
    with pytest.raises(DatabaseUnavailable):
        await stale.get("k", refusing)


async def test_what_is_of_another_database_or_time_is_dropped(make: MakeCache) -> None:
    generations = known(5)
    cache = make(generations, serve_stale=True)
    await cache.get("k", giving("a", generation=5))
    generations.observe(ReadResult([], at(3), time.monotonic()))
    assert (await cache.get("k", giving("b", generation=3))).value == ("b",)
    generations.observe(ReadResult([], at(5), time.monotonic()))
    assert (await cache.get("k", giving("c", generation=5))).value == ("c",)


async def test_the_least_recently_used_goes_first() -> None:
    generations = known(1)
    cache: DataCache[Words] = DataCache(WORDS, generations, max_bytes=1_500)
    for key in ("a", "b", "a", "c"):
        await cache.get(key, giving(key))
    assert cache.stats().entries == 2
    assert cache.stats().evictions == 1
    assert (await cache.get("a", refusing)).value == ("a",)
    assert (await cache.get("c", refusing)).value == ("c",)
    with pytest.raises(DatabaseUnavailable):
        await cache.get("b", refusing)


async def test_bytes_are_bounded_too() -> None:
    cache: DataCache[Words] = DataCache(WORDS, known(1), max_bytes=5_000)
    for number in range(20):
        await cache.get(str(number), giving("x" * 500))
    stats = cache.stats()
    assert stats.bytes is not None
    assert 3_000 < stats.bytes <= 5_000
    assert stats.entries + stats.evictions == 20
    # what is larger than all of the cache evicts nothing
    assert (await cache.get("huge", giving("x" * 5_000))).value == ("x" * 5_000,)
    assert cache.stats() == stats._replace(misses=21, evictions=stats.evictions + 1)


async def test_an_older_load_that_ends_later_does_not_put_out_a_newer_one() -> None:
    cache: DataCache[Words] = DataCache(WORDS, known(2))
    await cache.get("k", giving("new", generation=2))
    await cache._fill("k", giving("old", generation=1))  # noqa: SLF001 - how it ends is what matters
    assert (await cache.get("k", refusing)).value == ("new",)


@pytest.fixture
async def two_servers(market_url: str, redis_url: str) -> AsyncIterator[list[Runtime]]:
    """Two server processes' insides, that share a database and a Redis."""
    settings = Settings(database_url=market_url, cache_url=redis_url)
    async with open_runtime(settings) as one, open_runtime(settings) as other:
        await asyncio.gather(one.generations.confirmed(), other.generations.confirmed())
        yield [one, other]


TOP3 = '{ universe(key: "top3") { symbols } }'
MEMBERS = '{ group(name: "TECH") { members { nodes { symbol weight } } } }'


async def test_servers_share_what_a_redis_remembers(two_servers: list[Runtime]) -> None:
    one, other = (asker(runtime) for runtime in two_servers)
    assert (await one(TOP3)).statements == ["group_names", "group_symbols"]
    answer = await other(TOP3)
    assert answer == {"data": {"universe": {"symbols": ["AAPL", "MSFT", "NVDA"]}}}
    assert answer.statements == []
    stats = two_servers[1].stats(UNIVERSES)
    assert (stats.bytes, stats.hits, stats.misses) == (None, 1, 0)


async def test_a_redis_keeps_keys_of_its_own_for_a_while_and_holds_no_answers(
    two_servers: list[Runtime], redis_url: str
) -> None:
    await asker(two_servers[0])(TOP3)
    identity, generation = two_servers[0].generations.identity, two_servers[0].generations.generation
    async with redis.asyncio.from_url(redis_url) as client:
        assert generation
        key = f"stockgraph:universes:{identity}:{generation.groups}:9"
        assert await client.get(key) == b'["AAPL","MSFT","NVDA"]'
        assert 500 < await client.ttl(key) <= 600
        # what somebody else left there is no universe
        await client.set(key, b'{"not": "ours"')
    assert (await asker(two_servers[0])(TOP3))["data"] == {"universe": {"symbols": ["AAPL", "MSFT", "NVDA"]}}


async def test_a_redis_that_is_away_only_costs_time(market_url: str) -> None:
    async with open_runtime(Settings(database_url=market_url, cache_url="redis://127.0.0.1:1/0")) as runtime:
        await runtime.generations.confirmed()
        for query in (TOP3, TOP3.replace("top3", "TOP3")):
            answer = await asker(runtime)(query)
            assert answer == {"data": {"universe": {"symbols": ["AAPL", "MSFT", "NVDA"]}}}
            assert answer.statements == ["group_names", "group_symbols"]


async def test_the_memo_can_be_off(market_url: str) -> None:
    async with open_runtime(Settings(database_url=market_url, data_cache="off")) as runtime:
        await runtime.generations.confirmed()
        for _ in range(2):
            assert (await asker(runtime)(TOP3)).statements == ["group_names", "group_symbols"]
            assert (await asker(runtime)(MEMBERS)).statements == ["groups_named", "members_by_weight"]
        assert runtime.stats(UNIVERSES).entries == runtime.column_cache.stats().entries == 0


async def test_a_stampede_on_a_universe_is_one_statement(live: Live) -> None:
    answers = await asyncio.gather(*(live.ask('{ universe(key: "BIG:TECH") { size } }') for _ in range(40)))
    assert all(answer == {"data": {"universe": {"size": 6}}} for answer in answers)
    sent = [statement for answer in answers for statement in answer.statements]
    assert sorted(sent) == ["group_names", "group_symbols"]


async def test_a_cache_goes_by_the_changes_of_its_family() -> None:
    generations = known(1)
    groups: DataCache[Words] = DataCache(WORDS, generations)
    prices: DataCache[Words] = DataCache(CacheSpec("prices", tuple, family="prices"), generations)
    assert await groups.get("k", giving("a")) == CachedValue(("a",), at(1))
    assert await prices.get("k", giving("p")) == CachedValue(("p",), at(1))
    assert await prices.last("k") == ("p",)
    generations.observe(ReadResult([], Generation(1, 1), time.monotonic()))
    assert await groups.get("k", refusing) == CachedValue(("a",), Generation(1, 1))
    with pytest.raises(DatabaseUnavailable):
        await prices.get("k", refusing)
    # a new value may be made from it, until all that is kept is worth nothing
    assert await prices.last("k") == ("p",)
    generations.observe(ReadResult([], Generation(0, 1), time.monotonic()))
    assert (await prices.last("k"), await groups.last("k")) == (None, None)


async def test_a_change_drops_what_is_older_but_what_new_values_are_made_of() -> None:
    generations = known(1)
    dropped: DataCache[Words] = DataCache(WORDS, generations)
    kept: DataCache[Words] = DataCache(CacheSpec("prices", tuple, updated=True), generations)
    for cache in (dropped, kept):
        await cache.get("a", giving("a"))
        await cache.get("b", giving("b"))
    generations.observe(ReadResult([], at(2), time.monotonic()))
    for cache in (dropped, kept):
        await cache.get("c", giving("c", generation=2))
    assert (dropped.stats().entries, await dropped.last("a")) == (1, None)
    assert (kept.stats().entries, await kept.last("a")) == (3, ("a",))


async def test_a_cache_that_is_first_used_after_a_rewind_serves_nothing_of_before(redis_url: str) -> None:
    generations = known(1)
    async with redis.asyncio.from_url(redis_url) as client:
        await client.flushdb()
    before = DataCache(WORDS, generations, redis_url=redis_url)
    assert (await before.get("k", giving("old"))).value == ("old",)
    generations.observe(ReadResult([], at(0), time.monotonic()))
    assert generations.rewinds == 1
    generations.observe(ReadResult([], at(1), time.monotonic()))
    after = DataCache(WORDS, generations, redis_url=redis_url)
    assert (await after.get("k", giving("new"))).value == ("new",)
    await before.close()
    await after.close()
