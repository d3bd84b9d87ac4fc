"""Every figure of the analytics against tests/oracle.py, which computes them from their definitions, in pandas.

On a market made here, with whatever goes wrong in one; and on a real one where TEST_MARKET names a folder that holds
groups.csv, the files it lists, and ohlcv*.csv.gz (symbol,date,open,high,low,close,volume).
"""

import math
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import oracle
import pandas as pd
import pytest
from conftest import Ask, Databases, asker

from graph.app import open_runtime
from graph.loading.discovery import read_paths
from graph.loading.group_writer import GroupRefused, load_groups
from graph.settings import Settings

TOLERANCE = 1e-9
WINDOWS = [*oracle.WINDOWS]
TYPES = ("ETF", "THEME", "SECTOR", "SEGMENT", "CUSTOM", "UNIVERSE")

CHANGE = """window sessions from to change weighting members priced coverage advancers decliners unchanged upShare
    rank rankChange"""
ROTATION = """
query ($universe: String!, $by: GroupType!, $windows: [Window!]!, $asOf: Date, $membersAsOf: Date,
       $weighting: Weighting!, $benchmark: String, $tail: Int!, $top: Int!, $over: Window!) {
  sectorRotation(universe: $universe, by: $by, windows: $windows, asOf: $asOf, membersAsOf: $membersAsOf,
                 weighting: $weighting, benchmark: $benchmark) {
    asOf note universe { key size } members priced coverage ungrouped
    rows {
      group { type name } members priced coverage weighting weightsOf { type name } weekAgainstMonth
      windows { CHANGE }
      relative { ratio momentum quadrant tail(sessions: $tail) { date ratio momentum } }
      contributors(top: $top, window: $over) { stock { symbol } weight change contribution }
      detractors(top: $top, window: $over) { stock { symbol } weight change contribution }
    }
  }
}""".replace("CHANGE", CHANGE)
BARS = """
query ($universe: String!, $threshold: Float!, $sessions: Int!, $kind: BarKind!, $asOf: Date, $membersAsOf: Date) {
  thresholdBars(universe: $universe, threshold: $threshold, sessions: $sessions, kind: $kind, asOf: $asOf,
                membersAsOf: $membersAsOf) {
    asOf from note members priced coverage segments { bin count share }
  }
}"""
BREADTH = """
query ($universe: String!, $asOf: Date, $membersAsOf: Date) {
  breadth(universe: $universe, asOf: $asOf, membersAsOf: $membersAsOf) {
    asOf note members priced coverage metrics { metric measured coverage up down unchanged upShare }
  }
}"""
GROUP = """
query ($name: String!, $type: GroupType!, $windows: [Window!]!, $weighting: Weighting!, $asOf: Date, $membersAsOf: Date) {
  group(name: $name, type: $type, asOf: $membersAsOf) {
    performance(windows: $windows, weighting: $weighting, asOf: $asOf) { CHANGE }
  }
}""".replace("CHANGE", CHANGE)
UNIVERSE = """
query ($key: String!, $windows: [Window!]!, $weighting: Weighting!, $asOf: Date, $membersAsOf: Date) {
  universe(key: $key, asOf: $membersAsOf) {
    performance(windows: $windows, weighting: $weighting, asOf: $asOf) { CHANGE }
  }
}""".replace("CHANGE", CHANGE)
STOCKS = """
query ($symbols: [String!]!, $windows: [Window!]!, $asOf: Date, $since: Date, $to: Date) {
  stocks(symbols: $symbols) {
    performance(windows: $windows, asOf: $asOf) { window sessions from to change }
    prices(from: $since, to: $to) { date open high low close volume }
  }
}"""


@dataclass
class Compared:
    """How much was compared, and how far apart it was at most."""

    count: int = 0
    furthest: float = 0.0
    differences: list[str] = field(default_factory=list)

    def compare(self, found: Any, expected: Any, path: str) -> None:
        """Compare two answers: floats to 1e-9, all else exactly."""
        if isinstance(expected, dict) and isinstance(found, dict):
            if set(found) != set(expected):
                self.differences.append(f"{path}: {sorted(found)} for {sorted(expected)}")
            for key in expected.keys() & found.keys():
                self.compare(found[key], expected[key], f"{path}.{key}")
        elif isinstance(expected, list) and isinstance(found, list):
            if len(found) != len(expected):
                self.differences.append(f"{path}: {len(found)} items for {len(expected)}: {found} for {expected}"[:600])
            for place, (one, other) in enumerate(zip(found, expected, strict=False)):
                self.compare(one, other, f"{path}[{place}]")
        else:
            self.count += 1
            if isinstance(expected, float) and isinstance(found, float):
                apart = abs(found - expected) / max(1.0, abs(expected))
                self.furthest = max(self.furthest, apart)
                if apart <= TOLERANCE:
                    return
            elif type(found) is type(expected) and found == expected:
                return
            self.differences.append(f"{path}: {found!r} for {expected!r}")


