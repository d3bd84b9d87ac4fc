"""Rates: a budget a minute that is told with every answer, shared by way of a Redis, and bounded whoever asks."""

import asyncio
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import redis.asyncio
from conftest import seconds_until, serving

from graph.app import create_app
from graph.errors import ErrorCode
from graph.http.rates import RateExceeded, RateLimiter
from graph.http.requests import RequestHead
from graph.model import ANONYMOUS, Caller
from graph.settings import Settings

Serve = Callable[..., str]
DATA = b'{"data":{"universe":{"size":3}}}'
QUERY = {"query": '{ universe(key: "top3") { size } }'}


@pytest.fixture
def serve(market_url: str) -> Iterator[Serve]:
    """Serve a market with a rate; as often as it is called."""
    with ExitStack() as servers:

        def serve(rate: int | None, cache_url: str | None = None) -> str:
            settings = Settings(database_url=market_url, rate=rate, cache_url=cache_url)
            return servers.enter_context(serving(create_app(settings)))

        yield serve


class Clock:
    """The clock of what is counted in memory: it goes by a tenth of a millisecond each time it is read."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        self.now += 0.0001
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("throttled.utils.now_mono_f", clock)
    return clock


class RedisServer:
    """A Redis of a test's own, which it may stop and kill."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("valkey-server") or shutil.which("redis-server")
        if program is None:
            pytest.skip("there is no redis-server or valkey-server here")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self._command = [program, *options, "--requirepass", "s3"]
        self.url = f"redis://default:s3@127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()
                break
            except ConnectionRefusedError:
                continue

    async def rates(self) -> dict[str, int]:
        """The keys of rates, each with the seconds after which it goes."""
        async with redis.asyncio.from_url(self.url, decode_responses=True) as client:
            return {key: await client.ttl(key) for key in await client.keys("stockgraph:rate:*")}


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.process.kill()
    server.process.wait()


def ask(site: str, source: str = "127.0.0.1", **headers: str) -> httpx2.Response:
    with httpx2.Client(transport=httpx2.HTTPTransport(local_address=source, verify=False)) as client:
        return client.post(f"{site}/graphql", json=QUERY, headers=headers)


def told(response: httpx2.Response) -> tuple[int, dict[str, str]]:
    """The status, and the headers that tell of the rate."""
    names = ("ratelimit-policy", "ratelimit", "retry-after")
    return response.status_code, {name: response.headers[name] for name in names if name in response.headers}


def left(rate: int, requests: int, seconds: int) -> tuple[int, dict[str, str]]:
    headers = {"ratelimit-policy": f'"minute";q={rate};w=60', "ratelimit": f'"minute";r={requests};t={seconds}'}
    return 200, headers


def refused(rate: int, seconds: int) -> tuple[int, dict[str, str]]:
    return 429, {**left(rate, 0, seconds)[1], "retry-after": str(seconds)}


def remaining(response: httpx2.Response) -> int:
    return int(re.fullmatch(r'"minute";r=(\d+);t=\d+', response.headers["ratelimit"])[1])  # type: ignore[index]


def seconds_left(response: httpx2.Response) -> int:
    return int(response.headers["ratelimit"].partition("t=")[2])


@pytest.mark.usefixtures("clock")
def test_each_answer_tells_what_is_left_and_one_too_many_is_refused(serve: Serve) -> None:
    site = serve(3)
    answers = [ask(site) for _ in range(5)]
    assert [told(answer) for answer in answers] == [*(left(3, each, 20) for each in (2, 1, 0)), *[refused(3, 20)] * 2]
    assert [answer.content for answer in answers[:3]] == [DATA] * 3
    error = {
        "message": "More than 3 requests a minute came from you; try again in 20 s.",
        "extensions": {"code": "RATE_LIMITED"},
    }
    assert [answer.json() for answer in answers[3:]] == [{"errors": [error]}] * 2
    assert answers[3].headers["cache-control"] == "no-store"
    # the status is that of HTTP itself, whatever the media type is
    other = ask(site, accept="application/graphql-response+json")
    assert (told(other), other.json()) == (refused(3, 20), {"errors": [error]})


@pytest.mark.usefixtures("clock")
def test_requests_are_counted_whatever_is_answered(serve: Serve) -> None:
    site = serve(6)
    wrong = {"query": "{ nothing }"}
    answers = [
        httpx2.get(f"{site}/graphql", params=QUERY),
        httpx2.get(f"{site}/graphql", params=QUERY, headers={"if-none-match": "*"}),
        httpx2.get(f"{site}/graphql", params=wrong),
        httpx2.post(f"{site}/graphql", content=b"no JSON", headers={"content-type": "application/json"}),
        httpx2.put(f"{site}/graphql"),
        httpx2.post(f"{site}/graphql", content=b"a form"),
        httpx2.head(f"{site}/graphql", params=QUERY),
    ]
    headers = [left(6, each, 10)[1] for each in (5, 4, 3, 2, 1, 0)]
    assert [told(answer) for answer in answers] == [
        *zip((200, 304, 200, 400, 405, 415), headers, strict=True),
        refused(6, 10),
    ]
    assert answers[-1].content == b""


