"""Arithmetic over many stocks: it is paid for before it is computed, and takes few steps in Python."""

import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, TypeVar, cast

import asyncpg
import pytest
from conftest import SCHEMA, Databases

from graph.errors import LimitExceeded
from graph.execution.operation import Operation
from graph.execution.runtime import Runtime, open_runtime
from graph.settings import Settings

STOCKS, SESSIONS = 1_000, 100
FUNDS = 3
MARKET = f"""
INSERT INTO symbols (symbol) SELECT format('S%s', lpad(n::text, 4, '0')) FROM generate_series(1, {STOCKS}) AS n;
INSERT INTO definition_groups (name, type, environment) SELECT format('F%s', n), 'ETF', 'DEFAULT' FROM generate_series(1, {FUNDS}) AS n;
INSERT INTO group_memberships (group_id, symbol, weight) SELECT g.id, symbol, {1 / STOCKS} FROM definition_groups g, symbols;
INSERT INTO ohlcv_daily (symbol, date, close)
SELECT symbol, day, 100 + n FROM symbols, generate_series(1, {SESSIONS}) AS n, LATERAL (SELECT '2023-12-31'::date + n AS day) AS on_day;
"""

Value = TypeVar("Value")


class Computed(NamedTuple):
    """Arithmetic that was done, and the objects that had been charged before it."""

    function: str
    cells: int
    charged: int


class LimitedOperation(Operation):
    """An operation with a budget of its own, which notes what it computes."""

    def __init__(self, runtime: Runtime, budget: int = 100_000) -> None:
        super().__init__(runtime)
        self.budget, self.charges = budget, list[int]()
        self.computed: list[Computed] = []

    def fork(self) -> "LimitedOperation":
        fork = cast("LimitedOperation", super().fork())
        fork.budget, fork.charges, fork.computed = self.budget, self.charges, self.computed
        return fork

    def charge(self, objects: int) -> None:
        self.charges.append(objects)
        if sum(self.charges) > self.budget:
            raise LimitExceeded("The test's budget is spent.")
        super().charge(objects)

    async def compute(self, cells: int, function: Callable[..., Value], *arguments: Any) -> Value:
        self.computed.append(Computed(function.__name__, cells, sum(self.charges)))
        return await super().compute(cells, function, *arguments)


@pytest.fixture(scope="module")
async def runtime(databases: Databases, empty_template: str) -> AsyncIterator[Runtime]:
    """A market of a thousand stocks, each of which is in three funds."""
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    await writer.execute(MARKET)
    await writer.execute("VACUUM ANALYZE")
    await writer.close()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        yield runtime