@dataclass
class Market:
    """A market in a database that is asked, and the same in pandas."""

    ask: Ask
    prices: pd.DataFrame
    now: pd.DataFrame
    """The memberships."""
    past: dict[str, pd.DataFrame] = field(default_factory=dict)
    """Those of past days."""
    compared: Compared = field(default_factory=Compared)
    views: dict[str | None, oracle.View] = field(default_factory=dict)

    def view(self, day: str | None) -> oracle.View:
        if day not in self.views:
            self.views[day] = oracle.view(self.prices, day)
        return self.views[day]

    def members(self, day: str | None) -> pd.DataFrame:
        return self.now if day is None else self.past[day]

    async def answer(self, query: str, **variables: Any) -> Any:
        """The one field of an answer without errors."""
        answer = await self.ask(query, **variables)
        assert "errors" not in answer, (variables, answer["errors"])
        [found] = answer["data"].values()
        return found

    def agree_on_order(self, found: list[dict[str, Any]], expected: list[dict[str, Any]], top: int, what: str) -> None:
        """Contributions are in order; of those that differ by a rounding error at most, in either."""
        by_symbol = {each["stock"]["symbol"]: each for each in expected}
        listed = [each["stock"]["symbol"] for each in found]
        assert len(set(listed)) == len(listed) == min(top, len(expected)), what
        for each, symbol, other in zip(found, listed, expected, strict=False):
            self.compared.compare(each, by_symbol.get(symbol), f"{what} {symbol}")
            self.compared.compare(each["contribution"], other["contribution"], f"{what} place of {symbol}")

    def same(self, found: Any, expected: Any, what: str) -> None:
        """Note whether an answer is what it must be; the note says something where there is no session only."""
        if "note" in found:
            assert (found.pop("note") is None) == (expected["asOf"] is not None), (what, found)
        self.compared.compare(found, expected, what)

    async def rotation(
        self,
        universe: str,
        by: str,
        *,
        windows: list[str] = WINDOWS,
        as_of: str | None = None,
        members_as_of: str | None = None,
        weighting: str = "WEIGHT",
        benchmark: str | None = None,
        tail: int = 21,
        top: int = 5,
        over: str = "DAY",
    ) -> None:
        found = await self.answer(
            ROTATION, universe=universe, by=by, windows=windows, asOf=as_of, membersAsOf=members_as_of,
            weighting=weighting, benchmark=benchmark, tail=tail, top=top, over=over,
        )  # fmt: skip
        expected = oracle.sector_rotation(
            self.view(as_of), self.members(members_as_of), universe, by, windows, weighting=weighting,
            benchmark=benchmark, tail=tail, top=len(self.now), over=over,
        )  # fmt: skip
        what = f"rotation {universe} by {by} {weighting} {as_of} {members_as_of}"
        others = {row["group"]["name"]: row for row in expected["rows"]}
        self.compared.compare([row["group"]["name"] for row in found["rows"]], [*others], f"{what} order")
        expected["rows"] = [others[row["group"]["name"]] for row in found["rows"]]
        for row, other in zip(found["rows"], expected["rows"], strict=True):
            for side in ("contributors", "detractors"):
                self.agree_on_order(row.pop(side), other.pop(side), top, f"{what} {row['group']['name']} {side}")
        self.same(found, expected, what)

    async def bars(
        self,
        universe: str,
        *,
        threshold: float = 0.05,
        sessions: int = 1,
        kind: str = "DIVERGING",
        as_of: str | None = None,
        members_as_of: str | None = None,
    ) -> None:
        found = await self.answer(
            BARS, universe=universe, threshold=threshold, sessions=sessions, kind=kind, asOf=as_of,
            membersAsOf=members_as_of,
        )  # fmt: skip
        expected = oracle.threshold_bars(
            self.view(as_of), self.members(members_as_of), universe, threshold=threshold, sessions=sessions, kind=kind
        )
        self.same(found, expected, f"bars {universe} {threshold} {sessions} {kind} {as_of} {members_as_of}")

    async def breadth(self, universe: str, *, as_of: str | None = None, members_as_of: str | None = None) -> None:
        found = await self.answer(BREADTH, universe=universe, asOf=as_of, membersAsOf=members_as_of)
        expected = oracle.breadth(self.view(as_of), self.members(members_as_of), universe)
        self.same(found, expected, f"breadth {universe} {as_of} {members_as_of}")

    async def group(
        self,
        type: str,
        name: str,
        *,
        weighting: str = "WEIGHT",
        as_of: str | None = None,
        members_as_of: str | None = None,
    ) -> None:
        found = await self.answer(
            GROUP, name=name, type=type, windows=WINDOWS, weighting=weighting, asOf=as_of, membersAsOf=members_as_of
        )
        members = oracle.members_of(self.members(members_as_of), f'{type}/"{name}"')
        expected = oracle.performance(self.view(as_of or members_as_of), members, WINDOWS, weighting)
        self.same(found["performance"], expected, f"group {type}/{name} {weighting} {as_of} {members_as_of}")

    async def universe(
        self, key: str, *, weighting: str = "WEIGHT", as_of: str | None = None, members_as_of: str | None = None
    ) -> None:
        found = await self.answer(
            UNIVERSE, key=key, windows=WINDOWS, weighting=weighting, asOf=as_of, membersAsOf=members_as_of
        )
        members = oracle.members_of(self.members(members_as_of), key)
        expected = oracle.performance(self.view(as_of or members_as_of), members, WINDOWS, weighting)
        self.same(found["performance"], expected, f"universe {key} {weighting} {as_of} {members_as_of}")

    async def stocks(
        self, symbols: list[str], *, as_of: str | None = None, since: str | None = None, to: str | None = None
    ) -> None:
        found = await self.answer(STOCKS, symbols=symbols, windows=WINDOWS, asOf=as_of, since=since, to=to)
        expected = [
            {
                "performance": oracle.stock_performance(self.view(as_of), symbol, WINDOWS),
                "prices": oracle.bars_of_stock(self.prices, symbol, since, to),
            }
            for symbol in symbols
        ]
        self.same(
            dict(zip(symbols, found, strict=True)),
            dict(zip(symbols, expected, strict=True)),
            f"stocks {as_of} {since} {to}",
        )

    def agree(self, at_least: int) -> None:
        """Nothing differed, of no fewer values than expected."""
        compared, self.compared = self.compared, Compared()
        print(f"{compared.count:,} values, the furthest {compared.furthest:.1e} apart")  # noqa: T201 - for pytest -s
        assert compared.differences[:40] == []
        assert compared.count >= at_least


