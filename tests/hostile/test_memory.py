"""A server takes as much memory as its status says, whatever clients ask; no more than `--memory`; and gives it back."""

import itertools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest
from conftest import Databases

MEGABYTE = 1024**2
SPARE = 4 * MEGABYTE
"""Bytes by which a server may grow besides its caches: for what a request takes while it is answered."""
MEMBERS = 3_400
DAY = date(2024, 1, 1)
"""The first day of the history."""
MARKET = f"""
INSERT INTO symbols
    SELECT 'S' || n, 'The company of number ' || n, 'Industry ' || n % 50 FROM generate_series(1, {MEMBERS}) AS n;
INSERT INTO definition_groups (name, type, environment) VALUES ('FUND', 'ETF', 'DEFAULT');
INSERT INTO definition_groups (name, type, environment, description)
    SELECT 'G' || n, CASE WHEN n <= 12 THEN 'SECTOR' ELSE 'THEME' END, 'DEFAULT', 'Number ' || n || ' of a hundred'
    FROM generate_series(1, 100) AS n;
INSERT INTO group_memberships (group_id, symbol, weight)
    SELECT 1, 'S' || n, 1.0 / {MEMBERS} FROM generate_series(1, {MEMBERS}) AS n;
INSERT INTO group_memberships (group_id, symbol, weight)
    SELECT g + 1, 'S' || n, 0.02 FROM generate_series(1, 100) AS g, generate_series(1, {MEMBERS}) AS n
    WHERE n % 100 = g % 100;
INSERT INTO ohlcv_daily (symbol, date, open, close)
    SELECT 'S' || n, day, 10, 10 + (n + extract(doy FROM day)::int) % 7
    FROM generate_series(1, 300) AS n, generate_series(now()::date - 60, now()::date - 1, '1 day') AS day;
UPDATE group_history SET valid_from = '{DAY}';
UPDATE membership_history SET valid_from = '{DAY}';
ANALYZE;
"""
"""A fund of the whole market, a hundred groups, and prices."""

Query = tuple[str, dict[str, Any]]


def universe_keys() -> Iterator[Query]:
    for a, b in itertools.combinations(range(1, 101), 2):
        yield "query ($key: String!) { universe(key: $key) { size } }", {"key": f"FUND-G{a}-G{b}"}


def lists_of_symbols() -> Iterator[Query]:
    for n in itertools.count(1):
        symbols = [f"S{1 + (n * 7 + each * n) % MEMBERS}" for each in range(20)]
        yield "query ($s: [String!]!) { stocks(symbols: $s) { symbol name industry } }", {"s": symbols}


def filters_of_groups() -> Iterator[Query]:
    for n in itertools.count(1):
        text = "umber "[: 1 + n % 6] + str(n)
        yield "query ($text: String!) { groups(search: $text) { nodes { name memberCount } } }", {"text": text}


def pages() -> Iterator[Query]:
    for n in itertools.count(100):
        yield (
            'query ($n: Int!) { group(name: "FUND") { members(first: $n) { nodes { symbol weight } } } }',
            {"n": n},
        )


def documents() -> Iterator[Query]:
    for n in itertools.count(1):
        yield f'{{ a{n}: group(name: "G{1 + n % 100}") {{ b{n}: name c{n}: description d{n}: memberCount }} }}', {}


def plans() -> Iterator[Query]:
    flags = [f"f{n}" for n in range(10)]
    heads = ", ".join(f"${flag}: Boolean!" for flag in flags)
    fields = " ".join(f"a{flag}: name @include(if: ${flag})" for flag in flags)
    for values in itertools.product((True, False), repeat=len(flags)):
        yield f'query ({heads}) {{ group(name: "FUND") {{ name {fields} }} }}', dict(zip(flags, values, strict=True))


def days() -> Iterator[Query]:
    for n in itertools.count(1):
        day = str(DAY + timedelta(n))
        yield 'query ($day: Date!) { universe(key: "FUND-G1", asOf: $day) { size symbols } }', {"day": day}


def searches() -> Iterator[Query]:
    for n in itertools.count(1):
        yield "query ($text: String!) { search(text: $text) { __typename } }", {"text": f"S{n}"}


def thresholds() -> Iterator[Query]:
    for n in itertools.count(1):
        yield (
            'query ($t: Float!) { thresholdBars(universe: "FUND-G1", threshold: $t) { priced segments { count } } }',
            {"t": n / 10_000},
        )


