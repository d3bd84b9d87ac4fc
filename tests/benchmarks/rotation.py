"""What a rotation costs, from closes in memory and before they are there.

    python tests/benchmarks/rotation.py

makes a market of 3,500 stocks over 252 sessions, with 11 sectors, 24 funds (12,000 memberships) and 20 themes, on a
PostgreSQL of its own, and prints milliseconds of CPU of this process: the median of 30 runs, and the least. `rotation`
is the resolver with all its rows and their relative rotation; `request` is the same as a query of GraphQL.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import asyncpg
import numpy as np
import orjson

from graph.api.rotation import RotationQuery
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.model import GroupType
from graph.postgres.ddl import make_tables
from graph.postgres.embedded import embedded_postgres
from graph.prices.closes import prices_until
from graph.schema import make_schema
from graph.settings import Settings

STOCKS, SESSIONS, SECTORS, THEMES = 3_500, 252, 11, 20
FUNDS = (
    3_482,
    2_000,
    1_800,
    1_000,
    600,
    500,
    400,
    400,
    350,
    300,
    150,
    100,
    100,
    100,
    75,
    75,
    70,
    65,
    60,
    55,
    40,
    35,
    30,
    25,
)
"""Members of each fund; the sixth is the one that is rotated."""
FUND = "F5"
RUNS = 30

FIELDS = "asOf members priced rows { group { name } members priced weighting windows { window change upShare rank } }"
RELATIVE = "asOf rows { group { name } windows { change rank rankChange } relative { ratio momentum quadrant } }"
QUERIES = {
    f"request, {SECTORS} sectors": f'{{ sectorRotation(universe: "{FUND}") {{ {FIELDS} }} }}',
    f"request, {SECTORS} sectors, relative": f'{{ sectorRotation(universe: "{FUND}") {{ {RELATIVE} }} }}',
    "request, breadth of 500": f'{{ breadth(universe: "{FUND}") {{ metrics {{ metric up down measured }} }} }}',
    "request, breadth of 3,482": '{ breadth(universe: "F0") { metrics { metric up down measured } } }',
    "request, bars of 500": f'{{ thresholdBars(universe: "{FUND}", sessions: 21) {{ segments {{ bin count }} }} }}',
}


async def fill(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Make the market."""
    random = np.random.default_rng(1)
    symbols = [f"S{number:04}" for number in range(STOCKS)]
    groups = [("ETF", f"F{number}", size) for number, size in enumerate(FUNDS)]
    groups += [("THEME", f"T{number}", 40) for number in range(THEMES)]
    groups += [("SECTOR", f"sector_{number}", 0) for number in range(SECTORS)]
    members = []
    for number, (kind, _, size) in enumerate(groups, 1):
        chosen = range(number, STOCKS, SECTORS) if kind == "SECTOR" else random.choice(STOCKS, size, replace=False)
        weight = 1 / size if kind == "ETF" else None
        members += [(number, symbols[stock], weight) for stock in chosen]
    await connection.execute("INSERT INTO symbols (symbol) SELECT unnest($1::text[])", symbols)
    await connection.execute(
        "INSERT INTO definition_groups (name, type, environment) SELECT name, type, 'DEFAULT'"
        " FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS g (name, type, place) ORDER BY place",
        [name for _, name, _ in groups],
        [kind for kind, _, _ in groups],
    )
    await connection.copy_records_to_table(
        "group_memberships", columns=("group_id", "symbol", "weight"), records=members
    )
    days = [day.item() for day in np.arange("2023-01-02", "2024-12-31", dtype="datetime64[D]") if np.is_busday(day)]
    closes = 100 * np.cumprod(1 + random.normal(0, 0.02, (SESSIONS, STOCKS)), axis=0)
    await connection.copy_records_to_table(
        "ohlcv_daily",
        columns=("symbol", "date", "open", "close"),
        records=(
            (symbol, day, float(close), float(close))
            for symbol, column in zip(symbols, closes.T, strict=True)
            for day, close in zip(days, column, strict=False)
        ),
    )
    await connection.execute("VACUUM ANALYZE")


async def measured(run: Callable[[], Awaitable[object]], runs: int = RUNS) -> tuple[float, float]:
    """Give the median and the least of the milliseconds of CPU that it takes."""
    taken = []
    for _ in range(runs):
        start = time.process_time()
        await run()
        taken.append((time.process_time() - start) * 1_000)
    return median(taken), min(taken)


async def rotate(runtime: Runtime, universe: str, by: GroupType) -> None:
    """Do what the resolver does, with the relative rotation of all rows."""
    operation = Operation(runtime)
    info: Any = SimpleNamespace(context=operation)
    async with operation.attempt(snapshot=False):
        rotation = await RotationQuery().sector_rotation(info, universe=universe, by=by)
        for row in rotation.rows:
            await row.relative(info)


async def all_groups(runtime: Runtime) -> None:
    """Rotate the largest universe by every type of group."""
    for by in (GroupType.SECTOR, GroupType.ETF, GroupType.THEME):
        await rotate(runtime, "F0", by)


def resident() -> float:
    """Give the memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096 / 2**20


async def main(url: str) -> None:
    """Fill, measure and print."""
    connection = await asyncpg.connect(url)
    await make_tables(connection)
    await fill(connection)
    schema = make_schema()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()

        async def read() -> Any:
            operation = Operation(runtime)
            async with operation.attempt(snapshot=False):
                return await prices_until(operation, None)

        async def ask(query: str) -> None:
            result = await schema.execute(query, context_value=Operation(runtime))
            assert not result.errors
            orjson.dumps(result.data)

        before, start, cpu = resident(), time.perf_counter(), time.process_time()
        matrix = await read()
        wall, cpu = (time.perf_counter() - start) * 1_000, (time.process_time() - cpu) * 1_000
        print(f"{'closes, the first time':40} {wall:8.1f} ms, {cpu:.1f} of them CPU here")
        size = matrix.closes.nbytes + matrix.intraday.nbytes
        grown = resident() - before
        print(f"{'memory':40} {size / 2**20:8.1f} MB for {matrix.closes.shape}; the process grew by {grown:.1f} MB")
        await connection.execute("UPDATE ohlcv_daily SET close = 1 WHERE symbol = 'S0000' AND date = '2023-12-12'")
        while (known := runtime.generations.confirmed_generation("prices")) is None or known.prices < 2:
            await runtime.generations.confirmed()
        start = time.perf_counter()
        await read()
        print(f"{'closes, after one of them changed':40} {(time.perf_counter() - start) * 1_000:8.1f} ms")
        await all_groups(runtime)
        await rotate(runtime, FUND, GroupType.SECTOR)
        print(f"\n{'ms of CPU':40} {'median':>8} {'least':>8}")
        runs: dict[str, Callable[[], Awaitable[object]]] = {
            f"rotation of 500 stocks by {SECTORS} sectors": lambda: rotate(runtime, FUND, GroupType.SECTOR),
            f"rotation of 3,482 by all {len(FUNDS) + THEMES + SECTORS} groups": lambda: all_groups(runtime),
        }
        runs |= {name: lambda query=query: ask(query) for name, query in QUERIES.items()}
        for name, run in runs.items():
            middle, least = await measured(run)
            print(f"{name:40} {middle:8.2f} {least:8.2f}")
    await connection.close()


if __name__ == "__main__":
    home = Path(tempfile.mkdtemp(prefix="stockgraph-benchmark-"))
    home.chmod(0o755)
    try:
        with embedded_postgres(home) as address:
            asyncio.run(main(address))
    finally:
        shutil.rmtree(home, ignore_errors=True)