async def copy_prices(connection: "asyncpg.Connection[asyncpg.Record]", prices: pd.DataFrame) -> None:
    """Write prices; NaN as itself, and no volume as none."""
    columns = ("symbol", "date", "open", "high", "low", "close", "volume")
    records = (
        (symbol, day.date(), *rest, None if pd.isna(volume) else int(volume))
        for symbol, day, *rest, volume in prices[[*columns]].itertuples(index=False, name=None)
    )
    await connection.copy_records_to_table("ohlcv_daily", records=records, columns=columns)


# ---- a market made here

LAST = "2024-03-08"
HOLIDAYS = pd.to_datetime(["2023-01-02", "2023-04-07", "2023-07-04", "2023-12-25", "2024-01-01"])
THIN = pd.Timestamp("2023-06-19")
"""A day on which fewer than half have a close."""
HALF = pd.Timestamp("2023-11-24")
"""A day on which half have one, to the stock."""
STOCKS_MADE = [f"S{number:02}" for number in range(58)]
COINS = ["BTC", "DOGE", "ETH"]
NEVER = ["NOP", "NOQ"]
"""Members without any price."""
EXACT = {"S30": (100.0, 95.0), "S31": (20.0, 19.0), "S32": (100.0, 105.0), "S33": (0.3, 0.285), "S34": (7.0, 6.65),
         "S35": (1.1, 1.155), "S36": (100.0, 94.99), "S37": (100.0, 104.99), "S38": (33.4, 36.74), "S39": (0.7, 0.63)}  # fmt: skip
"""The last two closes of some: at and beside 5 % and 10 %."""