def test_without_a_rate_nothing_is_told(serve: Serve) -> None:
    site = serve(None)
    assert [told(ask(site)) for _ in range(2)] == [(200, {})] * 2


@pytest.mark.usefixtures("clock")
def test_pages_and_health_are_not_counted(serve: Serve) -> None:
    site = serve(1)
    browser = {"accept": "text/html"}
    paths = [("/healthz", {}), ("/readyz", {}), ("/graphql", browser)]
    assert [told(httpx2.get(site + path, headers=headers)) for path, headers in paths] == [(200, {})] * 3
    assert [told(ask(site)) for _ in range(2)] == [left(1, 0, 60), refused(1, 60)]
    assert [told(httpx2.get(site + path, headers=headers)) for path, headers in paths] == [(200, {})] * 3


@pytest.mark.usefixtures("clock")
def test_addresses_have_budgets_of_their_own_whatever_headers_say(serve: Serve) -> None:
    site = serve(1)
    assert [told(ask(site, source)) for source in ("127.0.0.1", "127.0.0.2")] == [left(1, 0, 60)] * 2
    for headers in (
        {"x-forwarded-for": "192.0.2.1"},
        {"forwarded": "for=192.0.2.1"},
        {"x-real-ip": "192.0.2.1"},
    ):
        assert told(ask(site, **headers)) == refused(1, 60)


def test_requests_come_back_one_by_one(serve: Serve, clock: Clock) -> None:
    site = serve(3)
    started = clock.now
    assert [told(ask(site)) for _ in range(4)] == [*(left(3, each, 20) for each in (2, 1, 0)), refused(3, 20)]
    clock.now = started + 15
    assert told(ask(site)) == refused(3, 5)
    clock.now = started + 21
    assert [told(ask(site)) for _ in range(2)] == [left(3, 0, 19), refused(3, 19)]
    clock.now = started + 3600
    assert told(ask(site)) == left(3, 2, 20)


@pytest.fixture
async def limiter() -> AsyncIterator[RateLimiter]:
    limiter = RateLimiter(1)
    yield limiter
    await limiter.close()


async def is_refused(limiter: RateLimiter, address: str | None, caller: Caller = ANONYMOUS) -> bool:
    try:
        await limiter.count(RequestHead("POST", {}, address), caller)
    except RateExceeded as error:
        assert (error.status, error.code) == (429, ErrorCode.RATE_LIMITED)
        return True
    return False


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "192.0.2.2", False),
        (None, None, True),
        (None, "192.0.2.1", False),
    ],
)
async def test_an_ipv6_network_of_64_bits_is_one_client(
    limiter: RateLimiter, first: str | None, second: str | None, same: object
) -> None:
    assert [await is_refused(limiter, address) for address in (first, second)] == [False, same]


async def test_callers_are_counted_wherever_they_ask_from(limiter: RateLimiter) -> None:
    ann, bob = Caller("ann"), Caller("192.0.2.1")
    asked = [("192.0.2.1", ann), ("192.0.2.2", ann), ("192.0.2.2", bob), ("192.0.2.1", ANONYMOUS)]
    assert [await is_refused(limiter, *each) for each in asked] == [False, True, False, False]


async def test_the_table_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graph.http.rates.MAX_CALLERS", 100)
    limiter = RateLimiter(1)
    networks = [f"2001:db8:0:{number:x}::1" for number in range(101)]
    assert [await is_refused(limiter, each) for each in networks[:100] * 2] == [False] * 100 + [True] * 100
    assert [await is_refused(limiter, networks[number]) for number in (100, 1, 0)] == [False, True, False]


async def calls_of(limiter: RateLimiter, address: str) -> int:
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        assert await is_refused(limiter, address)
    finally:
        sys.setprofile(None)
    return count


async def test_a_refusal_costs_no_more_with_more_addresses(limiter: RateLimiter) -> None:
    await is_refused(limiter, "192.0.2.1")
    alone = await calls_of(limiter, "192.0.2.1")
    for number in range(2_000):
        await is_refused(limiter, f"2001:db8:0:{number:x}::1")
    assert await calls_of(limiter, "192.0.2.1") == alone
    assert alone <= 50


