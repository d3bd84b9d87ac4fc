"""How fast the server serves, beside a bare route, a statement written by hand and plain Strawberry.

    python tests/benchmarks/serving.py

makes 2,800 stocks in 11 sectors, 24 funds and 20 themes on a PostgreSQL of its own (or the one that TEST_DATABASE_URL
names), has all servers answer six queries alike, and prints a table of requests per second, which needs `wrk`. Each
server is one process, and what is compared is timed in turns. `response cache hit` is the server as it is, `response
cache off` caches no whole answers; `while a weight changes` does not either, and a weight changes four times a second;
`all caches off` caches nothing. Response cache hits are measured against `cached bytes`, a route that sends the same
bytes; all else against
`one statement`, a route that asks the database once and writes JSON. rivals.py has them. `--zipf` asks for other funds
and stocks each time; `--growth` compares 10 and 100 times as much data, loads it too, and draws docs/growth.svg.
"""

import argparse
import asyncio
import http.client
import os
import platform
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import log10
from pathlib import Path
from statistics import linear_regression, median
from typing import IO, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import numpy as np
import orjson

from graph.postgres.ddl import make_tables
from graph.postgres.embedded import embedded_postgres

FUNDS = (504, 102, 30, 2_700, 1_950, 503, 400, 400, 180, 150, 100, 100, 75, 75, 70, 65, 60, 55, 50, 40, 35, 30, 26, 25)
"""Members of each fund; the first is SPY, of the largest stocks. Every eighth fund holds AAPL."""
THEMES, THEME_SIZE = 20, 55
STOCKS = {1: 2_800, 10: 6_000, 100: 12_000}
"""How many there are where there are as many times the funds and themes."""
FACTORS = {"small": [1], "large": [100], "both": [1, 100]}
SECTORS = (
    *("communication_services", "consumer_discretionary", "consumer_staples", "energy", "financials", "health_care"),
    *("industrials", "information_technology", "materials", "real_estate", "utilities"),
)
KNOWN = ("AAPL", "MSFT", "NVDA", "AMZN", "JPM")
HOLDERS = "memberships(type: ETF) { group { name description } weight }"
COUNTED = "groups(type: SECTOR) { nodes { name memberCount } }"
FUND, STOCK = (
    "query ($name: String!) { group(name: $name, type: ETF)",
    "query ($symbol: String!) { stock(symbol: $symbol)",
)
QUERIES = {
    "Q1": FUND + " { members { nodes { symbol weight } } } }",
    "Q2": STOCK + f" {{ {HOLDERS} }} }}",
    "Q3": FUND + " { members(first: 10) { nodes { weight stock { symbol groups(type: ETF) { name } } } } } }",
    "Q4": f"{{ {COUNTED} }}",
    "Q5": FUND + " { members { nodes { symbol weight stock { groups(type: SECTOR) { name } } } } } }",
    "Q6": "query ($s1: String!, $s2: String!, $s3: String!, $s4: String!, $s5: String!, $name: String!) {"
    + " ".join(f" s{n}: stock(symbol: $s{n}) {{ {HOLDERS} }}" for n in range(1, 6))
    + f" sectors: {COUNTED} page: group(name: $name, type: ETF) {{ members(first: 30) {{ nodes {{ symbol weight }} }} }} }}",
}
OURS = {
    "response cache hit": [],
    "response cache off": ["--response-cache", "off"],
    "while a weight changes": ["--response-cache", "off"],
    "all caches off": ["--response-cache", "off", "--data-cache", "off"],
}
CHANGING = "while a weight changes"
RIVALS = ("cached bytes", "one statement", "plain Strawberry")
CHANGES_A_SECOND = 4