def made_prices() -> pd.DataFrame:
    """Random walks in cents, over 320 sessions, with whatever goes wrong in them."""
    chance = np.random.default_rng(20240308)
    days = pd.bdate_range(end=LAST, periods=330).difference(HOLIDAYS)[-321:]
    every_day = pd.date_range(days[0], "2024-03-10")
    parts = []
    for symbol in (*STOCKS_MADE, *COINS):
        dates = every_day if symbol in COINS else days
        closes = np.maximum(
            np.round(chance.uniform(5, 300) * np.exp(np.cumsum(chance.normal(0, 0.02, len(dates)))), 2), 0.5
        )
        opens = np.round(closes * np.exp(chance.normal(0, 0.01, len(dates))), 2)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol, "date": dates, "open": opens, "high": np.maximum(opens, closes) + 0.5,
                    "low": np.minimum(opens, closes) - 0.25, "close": closes,
                    "volume": chance.integers(1, 1_000_000, len(dates)).astype(float),
                }
            )
        )  # fmt: skip
    prices = pd.concat(parts, ignore_index=True)

    def rows(symbol: str, start: int | None = None, stop: int | None = None) -> pd.Series:
        return (prices.symbol == symbol) & prices.date.isin(days[start:stop])

    for symbol, pair in EXACT.items():
        prices.loc[rows(symbol, -2), "close"] = pair
    gone = rows("S50", None, 200) | rows("S51", None, -5)  # listed late
    gone |= rows("S52", 250) | rows("S53", -1)  # ended
    gone |= rows("S54") & (chance.random(len(prices)) < 0.2)  # holes
    gone |= rows("S55", -6, -5) | rows("S55", -22, -21) | rows("S57", 60, 260)
    gone |= rows("S49", -40, -39)  # one hole in what `relative` takes
    gone |= (prices.date == THIN) & ~prices.symbol.isin(STOCKS_MADE[:20])
    prices.loc[rows("S56"), ["open", "close"]] = 12.34  # halted
    for symbol, place, close in (
        ("S20", -1, 0.0), ("S21", -6, np.nan), ("S22", -22, None), ("S23", -64, -1.0), ("S24", -2, np.inf),
        ("S25", -253, 0.0), ("S26", -100, np.nan),
    ):  # fmt: skip
        prices.loc[prices.index[rows(symbol)][place], "close"] = close
    for symbol, value in (("S27", 0.0), ("S28", np.nan), ("S29", None), ("S19", np.inf)):
        prices.loc[prices.index[rows(symbol)][-1], "open"] = value
    prices.loc[prices.index[rows("S18")][-1], ["high", "low", "volume"]] = np.nan
    prices = prices[~gone].reset_index(drop=True)
    # of those with a close on the day before HALF, every second one has one on it
    good = prices[oracle.known(prices.close)]
    before = sorted(good[good.date == HALF - pd.Timedelta(days=1)].symbol)
    if len(before) % 2:
        dropped = before.pop(0)
        prices = prices[~((prices.symbol == dropped) & (prices.date == HALF - pd.Timedelta(days=1)))]
    kept = set(before[::2])
    assert len(before) == 2 * len(kept)
    return prices[(prices.date != HALF) | prices.symbol.isin(kept)].reset_index(drop=True)


