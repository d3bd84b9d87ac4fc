"""Whole answers kept: served while they hold, and not a moment longer."""

import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx2
import orjson
import pytest
from conftest import SCHEMA, Databases, seconds_until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.routing import Route

from graph.caching.generations import CONFIRMED_SECONDS, GenerationTracker
from graph.caching.response_cache import ResponseCache, Validity
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.http.endpoint import GraphQLEndpoint
from graph.postgres.database import Database, Generation, ReadResult
from graph.settings import Settings

TOP3 = '{ universe(key: "top3") { symbols } }'
BREADTH = '{ breadth(universe: "top3") { metrics { metric up down } } }'
HOLDERS = (
    "query Holders($symbol: String!) { stock(symbol: $symbol) { memberships(type: ETF) { weight group { name } } } }"
)


class Site:
    """An endpoint that keeps answers, what was sent to the database for each request, and somebody else who writes."""

    def __init__(
        self, runtime: Runtime, client: httpx2.AsyncClient, writer: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        self.runtime, self.client, self.writer = runtime, client, writer
        self.operations: list[Operation] = []

    def operation(self) -> Operation:
        self.operations.append(Operation(self.runtime))
        return self.operations[-1]

    async def post(self, query: str, **variables: Any) -> httpx2.Response:
        return await self.client.post("/graphql", json={"query": query, "variables": variables})

    async def ask(self, query: str, **variables: Any) -> tuple[Any, bool]:
        """The answer, and whether it was kept."""
        before = len(self.operations)
        answer = (await self.post(query, **variables)).json()
        return answer, len(self.operations) == before


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Site]:
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        endpoint = GraphQLEndpoint(SCHEMA, lambda *_: site.operation(), HTMLResponse, lambda: runtime.response_cache)
        transport = httpx2.ASGITransport(app=Starlette(routes=[Route("/graphql", endpoint)]))
        async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
            site = Site(runtime, client, await asyncpg.connect(url))
            yield site
            await site.writer.close()


@pytest.fixture
async def site(databases: Databases, priced_template: str) -> AsyncIterator[Site]:
    async with opened(await databases.make(priced_template)) as made:
        yield made


async def test_what_is_asked_again_is_answered_with_the_same_bytes(site: Site) -> None:
    first = await site.post(HOLDERS, symbol="AAPL")
    again = await site.post(HOLDERS, symbol="AAPL")
    assert (again.status_code, again.content, again.headers) == (200, first.content, first.headers)
    assert [operation.statements for operation in site.operations] == [["stocks", "stock_memberships"]]
    stats = site.runtime.response_cache.stats()
    assert (stats.entries, stats.hits, stats.misses, stats.evictions) == (1, 1, 1, 0)


async def test_another_question_has_another_answer(site: Site) -> None:
    for _ in range(2):
        for symbol in ("AAPL", "MSFT"):
            answer, _ = await site.ask(HOLDERS, symbol=symbol)
            assert len(answer["data"]["stock"]["memberships"]) == 2
        query_string = {"query": TOP3}
        got = await site.client.get(
            "/graphql", params=query_string, headers={"accept": "application/graphql-response+json"}
        )
        assert got.headers["content-type"] == "application/graphql-response+json; charset=utf-8"
        tag = got.headers["etag"]
        got = await site.client.get("/graphql", params=query_string, headers={"accept": "application/json"})
        assert got.headers["content-type"] == "application/json; charset=utf-8"
        assert got.headers["etag"] != tag
    assert len(site.operations) == 4