ALL = "[DAY, WEEK, MONTH, QUARTER, HALF_YEAR, YEAR, YTD]"
ROTATION = '{{ sectorRotation(universe: "F1", by: ETF) {{ {} }} }}'
# for each resolver a query, and what it computes: cells, and objects that were charged before
DEAR = {
    "stocks": (
        f'{{ universe(key: "F1") {{ stocks {{ nodes {{ performance(windows: {ALL}) {{ change }} }} }} }} }}',
        [Computed("_changes_of_stocks", 7 * STOCKS, (1 + 1 + 7) * STOCKS)],
    ),
    "universe": (
        f'{{ universe(key: "F1") {{ performance(windows: {ALL}) {{ change }} }} }}',
        [Computed("_changes_of_holdings", 7 * STOCKS, STOCKS + STOCKS // 10 + 7)],
    ),
    "groups": (
        f"{{ groups {{ nodes {{ performance(windows: {ALL}) {{ change }} }} }} }}",
        [Computed("_changes_of_holdings", 7 * FUNDS * STOCKS, FUNDS + FUNDS * (STOCKS // 10 + 7))],
    ),
    "rotation": (
        ROTATION.format("priced"),
        [Computed("_measure", 4 * FUNDS * STOCKS, STOCKS + FUNDS * STOCKS // 10)],
    ),
    "bars": ('{ thresholdBars(universe: "F1") { priced } }', [Computed("_bars", STOCKS, STOCKS // 10)]),
    "breadth": (
        '{ breadth(universe: "F1") { priced } }',
        [Computed("_breadth", SESSIONS * STOCKS, 11 * STOCKS // 10)],
    ),
}


async def execute(query: str, operation: Operation) -> tuple[Any, list[str]]:
    operation.runtime.column_cache.clear()
    result = await SCHEMA.execute(query, context_value=operation)
    return result.data, [error.extensions["code"] for error in result.errors or ()]


@pytest.mark.parametrize("name", DEAR)
async def test_what_is_beyond_the_budget_is_refused_before_it_is_computed(runtime: Runtime, name: str) -> None:
    query, expected = DEAR[name]
    rich = LimitedOperation(runtime)
    _, codes = await execute(query, rich)
    assert (rich.computed, codes) == (expected, [])
    poor = LimitedOperation(runtime, budget=expected[0].charged - 1)
    data, codes = await execute(query, poor)
    assert (poor.computed, list(data.values()), codes) == ([], [None], ["LIMIT_EXCEEDED"])


@pytest.mark.parametrize(
    ("fields", "function", "cells", "charged"),
    [
        ("relative { ratio }", "_rotation_points", 4 * STOCKS * (83 + 21), 4 * STOCKS * (83 + 21) // 500),
        ("contributors { change }", "_largest_contributions", FUNDS * STOCKS, FUNDS * STOCKS // 10 + FUNDS),
        ("detractors(top: 0) { change }", "_largest_contributions", FUNDS * STOCKS, FUNDS * STOCKS // 10 + FUNDS),
    ],
)
async def test_fields_of_a_rotation_are_paid_for_too(
    runtime: Runtime, fields: str, function: str, cells: int, charged: int
) -> None:
    query = ROTATION.format(f"rows {{ {fields} }}")
    rich = LimitedOperation(runtime)
    _, codes = await execute(query, rich)
    rotation, below = rich.computed
    # the rotation, and its three groups
    before = rotation.charged + FUNDS
    assert (below, codes) == (Computed(function, cells, before + charged), [])
    poor = LimitedOperation(runtime, budget=below.charged - 1)
    data, codes = await execute(query, poor)
    assert (poor.computed, data, codes) == ([rotation], {"sectorRotation": None}, ["LIMIT_EXCEEDED"])


async def test_of_a_hundred_fields_those_beyond_the_budget_compute_nothing(runtime: Runtime) -> None:
    days = [f"2024-{month:02}-{day:02}" for month in range(1, 5) for day in range(1, 26)]
    fields = (f'r{n}: breadth(universe: "F1", asOf: "{day}") {{ priced }}' for n, day in enumerate(days))
    operation = LimitedOperation(runtime)
    data, codes = await execute(f"{{ {' '.join(fields)} }}", operation)
    # 1,100 objects each
    assert len(operation.computed) == 90
    assert [each for each in data.values() if each] == [{"priced": STOCKS}] * 90
    assert codes == ["LIMIT_EXCEEDED"] * 10


async def calls_of(query: str, runtime: Runtime) -> int:
    """Count the functions that are called for a query whose closes and groups are in memory."""
    await execute(query, Operation(runtime))
    calls = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        _, codes = await execute(query, Operation(runtime))
    finally:
        sys.setprofile(None)
    assert codes == []
    return calls


async def test_seven_changes_of_each_stock_take_few_calls(runtime: Runtime) -> None:
    query, _ = DEAR["stocks"]
    # about 12 for each stock; with a computation for each they were 344
    assert await calls_of(query, runtime) < 20 * STOCKS


async def test_breadth_takes_no_more_calls_for_more_sessions(runtime: Runtime) -> None:
    query = '{{ breadth(universe: "F1", asOf: "{}") {{ metrics {{ up }} }} }}'
    few, many = [await calls_of(query.format(day), runtime) for day in ("2024-02-01", "2024-04-09")]
    assert many < 1.1 * few
