"""Facts of the demo data: the members of American indices on each day, and their GICS sectors and industries.

They come from the packages pitindex and index-constitution, whose wheels contain their data, gathered from Wikipedia:
nothing is downloaded. The build of stockgraph reads them once and writes `graph/loading/demo.json`, so that neither the
packages nor pandas are installed with stockgraph.

The facts are of the last day that pitindex covers. index-constitution names a company by its newest ticker on any day
(SKYD for the former PSKY), so the S&P 500 is taken from pitindex; in the Nasdaq-100 and the Dow, both have the same
tickers on that day. The members of each index are known for every day since `COMPLETE_SINCE`, under today's tickers as
far as the packages have them. docs/index-history.md describes which package is used for what, and how the two differ.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from importlib.metadata import distribution
from typing import Any

import index_constitution
import pitindex

# the public API has one table per day, which takes seconds to read
from pitindex import _loader

COMPLETE_SINCE = {
    "sp500": date(2004, 12, 30),
    "sp400": date(2020, 12, 29),
    "sp600": date(2021, 3, 31),
    "nasdaq100": date(2019, 3, 19),
    "dow30": date(2003, 1, 27),
}
"""First day with correct members, by universe; before it, the packages have too many, too few or others."""

OF_PITINDEX = ("sp500", "sp400", "sp600")
"""Universes whose past comes from pitindex; that of the others comes from index-constitution."""

SHADOWED = (
    ("SBC", date(2004, 12, 30), date(2005, 11, 21)),  # T
    ("IR", date(2004, 12, 30), date(2008, 6, 6)),  # TT
    ("TYC", date(2004, 12, 30), date(2009, 3, 17)),  # JCI
    ("ACT", date(2004, 12, 30), date(2015, 3, 23)),  # AGN
    ("ACE", date(2010, 7, 15), date(2016, 1, 19)),  # CB
    ("TYC", date(2010, 8, 27), date(2016, 9, 6)),  # JCI
)
"""Members of the S&P 500 that pitindex has under a later ticker, which another member had at the time."""


_RENAMED = re.compile(r"rename → (\S+):")

_Period = tuple[str, date, date]
"""A symbol, the day it joined, and the day it left: date.max if it has not."""
_Rename = tuple[date, str, str]
"""The day of a change of ticker, the old ticker, and the new one."""


def read_facts() -> dict[str, Any]:
    """Return all facts as JSON values: the sources, the day, the stocks, and the membership periods of each index."""
    with warnings.catch_warnings():
        # the releases are pinned, so a warning of newer ones is irrelevant
        warnings.simplefilter("ignore", pitindex.StaleDataWarning)
        day = pitindex.PitIndex("sp1500").coverage_end
        table = pitindex.get_constituents(day, "sp1500")
    # A sub-industry lies in one sector. If the source puts one of its firms into another (a bank into Health Care), the
    # sector of most of its firms is right: the most common pair comes last and so overwrites the others.
    pairs = Counter(zip(table["gics_sub_industry"], table["gics_sector"], strict=True)).most_common()
    sectors = {industry: sector for (industry, sector), _ in reversed(pairs)}
    columns = ["ticker", "name", "gics_sub_industry"]
    stocks = {
        symbol: [name, industry, sectors[industry]]
        for symbol, name, industry in table[columns].itertuples(index=False, name=None)
    }
    for universe in ("nasdaq100", "dow30"):
        table = index_constitution.constituents_at(universe, day)
        for symbol, name in table[["symbol", "name"]].itertuples(index=False, name=None):
            stocks.setdefault(symbol, [name, None, None])
    renames = _renames(day)
    return {
        "sources": [_source(pitindex.__name__), _source(index_constitution.__name__)],
        "day": str(day),
        "stocks": {symbol: stocks[symbol] for symbol in sorted(stocks)},
        "universes": {universe: _membership_periods(universe, day, renames) for universe in COMPLETE_SINCE},
    }


def _source(package: str) -> dict[str, str]:
    """Describe a package, with the licence that must accompany its data."""
    installed = distribution(package)
    (licence,) = (file for file in installed.files or () if file.name == "LICENSE")
    return {
        "package": f"{installed.name} {installed.version}",
        "gathered_from": "Wikipedia, whose texts are licensed under CC BY-SA 4.0",
        "licence": licence.read_text(),
    }


def _membership_periods(universe: str, day: date, renames: Sequence[_Rename]) -> list[tuple[str, str, str | None]]:
    """Return the membership periods of a universe, by symbol and day; adjacent ones of a symbol are merged."""
    found = [
        (_newest_ticker(symbol, joined, renames), joined, left)
        for symbol, joined, left in (
            _pitindex_periods(universe) if universe in OF_PITINDEX else _constitution_periods(universe, day)
        )
    ]
    if universe == "sp500":
        found += SHADOWED
    periods: dict[str, list[list[date]]] = {}
    for symbol, joined, left in sorted(found):
        known = periods.setdefault(symbol, [])
        if known and joined <= known[-1][1]:
            known[-1][1] = max(left, known[-1][1])
        else:
            known.append([joined, left])
    first = COMPLETE_SINCE[universe]
    return [
        (symbol, str(max(joined, first)), str(left) if left <= day else None)
        for symbol, known in periods.items()
        for joined, left in known
        if left > first
    ]


def _pitindex_periods(universe: str) -> Iterator[_Period]:
    """Yield the membership periods of pitindex."""
    first, seed = _loader.load_seed(universe)
    since = dict.fromkeys(seed, first)
    for event in _loader.load_events(universe):
        if event.action == "added":
            since[event.ticker] = event.date
        else:
            yield event.ticker, since.pop(event.ticker), event.date
    for symbol, joined in since.items():
        yield symbol, joined, date.max


def _constitution_periods(universe: str, day: date) -> Iterator[_Period]:
    """Yield the membership periods of index-constitution up to a day."""
    midnight = datetime.combine(day, time())
    table = index_constitution.history(universe)[["symbol", "opt-in", "opt-out"]]
    for symbol, joined, left in table.itertuples(index=False, name=None):
        if joined <= midnight:
            yield symbol, joined.date(), left.date() if left <= midnight else date.max


def _renames(day: date) -> list[_Rename]:
    """Return the changes of tickers up to a day, in their order."""
    table = index_constitution.events(region="us")
    table = table.loc[table["event_type"] == "ticker_change", ["event_date", "old_symbol", "new_symbol"]]
    found = {(changed.date(), old, new) for changed, old, new in table.itertuples(index=False, name=None)}
    for universe in OF_PITINDEX:
        for event in _loader.load_events(universe):
            if renamed := _RENAMED.match(event.reason or ""):
                found.add((event.date, event.ticker, renamed[1]))
    return sorted(rename for rename in found if rename[0] <= day)


def _newest_ticker(symbol: str, joined: date, renames: Sequence[_Rename]) -> str:
    """Return the newest ticker of a company from the one that it had when it joined."""
    for changed, old, new in renames:
        if symbol == old and joined < changed:
            symbol = new
    return symbol