async def test_servers_share_a_budget_in_a_redis(serve: Serve, redis_server: RedisServer) -> None:
    sites = [serve(2, redis_server.url) for _ in range(2)]
    answers = [await asyncio.to_thread(ask, sites[each]) for each in (0, 1, 1, 0)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429]
    # by the clock of Redis a second or two may have passed
    assert [remaining(answer) for answer in answers] == [1, 0, 0, 0]
    assert all(20 < seconds_left(answer) <= 30 for answer in answers)
    assert {int(answer.headers["retry-after"]) - seconds_left(answer) for answer in answers[2:]} == {0}
    assert remaining(await asyncio.to_thread(ask, sites[0], "127.0.0.2")) == 1
    ends = await redis_server.rates()
    assert ends.keys() == {f"stockgraph:rate:v1:gcra:address:127.0.0.{each}" for each in (1, 2)}
    assert all(0 < seconds <= 60 for seconds in ends.values())


async def test_requests_at_the_same_time_do_not_slip_through(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.http.rates.REDIS_SECONDS", 2)
    limiters = [RateLimiter(20, redis_server.url) for _ in range(2)]
    found = await asyncio.gather(*(is_refused(each, "192.0.2.1") for each in limiters for _ in range(20)))
    assert sorted(found) == [False] * 20 + [True] * 20
    async with redis.asyncio.from_url(redis_server.url) as client:
        assert len(await client.client_list()) <= 1 + 2 * 4
    for each in limiters:
        await each.close()


async def test_a_refused_client_does_not_make_redis_work(redis_server: RedisServer) -> None:
    limiter = RateLimiter(1, redis_server.url)
    async with redis.asyncio.from_url(redis_server.url) as client:
        assert [await is_refused(limiter, "192.0.2.1") for _ in range(2)] == [False, True]
        before = (await client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert [await is_refused(limiter, "192.0.2.1") for _ in range(50)] == [True] * 50
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before
        # others are still counted there
        assert not await is_refused(limiter, "192.0.2.2")
        assert (await client.info("commandstats"))["cmdstat_evalsha"]["calls"] == before + 1
    await limiter.close()


async def test_a_redis_that_hangs_delays_one_request(
    serve: Serve, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("graph.http.rates.REDIS_SECONDS", 0.8)  # longer than any request here takes
    monkeypatch.setattr("graph.http.rates.REDIS_REST_SECONDS", 0.1)
    site = serve(5, redis_server.url)
    assert [remaining(ask(site)) for _ in range(2)] == [4, 3]
    redis_server.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    # the process goes on by itself from what it has counted
    assert [remaining(ask(site)) for _ in range(3)] == [2, 1, 0]
    assert 0.8 <= time.monotonic() - started < 2 * 0.8
    assert caplog.messages == [
        "The Redis of CACHE_URL does not answer; each process counts requests by itself until it does."
    ]
    assert ask(site).status_code == 429
    redis_server.process.send_signal(signal.SIGCONT)
    await seconds_until(lambda: counted(site, redis_server, "127.0.0.2"))


async def test_a_redis_that_was_killed_is_used_again(
    serve: Serve, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.http.rates.REDIS_REST_SECONDS", 0.05)
    site = serve(5, redis_server.url)
    assert [remaining(ask(site)) for _ in range(2)] == [4, 3]
    redis_server.process.kill()
    redis_server.process.wait()
    assert [remaining(ask(site)) for _ in range(2)] == [2, 1]
    redis_server.start()
    assert await redis_server.rates() == {}
    await seconds_until(lambda: counted(site, redis_server, "127.0.0.2"))


async def counted(site: str, redis_server: RedisServer, source: str) -> bool:
    """Whether a request from an address is counted in Redis."""
    await asyncio.to_thread(ask, site, source)
    return any(key.endswith(source) for key in await redis_server.rates())


@pytest.mark.usefixtures("clock")
def test_a_redis_that_is_not_there_refuses_nobody(serve: Serve) -> None:
    site = serve(3, "redis://127.0.0.1:1/0")
    assert [told(ask(site)) for _ in range(4)] == [*(left(3, each, 20) for each in (2, 1, 0)), refused(3, 20)]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("value", ["1e12", "inf", "nan", "nonsense"])
async def test_what_others_write_to_redis_locks_nobody_out(serve: Serve, redis_server: RedisServer, value: str) -> None:
    async with redis.asyncio.from_url(redis_server.url) as client:
        await client.set("stockgraph:rate:v1:gcra:address:127.0.0.1", value)
    site = serve(3, redis_server.url)
    assert told(await asyncio.to_thread(ask, site)) == left(3, 2, 20)