def made_groups() -> pd.DataFrame:
    """Memberships with all that weights can be."""
    chance = np.random.default_rng(7)
    rows: list[tuple[str, str, str, float]] = []

    def add(type: str, name: str, symbols: Iterable[str], weights: Iterable[float] | None = None) -> None:
        listed = list(symbols)
        given = [math.nan] * len(listed) if weights is None else list(weights)
        rows.extend((type, name, symbol, weight) for symbol, weight in zip(listed, given, strict=True))

    def some(count: int) -> Any:
        weights = chance.dirichlet(np.full(count, 0.7))
        return np.round(weights, 8)

    everything = [*STOCKS_MADE, *NEVER]
    add("ETF", "ALPHA", [*STOCKS_MADE[8:], *NEVER], some(52))
    weights = some(30)
    weights[::4] = np.nan
    add("ETF", "BETA", STOCKS_MADE[20:50], weights)
    weights = some(25)
    weights[[3, 4]] = 0, -0.05
    add("ETF", "GAMMA", STOCKS_MADE[15:40], weights)
    add("ETF", "DELTA", STOCKS_MADE[5:35])
    add("ETF", "CRYPTO", [*COINS, "S01", "S02"], [0.4, 0.1, 0.3, 0.1, 0.1])
    add("ETF", "FLAT", ["S03", "S04"], [0.25, -0.25])  # a sum of nothing
    add("ETF", "LATE", ["S50", "S51", "NOP"], [0.2, 0.3, 0.5])
    for number, name in enumerate(("energy", "health", "industry", "money", "tech", "utilities")):
        add("SECTOR", name, STOCKS_MADE[number:54:6])
    add("SECTOR", "nowhere", NEVER)
    add("SECTOR", "coins", COINS)
    add("THEME", "alike 1", STOCKS_MADE[10:20])
    add("THEME", "alike 2", STOCKS_MADE[10:20])
    add("THEME", "heavy", STOCKS_MADE[25:45], some(20))
    add("THEME", "halted", ["S56"])
    add("THEME", "holes", ["S49", "S54", "S55", "S57"])
    add("THEME", "one hole", ["S49"], [1.0])
    add("THEME", "without", ["S21", "NOP"], [math.nan, 1.0])  # its one weight is of one without a price
    add("SEGMENT", "odd", STOCKS_MADE[1::2])
    add("SEGMENT", "coins", [*COINS, "S56"])
    add("CUSTOM", "exact", EXACT)
    add("CUSTOM", "energy", STOCKS_MADE[:9])
    add("UNIVERSE", "all", everything)
    add("UNIVERSE", "top20", STOCKS_MADE[:20])
    add("UNIVERSE", "rest", [*STOCKS_MADE[30:], *COINS])
    return pd.DataFrame(rows, columns=["type", "name", "symbol", "weight"])


def before_changes(now: pd.DataFrame) -> pd.DataFrame:
    """What was held earlier: one fund less, other weights and members of another, and no theme without weights."""
    past = now[~((now.name == "GAMMA") | (now.name == "halted"))]
    past = past[~((past.name == "ALPHA") & past.symbol.isin(STOCKS_MADE[40:]))]
    past = past.assign(weight=past.weight.where(past.name != "ALPHA", np.round(past.weight.rank() / 100, 8)))
    added = pd.DataFrame({"type": "SECTOR", "name": "tech", "symbol": ["S54", "S55"], "weight": math.nan})
    return pd.concat([past, added], ignore_index=True)


PAST_DAY, CHANGED = "2023-06-30", "2024-02-01"
BEFORE = "2022-12-01"
"""A day before the first session."""


async def write_groups(
    connection: "asyncpg.Connection[asyncpg.Record]", groups: pd.DataFrame, environment: str = "DEFAULT"
) -> None:
    """Make the groups what they are in the table."""
    await connection.execute("DELETE FROM definition_groups WHERE environment = $1", environment)
    for (kind, name), rows in groups.groupby(["type", "name"]):
        number = await connection.fetchval(
            "INSERT INTO definition_groups (name, type, environment) VALUES ($1, $2, $3) RETURNING id", name, kind, environment
        )  # fmt: skip
        await connection.executemany(
            "INSERT INTO group_memberships (group_id, symbol, weight) VALUES ($1, $2, $3)",
            [(number, symbol, None if math.isnan(weight) else f"{weight:.8f}") for symbol, weight in zip(rows.symbol, rows.weight, strict=True)],
        )  # fmt: skip


@pytest.fixture(scope="module")
async def made(databases: Databases, empty_template: str) -> AsyncIterator[Market]:
    """The market that is made here."""
    prices, now = made_prices(), made_groups()
    past = before_changes(now)
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    await writer.execute("SET stockgraph.effective_day = '2023-01-03'")
    await write_groups(writer, past)
    await writer.execute(f"SET stockgraph.effective_day = '{CHANGED}'")
    await write_groups(writer, now)
    await writer.execute(
        "INSERT INTO definition_groups (name, type, environment) VALUES ('nothing', 'CUSTOM', 'DEFAULT')"
    )
    await write_groups(writer, now[now.symbol.isin(STOCKS_MADE[:30])], "TEST")
    await copy_prices(writer, prices)
    await writer.close()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        yield Market(asker(runtime), prices, now, {PAST_DAY: past})


KEYS = ["ALPHA", "BETA", "CRYPTO", "DELTA", "FLAT", "GAMMA", "LATE", "SECTOR/coins", "nothing", "tech", "all",
        "ALPHA:BETA", "ALPHA&BETA", "all-top20", "(ALPHA:rest)&GAMMA-tech", "BETA:CRYPTO", "nowhere"]  # fmt: skip