LUA = """
wrk.method = "POST"
wrk.headers["Content-Type"], wrk.headers["Accept"] = "application/json", "application/json"
local bodies, upto, made = {%s}, {%s}, {}
if #bodies == 1 then
  wrk.body = bodies[1]
else
  function init()
    for n, body in ipairs(bodies) do made[n] = wrk.format(nil, wrk.path .. n, nil, body) end
  end
  function request()
    local drawn, low, high = math.random(), 1, #made
    while low < high do
      local middle = math.floor((low + high) / 2)
      if drawn < upto[middle] then high = middle else low = middle + 1 end
    end
    return made[low]
  end
end
function done(summary, latency)
  local failed = summary.errors
  print(string.format('{"rate": %%f, "done": %%d, "failed": [%%d, %%d, %%d, %%d, %%d], "p50": %%f, "p99": %%f}',
    summary.requests / summary.duration * 1e6, summary.requests,
    failed.connect, failed.read, failed.write, failed.status, failed.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


class Failed(Exception):
    """Ends the run, in one line."""


@dataclass
class Market:
    """A database that is filled."""

    url: str
    memberships: int
    funds: list[str]
    stocks: list[str]


@dataclass
class Server:
    """A process that serves."""

    name: str
    process: asyncio.subprocess.Process
    log: IO[bytes]
    port: int
    seconds: float
    """From its start until it could answer."""

    def spent(self) -> float:
        """Give the seconds of CPU that it took."""
        figures = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(figures[11]) + int(figures[12])) / os.sysconf("SC_CLK_TCK")

    async def settled(self) -> None:
        """Wait until it works no longer: some go on with requests whose client has gone."""
        before = -1.0
        while (spent := self.spent()) - before > 0.02:
            before = spent
            await asyncio.sleep(0.2)

    def resident(self) -> float:
        """Give its memory in MB."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Figures(NamedTuple):
    """What was measured of a server."""

    mode: str
    rates: dict[str, float]
    """Requests a second, by query."""
    start: float
    """Seconds until it could answer."""
    megabytes: float


class Sample(NamedTuple):
    """What wrk measured: requests a second, how many, and milliseconds."""

    rate: float
    done: int
    p50: float
    p99: float


Samples = dict[tuple[str, str], list[Sample]]
"""By server and query, one for each round."""


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


async def fill(connection: "asyncpg.Connection[asyncpg.Record]", factor: int) -> tuple[int, list[str], list[str]]:
    """Make groups and memberships; larger stocks are in more funds."""
    draw = np.random.default_rng(1)
    stocks = [*KNOWN, *(f"S{number:05}" for number in range(STOCKS[factor] - len(KNOWN)))]
    liking = np.arange(1, len(stocks)) ** -0.15
    liking /= liking.sum()
    funds = ["SPY", *(f"F{number:04}" for number in range(1, len(FUNDS) * factor))]
    groups = [("ETF", name) for name in funds]
    groups += [("THEME", f"theme_{number:04}") for number in range(THEMES * factor)]
    groups += [("SECTOR", name) for name in SECTORS]
    sector_of = draw.integers(len(SECTORS), size=len(stocks))
    members: list[tuple[int, str, float | None]] = []
    for number, (kind, name) in enumerate(groups):
        if kind == "ETF":
            size = FUNDS[number % len(FUNDS)]
            chosen = 1 + np.sort(draw.choice(len(stocks) - 1, size, replace=False, p=liking))
            if name == "SPY":
                chosen = np.arange(size)
            elif number % 8 == 0:
                chosen[0] = 0
            weights = np.arange(2, size + 2) ** -0.9
            weights = np.round(weights / weights.sum(), 8)
            members += zip([number + 1] * size, [stocks[n] for n in chosen], weights.tolist(), strict=True)
        elif kind == "THEME":
            chosen = draw.choice(len(stocks), THEME_SIZE, replace=False)
            members += [(number + 1, stocks[n], None) for n in chosen]
        else:
            chosen = np.flatnonzero(sector_of == SECTORS.index(name))
            members += [(number + 1, stocks[n], None) for n in chosen]
    await connection.copy_records_to_table("symbols", columns=["symbol"], records=[(symbol,) for symbol in stocks])
    await connection.copy_records_to_table(
        "definition_groups",
        columns=["id", "name", "type", "description", "environment"],
        records=[(n, name, kind, f"{kind} no. {n}", "DEFAULT") for n, (kind, name) in enumerate(groups, 1)],
    )
    await connection.copy_records_to_table(
        "group_memberships", columns=["group_id", "symbol", "weight"], records=members, timeout=1_800
    )
    await connection.execute("VACUUM ANALYZE")
    return len(members), funds, stocks


@asynccontextmanager
async def made_database(server_url: str, name: str) -> AsyncIterator[str]:
    """Make a database with empty tables for a while, and give its URL."""
    name = f"stockgraph_serving_{os.getpid()}_{name}"
    url = urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    above = await asyncpg.connect(server_url)
    await above.execute(f"CREATE DATABASE {name}")
    try:
        connection = await asyncpg.connect(url)
        await make_tables(connection)
        await connection.close()
        yield url
    finally:
        await above.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await above.close()