def overlaps() -> Iterator[Query]:
    for a, b in itertools.combinations(range(1, 101), 2):
        yield (
            "query ($a: String!, $b: String!) { group(name: $a) { exposure { count } } overlap(groups: [$a, $b]) { __typename } }",
            {"a": f"G{a}", "b": f"G{b}"},
        )


KINDS: list[Callable[[], Iterator[Query]]] = [
    universe_keys,
    lists_of_symbols,
    filters_of_groups,
    pages,
    documents,
    plans,
    days,
    searches,
    thresholds,
    overlaps,
]


class Memory(NamedTuple):
    """Bytes of a server: those of its process, and those of its caches by its status."""

    taken: int
    told: int
    limit: int


class Server:
    """A `stockgraph serve` of one process."""

    def __init__(self, url: str, memory: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
        ours = ("STOCKGRAPH", "DATABASE", "CACHE", "PG")
        others = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "graph", "serve", "--port", str(self._port), "--memory", memory],
            env={**others, "DATABASE_URL": url},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._listens)

    def _listens(self) -> bool:
        assert self._process.poll() is None
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self._port)) == 0

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(30) == 0

    def ask(self, queries: Iterable[Query]) -> dict[str, Any]:
        """Send queries one after another, none of which may fail; return the last answer."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        answer: dict[str, Any] = {}
        for query, values in queries:
            body = json.dumps({"query": query, "variables": values})
            connection.request("POST", "/graphql", body, {"content-type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            assert "errors" not in answer, (query, values, answer)
        connection.close()
        return answer

    def memory(self) -> Memory:
        told = self.ask([("{ status { memory { bytes limit } } }", {})])["data"]["status"]["memory"]
        (line,) = [each for each in _status_of(self._process.pid) if each.startswith("VmRSS")]
        return Memory(int(line.split()[1]) * 1024, told["bytes"], told["limit"])


def _status_of(process: int) -> list[str]:
    return Path(f"/proc/{process}/status").read_text().splitlines()


def until(holds: Callable[[], bool], limit: float = 30) -> None:
    deadline = time.monotonic() + limit
    while not holds():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.05)


@contextmanager
def serving(url: str, memory: str) -> Iterator[Server]:
    """Serve a market, every kind of query answered a few times."""
    server = Server(url, memory)
    try:
        for kind in KINDS:
            server.ask(itertools.islice(kind(), 10))
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
async def large_market(databases: Databases, empty_template: str) -> str:
    """A database of a fund of 3,400 members and a hundred groups."""
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    await writer.execute(MARKET)
    await writer.close()
    return url


@pytest.fixture(scope="module")
def roomy(large_market: str) -> Iterator[Server]:
    """A server that keeps all that these tests ask for."""
    with serving(large_market, "512MB") as server:
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_grows_by_what_its_status_says(roomy: Server, kind: Callable[[], Iterator[Query]]) -> None:
    before = roomy.memory()
    roomy.ask(itertools.islice(kind(), 10, 210))
    after = roomy.memory()
    assert after.taken - before.taken <= 1.2 * (after.told - before.told) + SPARE


async def test_a_change_gives_back_what_was_kept(roomy: Server, large_market: str) -> None:
    roomy.ask(itertools.islice(universe_keys(), 210, 700))
    before = roomy.memory()
    assert before.told > 40 * MEGABYTE
    writer = await asyncpg.connect(large_market)
    await writer.execute("UPDATE symbols SET name = 'Another' WHERE symbol = 'S1'")
    await writer.close()

    def given_back() -> bool:
        roomy.ask(itertools.islice(universe_keys(), 1))
        now = roomy.memory()
        return now.told < 4 * MEGABYTE and before.taken - now.taken > 5 * MEGABYTE

    until(given_back)


def test_no_client_makes_a_server_take_more_than_its_limit(large_market: str) -> None:
    with serving(large_market, "16MB") as server:
        before = server.memory()
        assert before.limit == 16 * MEGABYTE
        for kind, count in ((universe_keys, 400), (pages, 100), (days, 50), (documents, 100)):
            server.ask(itertools.islice(kind(), 10, count))
            now = server.memory()
            assert now.told <= now.limit
            assert now.taken - before.taken <= now.limit