DAYS = [None, "2024-03-03", "2030-01-01", "2024-01-03", "2023-12-31", "2023-11-24", "2023-06-19", "2022-12-14", BEFORE]  # fmt: skip


def test_the_made_market_has_320_sessions_no_weekend_and_not_the_thin_day() -> None:
    sessions = oracle.view(made_prices()).closes.index
    assert (len(sessions), sessions[-1], (sessions.day_of_week > 4).sum()) == (320, pd.Timestamp(LAST), 0)
    assert (THIN in sessions, HALF in sessions) == (False, True)


@pytest.mark.parametrize("by", TYPES)
async def test_rotation_of_a_fund_a_union_and_a_list_is_as_defined(made: Market, by: str) -> None:
    for key in KEYS:
        await made.rotation(key, by)
    for key in KEYS[::5]:
        await made.rotation(key, by, weighting="EQUAL")
    made.agree(at_least=3_000)


@pytest.mark.parametrize("day", DAYS)
async def test_rotation_is_as_defined_on_any_day(made: Market, day: str | None) -> None:
    for number, key in enumerate(("ALPHA", "CRYPTO:all")):
        for by in TYPES[number % 2 :: 2]:
            await made.rotation(key, by, as_of=day, windows=WINDOWS[::-1], tail=3)
    made.agree(at_least=10 if day == BEFORE else 500)


async def test_rotation_is_as_defined_of_past_members_against_a_benchmark(made: Market) -> None:
    for by in TYPES:
        await made.rotation("ALPHA", by, members_as_of=PAST_DAY)
    for by in ("ETF", "SECTOR"):
        await made.rotation("all", by, benchmark="BETA", tail=252)
        await made.rotation("ALPHA&BETA", by, benchmark="ALPHA:CRYPTO", tail=1, weighting="EQUAL")
        await made.rotation("ALPHA", by, benchmark="GAMMA", as_of="2024-02-10")
        await made.rotation("all", by, benchmark="ALPHA", as_of="2024-01-02", members_as_of=PAST_DAY, tail=100)
    await made.rotation("all", "THEME", benchmark="nowhere")
    await made.rotation("all", "THEME", benchmark="nothing")
    await made.rotation("all", "THEME", benchmark="SECTOR/coins", tail=200)
    made.agree(at_least=15_000)


async def test_contributions_are_as_defined_over_every_window(made: Market) -> None:
    for over in WINDOWS:
        for key in ("ALPHA", "BETA", "all"):
            await made.rotation(key, "ETF", windows=[over], over=over, top=100)
        await made.rotation("CRYPTO:all", "SECTOR", windows=["DAY"], over=over, top=1)
    made.agree(at_least=20_000)


async def test_stocks_that_contribute_the_same_come_by_symbol(made: Market) -> None:
    found = await made.answer(
        ROTATION, universe="exact", by="CUSTOM", windows=["DAY"], weighting="EQUAL", tail=1, top=5, over="DAY"
    )
    # 0.63 after 0.7 is 10 % down, 94.99 after 100 5.01 %, and 95 after 100, 19 after 20 and 0.285 after 0.3 are 5 %
    [row] = [row for row in found["rows"] if row["group"]["name"] == "exact"]
    assert [each["stock"]["symbol"] for each in row["detractors"]] == ["S39", "S36", "S30", "S31", "S33"]


async def test_bars_are_as_defined_for_every_threshold_and_reach(made: Market) -> None:
    for key in KEYS:
        for kind in ("DIVERGING", "SIMPLE"):
            for sessions in (1, 63, 319, 320):
                await made.bars(key, sessions=sessions, kind=kind)
    for threshold in (0.0, 0.01, 0.03, 0.05, 0.0501, 0.1, 0.15, 0.3, 1.0):
        for key in ("exact", "all", "CRYPTO:exact"):
            await made.bars(key, threshold=threshold)
    for day in DAYS:
        await made.bars("ALPHA:CRYPTO", as_of=day)
        await made.bars("all", as_of=day, sessions=21, threshold=0.1, members_as_of=PAST_DAY)
    made.agree(at_least=2_000)