@pytest.mark.parametrize("lost", [False, True], ids=["", "the listening connection is cut"])
@pytest.mark.parametrize(
    ("query", "change"),
    [
        (TOP3, "DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'MSFT'"),
        (BREADTH, "UPDATE ohlcv_daily SET close = 1 WHERE symbol = 'AAPL' AND date = '2024-03-08'"),
        (BREADTH, "DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'AAPL'"),
        ('{ stock(symbol: "AAPL") { prices { close } } }', "TRUNCATE ohlcv_daily"),
    ],
)
async def test_a_change_is_in_the_next_answer_within_a_second(
    site: Site, query: str, change: str, *, lost: bool
) -> None:
    before, _ = await site.ask(query)
    assert await site.ask(query) == (before, True)
    if lost:
        await site.writer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%WITH watched%'"
        )
    await site.writer.execute(change)

    async def seen() -> bool:
        return (await site.ask(query))[0] != before

    assert await seconds_until(seen) < 1


async def test_a_change_of_prices_leaves_answers_that_read_none(site: Site) -> None:
    await site.ask(TOP3)
    await site.ask(BREADTH)
    await site.writer.execute("UPDATE ohlcv_daily SET close = 1 WHERE symbol = 'AAPL' AND date = '2024-03-08'")

    async def gone() -> bool:
        return not (await site.ask(BREADTH))[1]

    await seconds_until(gone)
    assert (await site.ask(TOP3))[1]


@pytest.mark.parametrize(
    "query",
    [
        '{ universe(key: "NOPE") { size } }',
        '{ group(name: "top3") { symbols } universe(key: "NOPE") { size } }',
        '{ a: group(name: "top3") { members(first: -1) { totalCount } } b: stock(symbol: "AAPL") { name } }',
        "{ status { generation } }",
        "{ nothing }",
        "{",
    ],
)
async def test_errors_and_the_status_are_never_kept(site: Site, query: str) -> None:
    for _ in range(2):
        await site.ask(query)
    assert site.runtime.response_cache.stats().entries == 0


async def test_where_nothing_is_recorded_nothing_is_kept(databases: Databases, priced_template: str) -> None:
    url = await databases.make(priced_template)
    writer = await asyncpg.connect(url)
    await writer.execute("ALTER TABLE symbols DISABLE TRIGGER data_change_insert")
    await writer.close()
    async with opened(url) as site:
        for _ in range(2):
            assert (await site.ask(TOP3))[1] is False
        assert site.runtime.response_cache.stats().entries == 0


async def test_what_rests_on_the_day_ends_with_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    query = 'query Since($since: Date!) { group(name: "top3") { changes(since: $since) { joined { symbol } } } }'
    today = await site.writer.fetchval("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date::text")
    await site.ask(query, since=today)
    await site.ask(TOP3)
    assert ((await site.ask(query, since=today))[1], (await site.ask(TOP3))[1]) == (True, True)

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz or UTC) + timedelta(days=1)

    monkeypatch.setattr("graph.caching.response_cache.datetime", Tomorrow)
    assert ((await site.ask(query, since=today))[1], (await site.ask(TOP3))[1]) == (False, True)


async def test_a_browser_asks_whether_what_it_has_still_holds(site: Site) -> None:
    url = "/graphql"
    params, accept = {"query": TOP3}, {"accept": "application/json"}
    for _ in range(2):
        first = await site.client.get(url, params=params, headers=accept)
        tag = first.headers["etag"]
        assert (first.status_code, first.headers["cache-control"], first.headers["vary"]) == (
            200,
            "private, no-cache",
            "accept, accept-encoding",
        )
        for held in (tag, f'"other", W/{tag}', "*"):
            same = await site.client.get(url, params=params, headers={**accept, "if-none-match": held})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
            assert "content-length" not in same.headers
        other = await site.client.get(url, params=params, headers={**accept, "if-none-match": '"other"'})
        assert (other.status_code, other.content) == (200, first.content)
        head = await site.client.head(url, params=params, headers=accept)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(first.content)))
    # whoever posts is answered in any case
    posted = await site.client.post(url, json=params, headers={"if-none-match": "*"})
    assert (posted.status_code, posted.json()) == (200, first.json())