@asynccontextmanager
async def made_market(server_url: str, factor: int) -> AsyncIterator[Market]:
    """Make a database for a while, and fill it."""
    async with made_database(server_url, str(factor)) as url:
        say(f"Filling a database with {factor} times the data")
        connection = await asyncpg.connect(url)
        market = Market(url, *await fill(connection, factor))
        await connection.close()
        yield market


async def load(market: Market, server_url: str) -> float:
    """Load the groups of a market into an empty database, from a file for each; the seconds that takes."""
    connection = await asyncpg.connect(market.url)
    groups = await connection.fetch(
        "SELECT lower(g.type) || '_' || g.name AS name,"
        " string_agg(m.symbol || ',' || coalesce(m.weight::text, ''), E'\n') AS members"
        " FROM definition_groups AS g JOIN group_memberships AS m ON m.group_id = g.id GROUP BY g.id"
    )
    await connection.close()
    async with made_database(server_url, "load") as url:
        with tempfile.TemporaryDirectory(prefix="stockgraph-benchmark-") as folder:
            for group in groups:
                (Path(folder) / f"{group['name']}.csv").write_text(f"symbol,weight\n{group['members']}\n")
            say(f"Loading {len(groups):,} files")
            start = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "graph", "load", folder, "--weights", "fraction"),
                env=os.environ | {"DATABASE_URL": url},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            written, _ = await process.communicate()
            if process.returncode:
                raise Failed(f"The load fails: {written.decode().strip().rpartition(chr(10))[2]}")
            return time.perf_counter() - start


def post(port: int, path: str, body: bytes | None) -> tuple[int, bytes]:
    """Ask a server; without a body by GET."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("GET" if body is None else "POST", path, body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def said(log: IO[bytes]) -> str:
    """Give the last line of what a server said."""
    log.seek(0)
    return log.read().decode().strip().rpartition("\n")[2]


@asynccontextmanager
async def serving(name: str, url: str, *options: str) -> AsyncIterator[Server]:
    """Run a server until it is no longer needed."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if name in OURS:
        command = ["graph", "serve", "--port", str(port), *OURS[name], *options]
    else:
        factory = f"rivals:{name.lower().replace(' ', '_')}"
        command = ["uvicorn", factory, "--factory", "--app-dir", str(Path(__file__).parent), "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        command += ["--no-server-header"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STOCKGRAPH_", "CACHE_URL"))}
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, env=kept | {"DATABASE_URL": url}, stdout=log, stderr=log
        )
        try:
            while True:
                with suppress(OSError):
                    if post(port, "/readyz", None)[0] == http.client.OK:
                        break
                if process.returncode is not None or time.perf_counter() - start > 60:
                    raise Failed(f"{name} does not come to serve: {said(log)}")
                await asyncio.sleep(0.01)
            yield Server(name, process, log, port, time.perf_counter() - start)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@asynccontextmanager
async def changing(url: str) -> AsyncIterator[None]:
    """Change the weight of a member of a theme now and then."""
    connection = await asyncpg.connect(url)
    draw = random.Random(1)
    members = await connection.fetch(
        "SELECT m.id FROM group_memberships AS m JOIN definition_groups AS g ON g.id = m.group_id WHERE g.type = 'THEME'"
    )

    async def change() -> None:
        statement = "UPDATE group_memberships SET weight = $1::float8 WHERE id = $2"
        while True:
            await connection.execute(statement, draw.random(), draw.choice(members)["id"])
            await asyncio.sleep(1 / CHANGES_A_SECOND)

    task = asyncio.create_task(change())
    try:
        yield
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait([task])
        await connection.close()


def requests(market: Market, *, zipf: bool) -> dict[str, list[bytes]]:
    """Write the bodies of each query, those asked for most often first."""
    spy = {"name": "SPY"}
    given: dict[str, list[dict[str, str]]] = {name: [spy] for name in QUERIES}
    given["Q2"], given["Q4"] = [{"symbol": "AAPL"}], [{}]
    given["Q6"] = [spy | {f"s{n}": symbol for n, symbol in enumerate(KNOWN, 1)}]
    if zipf:
        for name in ("Q1", "Q3", "Q5"):
            given[name] = [{"name": fund} for fund in market.funds]
        given["Q2"] = [{"symbol": symbol} for symbol in market.stocks]
    return {
        name: [orjson.dumps({"query": query, "variables": each}) for each in given[name]]
        for name, query in QUERIES.items()
    }