async def test_breadth_is_as_defined_on_any_day(made: Market) -> None:
    for key in KEYS:
        await made.breadth(key)
    for day in DAYS:
        for key in ("all", "ALPHA:CRYPTO", "halted", "holes"):
            await made.breadth(key, as_of=day)
    # the tenth to twelfth session, and the twentieth: where exponential averages have just begun
    for day in ("2022-12-22", "2022-12-23", "2022-12-26", "2023-01-06", "2023-01-09"):
        await made.breadth("all", as_of=day)
    await made.breadth("ALPHA", members_as_of=PAST_DAY)
    made.agree(at_least=4_000)


async def test_performance_of_groups_is_as_defined(made: Market) -> None:
    for kind, name in [*made.now.groupby(["type", "name"]).groups, ("CUSTOM", "nothing")]:
        for weighting in ("WEIGHT", "EQUAL"):
            await made.group(kind, name, weighting=weighting)
    for kind, name in [*made.now.groupby(["type", "name"]).groups][::6]:
        for day in DAYS[1:]:
            await made.group(kind, name, as_of=day)
    for kind, name in made.past[PAST_DAY].groupby(["type", "name"]).groups:
        await made.group(kind, name, members_as_of=PAST_DAY)
        await made.group(kind, name, members_as_of=PAST_DAY, as_of="2023-12-29")
    made.agree(at_least=10_000)


async def test_performance_of_universes_is_as_defined(made: Market) -> None:
    for key in KEYS:
        for weighting in ("WEIGHT", "EQUAL"):
            await made.universe(key, weighting=weighting)
        for day in DAYS[1::3]:
            await made.universe(key, as_of=day)
    await made.universe("ALPHA", members_as_of=PAST_DAY)
    await made.universe("ALPHA:tech", members_as_of=PAST_DAY, as_of="2023-12-31")
    made.agree(at_least=8_000)


async def test_performance_and_prices_of_stocks_are_as_defined(made: Market) -> None:
    symbols = [*STOCKS_MADE, *COINS, *NEVER]
    await made.stocks(symbols)
    await made.stocks(symbols[1::4], as_of="2023-12-31", to="2023-12-31")
    for day in DAYS[1:]:
        await made.stocks(symbols[16::5], as_of=day, since="2023-12-20", to=day)
    await made.stocks(symbols[17::9], since="2022-01-01", to="2030-01-01")
    made.agree(at_least=90_000)


# ---- a market over years, with coins that trade on the first of January


LONG = [f"L{number}" for number in range(8)]
YEARS_DAYS = [None, "2021-12-31", "2022-01-07", "2023-01-02", "2023-01-03"]  # fmt: skip


@pytest.fixture(scope="module")
async def years(databases: Databases, empty_template: str) -> AsyncIterator[Market]:
    """A small market over nearly five years."""
    chance = np.random.default_rng(5)
    parts = []
    for number, symbol in enumerate((*LONG, *COINS[:2])):
        dates = (
            pd.date_range("2019-08-01", "2024-01-02") if symbol in COINS else pd.bdate_range("2019-08-01", "2024-01-02")
        )
        dates = dates[(dates.month != 1) | (dates.day != 1) | (symbol in COINS)][10 * number :]
        # neither do coins on these two days: the session is of 2022, the day that is asked of 2023
        dates = dates.difference(pd.to_datetime(["2023-01-01", "2023-01-02"]))
        closes = np.round(50 * np.exp(np.cumsum(chance.normal(0, 0.02, len(dates)))), 4)
        parts.append(pd.DataFrame({"symbol": symbol, "date": dates, "close": closes}))
    prices = pd.concat(parts, ignore_index=True)
    prices = prices.assign(open=prices.close, high=prices.close, low=prices.close, volume=math.nan)
    rows = [
        *(("ETF", "LONG", symbol, 0.1) for symbol in LONG),
        *(("THEME", f"part {number}", symbol, math.nan) for number in range(3) for symbol in LONG[number::3]),
        *(("THEME", "coins", symbol, math.nan) for symbol in COINS[:2]),
        *(("CUSTOM", "each", symbol, math.nan) for symbol in (*LONG, *COINS[:2])),
    ]
    now = pd.DataFrame(rows, columns=["type", "name", "symbol", "weight"])
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    await write_groups(writer, now)
    await copy_prices(writer, prices)
    await writer.close()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        yield Market(asker(runtime), prices, now)