@pytest.mark.parametrize(
    ("accepted", "zipped"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("gzip;q=x", False),
        ("", False),
    ],
)
async def test_a_long_answer_is_compressed_for_who_accepts_that(site: Site, accepted: str, *, zipped: bool) -> None:
    body = {"query": "{ __schema { types { name description } } }"}
    sent = await _raw(site, {"accept-encoding": accepted}, body)
    # once is not enough for that
    assert "content-encoding" not in sent[0]
    again = await _raw(site, {"accept-encoding": accepted}, body)
    assert again[0].get("content-encoding") == ("gzip" if zipped else None)
    assert (gzip.decompress(again[1]) if zipped else again[1]) == sent[1]
    assert int(again[0]["content-length"]) == len(again[1])
    tags = []
    for coding in (accepted, "identity"):
        await site.client.get("/graphql", params=body, headers={"accept-encoding": coding})
        again = await site.client.get("/graphql", params=body, headers={"accept-encoding": coding})
        assert (again.headers.get("content-encoding") == "gzip") is (zipped and coding == accepted)
        tags.append(again.headers["etag"])
    assert (tags[0] == tags[1]) is not zipped
    for _ in range(2):
        short = await _raw(site, {"accept-encoding": "gzip"}, {"query": TOP3})
        assert "content-encoding" not in short[0]


async def _raw(site: Site, headers: dict[str, str], body: Any) -> tuple[dict[str, str], bytes]:
    async with site.client.stream("POST", "/graphql", json=body, headers=headers) as response:
        return dict(response.headers), b"".join([part async for part in response.aiter_raw()])