def path_of(query: str, number: int, bodies: Sequence[bytes]) -> str:
    """Give the path that a body is sent to: the floors know it by that."""
    return f"/graphql?{query}" + (f"={number}" if len(bodies) > 1 else "")


def compare(servers: Iterable[Server], asked: dict[str, list[bytes]]) -> None:
    """See that all servers answer alike, to some bodies of each query."""
    for query, bodies in asked.items():
        for number in range(0, len(bodies), max(1, len(bodies) // 4)):
            first: tuple[str, object] | None = None
            for server in servers:
                status, answer = post(server.port, path_of(query, number + 1, bodies), bodies[number])
                what = f"{query} ({bodies[number].decode().rpartition('variables')[2][2:-1]})"
                if status != http.client.OK:
                    raise Failed(f"{server.name} answers {what} with status {status}: {answer[:200].decode()}")
                data = orjson.loads(answer)
                if set(data) != {"data"} or None in data["data"].values():
                    raise Failed(f"{server.name} does not answer {what}: {answer[:200].decode()}")
                first = first or (server.name, data)
                if data != first[1]:
                    raise Failed(f"{server.name} answers {what} other than {first[0]}: {answer[:200].decode()}")


class Timer:
    """Times servers, for as long and with as many connections as told."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.folder, self.seconds, self.connections = folder, given.seconds, given.connections
        self.rounds: int = given.rounds

    async def wrk(self, server: Server, query: str, bodies: Sequence[bytes], seconds: int) -> Sample:
        """Have wrk ask for some seconds."""
        shares = list(accumulate(1 / rank for rank in range(1, len(bodies) + 1)))
        script = self.folder / "post.lua"
        texts = ", ".join(f"[==[{body.decode()}]==]" for body in bodies)
        script.write_text(LUA % (texts, ", ".join(f"{share / shares[-1]:.9f}" for share in shares)))
        url = f"http://127.0.0.1:{server.port}{path_of(query, 0, bodies).removesuffix('0')}"
        command = ["-t1", f"-c{self.connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(script), url]
        process = await asyncio.create_subprocess_exec("wrk", *command, stdout=asyncio.subprocess.PIPE)
        written, _ = await process.communicate()
        last = written.decode().strip().rpartition("\n")[2]
        if process.returncode or not last.startswith("{"):
            raise Failed(f"wrk ended with {process.returncode}: {last}")
        told = orjson.loads(last)
        failed = zip(("connect", "read", "write", "status", "timeout"), told.pop("failed"), strict=True)
        if faults := ", ".join(f"{kind} {count}" for kind, count in failed if count):
            raise Failed(
                f"{server.name} failed to answer requests of {query}, by what failed: {faults}. {said(server.log)}"
            )
        await server.settled()
        return Sample(**told)

    async def timed(self, server: Server, query: str, bodies: Sequence[bytes]) -> Sample:
        """Warm up and time; longer where hardly any request comes to its end."""
        longer = max(4 * self.seconds, 15)
        await self.wrk(server, query, bodies, 1)
        sample = await self.wrk(server, query, bodies, self.seconds)
        if sample.done < 3 * self.connections:
            sample = await self.wrk(server, query, bodies, longer)
        if not sample.done:
            raise Failed(f"{server.name} answers no request of {query} in {longer} s.")
        return sample

    async def time(self, servers: Sequence[Server], asked: dict[str, list[bytes]], url: str) -> Samples:
        """Time all queries of all servers, in turns."""
        compare(servers, asked)
        samples: Samples = defaultdict(list)
        for turn in range(self.rounds):
            for query, bodies in asked.items():
                for server in servers:
                    async with AsyncExitStack() as stack:
                        if server.name == CHANGING:
                            await stack.enter_async_context(changing(url))
                        sample = await self.timed(server, query, bodies)
                    samples[server.name, query].append(sample)
                    say(
                        f"round {turn + 1}, {query}, {server.name}: {sample.rate:,.0f} requests/s,"
                        f" p50 {sample.p50:.2f} ms, p99 {sample.p99:.2f} ms"
                    )
        compare(servers, asked)
        return samples


def noise(samples: Samples) -> str:
    """Say how far the rounds lie apart."""
    spreads = [
        (max(rates) - min(rates)) / median(rates)
        for rates in ([sample.rate for sample in each] for each in samples.values())
    ]
    if max(map(len, samples.values())) == 1:
        return "One round, which does not tell how noisy it was."
    return f"From round to round rates differ by {median(spreads):.0%} (the median; at most {max(spreads):.0%})."


def rate(samples: Samples, server: str, query: str) -> float:
    """Give requests per second."""
    return median(sample.rate for sample in samples[server, query])


def print_row(*cells: object) -> None:
    """Print a row of a table."""
    print(f"| {' | '.join(map(str, cells))} |")


def print_head(*cells: str) -> None:
    """Print the head of a table."""
    print()
    print_row(*cells)
    print("|---" * len(cells) + "|")


def print_ratios(servers: Iterable[Server], samples: Samples) -> None:
    """Print the table of a market."""
    print_head("times its floor (requests/s)", *QUERIES, "MB")
    for server in servers:
        floor = "cached bytes" if server.name in ("response cache hit", "cached bytes") else "one statement"
        cells = []
        for query in QUERIES:
            pairs = zip(samples[server.name, query], samples[floor, query], strict=True)
            ratio = median(sample.rate / least.rate for sample, least in pairs)
            cells.append(f"**{ratio:.2f}** ({rate(samples, server.name, query):,.0f})")
        print_row(server.name, *cells, f"{server.resident():.0f}")
    print(f"\n{noise(samples)}")


async def measure_beside(timer: Timer, server_url: str, given: argparse.Namespace) -> None:
    """Measure the server beside the others."""
    for factor in FACTORS[given.scale]:
        async with made_market(server_url, factor) as market, AsyncExitStack() as stack:
            names = (*OURS, *RIVALS)
            servers = [await stack.enter_async_context(serving(name, market.url)) for name in names]
            asked = requests(market, zipf=given.zipf)
            if given.check:
                compare(servers, asked)
                print(f"{market.memberships:,} memberships: {len(servers)} servers answer {len(asked)} queries alike.")
                continue
            samples = await timer.time(servers, asked, market.url)
            print(f"\n{market.memberships:,} memberships, {'drawn by Zipf' if given.zipf else 'the same each time'}:")
            print_ratios(servers, samples)


async def measure_growth(timer: Timer, server_url: str) -> None:
    """Measure what more data costs, and what more processes give."""
    modes, whole = ("response cache off", "response cache hit"), "load and start: s; memory: GB"
    sizes: list[int] = []
    panels: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    tables: dict[str, list[list[str]]] = {"memberships": [], "processes": []}
    every: Samples = {}

    async def measured(table: str, title: str, *options: str) -> list[Figures]:
        async with AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(serving(mode, market.url, *options)) for mode in modes]
            samples = await timer.time(servers, requests(market, zipf=False), market.url)
            found = [
                Figures(of.name, {query: rate(samples, of.name, query) for query in QUERIES}, of.seconds, of.resident())
                for of in servers
            ]
        for mode, rates, start, megabytes in found:
            # of several processes, it would be that of the one that starts them
            memory = "" if options else f"{megabytes:.0f}"
            shown = [f"{each:,.0f}" for each in rates.values()]
            tables[table].append([f"{title}, {mode}", *shown, f"{start:.1f}", memory])
        every.update({(f"{title} {mode}", query): each for (mode, query), each in samples.items()})
        return found

    for factor in STOCKS:
        async with made_market(server_url, factor) as market:
            sizes.append(market.memberships)
            found = await measured("memberships", f"{market.memberships:,}")
            for figures in found:
                for query, each in figures.rates.items():
                    panels[f"{figures.mode}: ms a request"][query].append(1_000 / each)
            panels[whole]["load"].append(await load(market, server_url))
            panels[whole]["start"].append(found[-1].start)
            panels[whole]["memory"].append(found[-1].megabytes / 1_000)
            for workers in (1, 2, 4) if factor == 1 else ():
                await measured("processes", str(workers), "--workers", str(workers))
    for table, rows in tables.items():
        print_head(f"{table}, requests/s", *QUERIES, "start, s", "MB")
        for row in rows:
            print_row(*row)
    print_head("loads", *(f"{size:,}" for size in sizes))
    print_row("s", *(f"{seconds:.1f}" for seconds in panels[whole]["load"]))
    for title, lines in panels.items():
        fits = ", ".join(f"{name} {power(sizes, line):.2f}" for name, line in lines.items())
        print(f"\n{title} ~ memberships^b, b: {fits}")
    print(f"\n{noise(every)}")
    picture = Path(__file__).parents[2] / "docs" / "growth.svg"
    picture.write_text(drawn(sizes, panels))
    say(f"Drew {picture.name}")


def power(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Fit the exponent of a power law."""
    return linear_regression([log10(size) for size in sizes], [log10(cost) for cost in costs]).slope


COLOURS = ("#d9480f", "#1c7ed6", "#2f9e44", "#9c36b5", "#e03131", "#0c8599")
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f } .grid { stroke: #8884; fill: none }
.line { fill: none; stroke-width: 2 } @media (prefers-color-scheme: dark) { text { fill: #d1d7e0 } }
"""


def drawn(sizes: Sequence[int], panels: dict[str, dict[str, list[float]]]) -> str:
    """Draw lines over memberships, a panel below its title for some of them, both axes logarithmic."""
    width, height, left, top, across = 200, 220, 48, 30, 370

    def x(size: float) -> float:
        return width * log10(size / sizes[0]) / log10(sizes[-1] / sizes[0])

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(panels) * across} {top + height + 48}">']
    parts.append(f"<style>{STYLE}</style>")
    for panel, (title, lines) in enumerate(panels.items()):
        every = [value for line in lines.values() for value in line]
        low, high = int(np.floor(log10(min(every)))), int(np.ceil(log10(max(every))))

        def y(value: float, low: int = low, high: int = high) -> float:
            return height * (high - log10(value)) / (high - low)

        parts.append(f'<g transform="translate({left + panel * across} {top})"><text y="-12">{title}</text>')
        for decade in range(low, high + 1):
            parts.append(f'<path class="grid" d="M0 {y(10**decade):.1f}h{width}"/>')
            parts.append(f'<text x="-6" y="{y(10**decade) + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
        for size in sizes:
            parts.append(f'<path class="grid" d="M{x(size):.1f} 0v{height}"/>')
            parts.append(f'<text x="{x(size):.1f}" y="{height + 18}" text-anchor="middle">{size:,}</text>')
        parts.append(f'<text x="{width / 2}" y="{height + 38}" text-anchor="middle">memberships</text>')
        ends = {name: y(line[-1]) for name, line in lines.items()}
        order = sorted(ends, key=ends.__getitem__)
        for above, below in pairwise(order):  # labels do not cover each other
            ends[below] = max(ends[below], ends[above] + 14)
        ends[order[-1]] = min(ends[order[-1]], height - 4.0)
        for below, above in pairwise(reversed(order)):
            ends[above] = min(ends[above], ends[below] - 14)
        for colour, (name, line) in zip(COLOURS, lines.items(), strict=False):
            points = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(sizes, line, strict=True))
            parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
            label = f"{name}  b = {power(sizes, line):.2f}"
            parts.append(f'<text x="{width + 8}" y="{ends[name] + 4:.1f}" style="fill: {colour}">{label}</text>')
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def processor() -> str:
    """Name the model."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


async def main(server_url: str, folder: Path, given: argparse.Namespace) -> None:
    """Measure what is asked for, and say on what."""
    timer = Timer(folder, given)
    await (measure_growth(timer, server_url) if given.growth else measure_beside(timer, server_url, given))
    connection = await asyncpg.connect(server_url)
    version = (await connection.fetchval("SHOW server_version")).split()[0]
    await connection.close()
    print(
        f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}, PostgreSQL {version};"
        f" {given.connections} connections for {given.seconds} s."
    )


def read_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=4, help="of each timing, after a second of warming up")
    parser.add_argument("--connections", type=int, default=16, help="that ask at once")
    parser.add_argument("--rounds", type=int, default=2, help="each in which all is timed in turns")
    parser.add_argument("--scale", choices=FACTORS, default="small", help="large is 100 times the groups")
    parser.add_argument("--check", action="store_true", help="compare the answers, and time nothing")
    parser.add_argument("--zipf", action="store_true", help="ask for another fund or stock each time, some more often")
    parser.add_argument("--growth", action="store_true", help="measure 1, 10 and 100 times the data; 1, 2, 4 processes")
    return parser.parse_args()


if __name__ == "__main__":
    options = read_options()
    if not shutil.which("wrk"):
        sys.exit("This needs wrk on the PATH: https://github.com/wg/wrk, or the package wrk of most systems.")
    with ExitStack() as ending:
        home = Path(
            ending.enter_context(
                tempfile.TemporaryDirectory(prefix="stockgraph-benchmark-", ignore_cleanup_errors=True)
            )
        )
        home.chmod(0o755)
        address = os.environ.get("TEST_DATABASE_URL") or ending.enter_context(embedded_postgres(home / "postgres"))
        try:
            asyncio.run(main(address, home, options))
        except Failed as error:
            sys.exit(str(error))