@pytest.mark.parametrize("day", YEARS_DAYS)
async def test_figures_of_years_ago_are_as_defined(years: Market, day: str | None) -> None:
    await years.rotation("each", "THEME", as_of=day, tail=252)
    await years.rotation("LONG", "THEME", as_of=day, windows=["YTD", "YEAR"], over="YEAR", top=2)
    for key in ("LONG", "coins", "each"):
        await years.breadth(key, as_of=day)
        await years.universe(key, as_of=day)
        for sessions in (252, 300, 480):
            await years.bars(key, as_of=day, sessions=sessions)
    await years.stocks([*LONG, *COINS[:2]], as_of=day, to=day)
    years.agree(at_least=1_000)


# ---- a real market

FOLDER = os.environ.get("TEST_MARKET")
real_only = pytest.mark.skipif(FOLDER is None, reason="TEST_MARKET names no folder")


def read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, dtype=str)


def read_market(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Prices and memberships, as the files have them."""
    prices = pd.concat([read_csv(path) for path in sorted(folder.glob("ohlcv*.csv.gz"))], ignore_index=True)
    for column in ("open", "high", "low", "close", "volume"):
        prices[column] = pd.to_numeric(prices[column])
    prices["date"] = pd.to_datetime(prices.date)
    parts = []
    for row in read_csv(folder / "groups.csv").itertuples():
        members = read_csv(folder / row.file)
        if row.type == "SECTOR":
            members = members[members.sector == row.description].assign(weight="")
        parts.append(members[["symbol", "weight"]].assign(type=row.type, name=row.name))
    memberships = pd.concat(parts, ignore_index=True)
    memberships["weight"] = pd.to_numeric(memberships.weight).round(8)
    return prices, memberships


@pytest.fixture(scope="module")
async def real(databases: Databases, empty_template: str) -> AsyncIterator[Market]:
    """The market that TEST_MARKET names."""
    assert FOLDER is not None
    prices, memberships = read_market(Path(FOLDER))
    url = await databases.make(empty_template)
    writer = await asyncpg.connect(url)
    reading = read_paths([Path(FOLDER)])
    outcomes = [each async for each in load_groups(writer, reading.groups, environment="DEFAULT")]
    assert [each for each in outcomes if isinstance(each, GroupRefused)] == []
    await copy_prices(writer, prices)
    await writer.close()
    async with open_runtime(Settings(database_url=url)) as runtime:
        await runtime.generations.confirmed()
        yield Market(asker(runtime), prices, memberships)


REAL_DAYS = [None, "2023-11-15", "2024-02-10"]


@real_only
@pytest.mark.parametrize("day", REAL_DAYS)
@pytest.mark.parametrize(
    ("universe", "by"),
    [("SPY", "SECTOR"), ("VTI", "SECTOR"), ("VTI", "ETF"), ("QQQ:dow30", "THEME"), ("nasdaq100", "ETF")],
)
async def test_rotation_of_the_real_market_is_as_defined(real: Market, universe: str, by: str, day: str | None) -> None:
    await real.rotation(universe, by, as_of=day, tail=63, top=20)
    await real.rotation(
        universe, by, as_of=day, windows=["MONTH", "WEEK"], weighting="EQUAL", over="MONTH", benchmark="SPY"
    )
    real.agree(at_least=5_000)


@real_only
@pytest.mark.parametrize("day", REAL_DAYS)
async def test_bars_breadth_and_performance_of_the_real_market_are_as_defined(real: Market, day: str | None) -> None:
    for sessions in (1, 5, 21, 63):
        for threshold in (0.02, 0.05, 0.1):
            for kind in ("DIVERGING", "SIMPLE"):
                await real.bars("QQQ:SPY", sessions=sessions, threshold=threshold, kind=kind, as_of=day)
                await real.bars("VTI", sessions=sessions, threshold=threshold, kind=kind, as_of=day)
    for universe in ("SPY", "VTI", "dow30", "IWM-sp500"):
        await real.breadth(universe, as_of=day)
    for kind, name in real.now.groupby(["type", "name"]).groups:
        await real.group(kind, name, as_of=day)
        await real.group(kind, name, as_of=day, weighting="EQUAL")
    await real.stocks(sorted(set(real.now.symbol))[::97], as_of=day, since="2023-12-01", to=day)
    real.agree(at_least=10_000)


@real_only
async def test_252_sessions_of_the_real_market_measure_no_year_but_the_average_of_200(real: Market) -> None:
    assert len(oracle.view(real.prices).closes) == 252
    found = await real.answer(BREADTH, universe="SPY")
    measured = {metric["metric"]: metric["measured"] for metric in found["metrics"]}
    assert measured["YEAR"] == 0
    assert measured["SMA200"] > 490