async def test_what_was_read_before_everything_became_worthless_is_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is replaced while an operation is under way, and others have been answered since."""
    read = Database.fetch
    going, gone = asyncio.Event(), asyncio.Event()
    epochs: list[int] = []

    async def slow(self: Database, statement: str, *arguments: Any, **options: Any) -> Any:
        epoch = site.runtime.generations.epoch
        reading = await read(self, statement, *arguments, **options)
        if statement == "group_symbols":
            epochs.append(epoch)
            gone.set()
            await going.wait()
        return reading

    monkeypatch.setattr(Database, "fetch", slow)
    asked = asyncio.create_task(site.ask(TOP3))
    await gone.wait()
    site.runtime.generations.epoch += 1
    await site.ask(HOLDERS, symbol="AAPL")
    assert site.runtime.response_cache.stats().entries == 1
    going.set()
    await asked
    assert epochs == [epochs[0], epochs[0] + 1]
    assert site.runtime.response_cache.stats().entries == 2


async def test_a_client_that_is_gone_when_it_is_answered_is_no_error_of_ours(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = GraphQLEndpoint(SCHEMA, lambda *_: site.operation(), HTMLResponse, lambda: site.runtime.response_cache)
    body = orjson.dumps({"query": TOP3})
    sent: list[str] = []

    received = iter([body, None, body])

    async def receive() -> Any:
        # after the body there is nothing to be heard of the client
        if (part := next(received)) is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": part}

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise OSError("gone")

    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": [(b"content-type", b"application/json")]}
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            await endpoint(scope, receive, send)
    assert (sent, caplog.records) == (["http.response.start", "http.response.body"] * 2, [])


def answers(changes: int = 1, **bounds: int) -> tuple[ResponseCache, GenerationTracker]:
    """ResponseCache over a freshness that knows a generation."""
    generations = GenerationTracker()
    generations.tracked = True
    generations.observe(ReadResult([], Generation(changes, 0), time.monotonic()))
    return ResponseCache(generations, **bounds), generations


def test_the_least_recently_used_goes_when_there_is_no_room() -> None:
    kept, _ = answers(max_bytes=9_500)
    keys = [kept.key(b"POST", str(number).encode()) for number in range(4)]
    for key in keys[:3]:
        assert kept.store(key, b"x" * 1_000, Validity({"groups": 1}, None, 0))
    assert kept.get(keys[0])
    kept.store(keys[3], b"x" * 1_000, Validity({"groups": 1}, None, 0))
    assert [bool(kept.get(key)) for key in keys] == [True, False, True, True]
    stats = kept.stats()
    assert (stats.entries, stats.bytes, stats.evictions) == (3, 9_024, 1)
    # the same again takes no more room
    kept.store(keys[3], b"y" * 1_000, Validity({"groups": 1}, None, 0))
    assert kept.stats().bytes == 9_024
    assert kept.store(keys[1], b"x" * 5_000_000, Validity({"groups": 1}, None, 0)) is None


def test_an_answer_holds_under_its_generation_alone() -> None:
    kept, generations = answers()
    key = kept.key(b"POST", b"{}")
    kept.store(key, b"old", Validity({"groups": 1}, None, 0))
    assert kept.get(key)
    generations.observe(ReadResult([], Generation(1, 7), time.monotonic()))
    assert kept.get(key)
    generations.notify({"family": "groups"})
    assert kept.get(key) is None
    generations.observe(ReadResult([], Generation(1, 7), time.monotonic()))
    assert kept.get(key)
    generations.observe(ReadResult([], Generation(2, 7), time.monotonic() - CONFIRMED_SECONDS))
    assert kept.get(key) is None
    # another database, or an older state of this one
    generations.observe(ReadResult([], Generation(1, 0), time.monotonic()))
    assert (kept.get(key), kept.stats().entries) == (None, 0)


def test_keys_differ_by_kind_request_and_process() -> None:
    one, other = answers()[0], answers()[0]
    pairs = [(b"GET a", b"x"), (b"GET b", b"x"), (b"GET a", b"y"), (b"GET ax", b"")]
    assert len({one.key(*pair) for pair in pairs}) == 4
    assert one.key(*pairs[0]) != other.key(*pairs[0])


QUERIES = (TOP3, BREADTH, '{ group(name: "top3") { memberCount members { nodes { symbol } } performance { change } } }')
CHANGES = (
    "INSERT INTO group_memberships (group_id, symbol) VALUES (9, 'XOM') ON CONFLICT DO NOTHING",
    "DELETE FROM group_memberships WHERE group_id = 9 AND symbol = 'XOM'",
    "UPDATE ohlcv_daily SET close = close + 1 WHERE date = '2024-03-08'",
    "BEGIN; DELETE FROM ohlcv_daily WHERE symbol = 'MSFT'; ROLLBACK",
)


@given(st.lists(st.one_of(st.sampled_from(QUERIES), st.sampled_from(CHANGES)), min_size=3, max_size=12))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_after_a_second_every_answer_is_what_the_database_says(site: Site, steps: list[str]) -> None:
    for step in steps:
        if step in CHANGES:
            await site.writer.execute(step)
            continue
        counted = await site.writer.fetchrow(
            "SELECT coalesce(sum(weight) FILTER (WHERE family = 'groups'), 0)::bigint,"
            " coalesce(sum(weight) FILTER (WHERE family = 'prices'), 0)::bigint FROM data_change"
        )

        async def known(now: Any = tuple(counted)) -> bool:
            return (
                site.runtime.generations.confirmed_generation("groups")
                == site.runtime.generations.confirmed_generation("prices")
                == now
            )

        await seconds_until(known)
        answer, _ = await site.ask(step)
        fresh = await SCHEMA.execute(step, context_value=Operation(site.runtime))
        assert answer == {"data": fresh.data}


async def test_a_compressed_answer_counts_too_and_a_change_of_the_groups_drops_all() -> None:
    kept, generations = answers()
    key = kept.key(b"POST", b"{}")
    cached = kept.store(key, b"x" * 10_000, Validity({"groups": 1}, None, 0))
    assert cached
    before = kept.stats().bytes
    zipped = await cached.zipped()
    assert zipped
    assert before is not None
    assert len(zipped) <= (kept.stats().bytes or 0) - before < len(zipped) + 32
    generations.observe(ReadResult([], Generation(2, 0), time.monotonic()))
    assert kept.store(kept.key(b"POST", b"{ other }"), b"{}", Validity({"groups": 2}, None, 0))
    assert (kept.stats().entries, kept.stats().evictions) == (1, 0)
