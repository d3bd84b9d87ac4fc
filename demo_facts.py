"""The facts of the demo data: who was in the American indices on which day, and in which GICS sector and industry.

They come out of the packages pitindex and index-constitution, which carry their data, gathered from Wikipedia, in their
wheels: nothing is fetched. The build of stockgraph reads them once, and puts what it needs into
`graph/loading/demo.json`, so that neither they nor the pandas that they read with are installed with stockgraph.

The facts are of the last day that pitindex covers. index-constitution calls a company by its newest ticker whatever the
day (SKYD what was PSKY then), so the S&P 500 is taken from pitindex; in the Nasdaq-100 and the Dow the two write every
stock of that day alike. Of each index it is known who was a member on any day since `COMPLETE_SINCE`, under today's
tickers as far as the packages tell them. docs/index-history.md says which package is believed of what, and how the two
differ.
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

# what pitindex shows of the past is a table for each day, which takes seconds
from pitindex import _loader

COMPLETE_SINCE = {
    "sp500": date(2004, 12, 30),
    "sp400": date(2020, 12, 29),
    "sp600": date(2021, 3, 31),
    "nasdaq100": date(2019, 3, 19),
    "dow30": date(2003, 1, 27),
}
"""The first day whose members are known, by universe; before it the packages have too many, too few or others."""

OF_PITINDEX = ("sp500", "sp400", "sp600")
"""The universes whose past is out of pitindex; that of the others is out of index-constitution."""

SHADOWED = (
    ("SBC", date(2004, 12, 30), date(2005, 11, 21)),  # T
    ("IR", date(2004, 12, 30), date(2008, 6, 6)),  # TT
    ("TYC", date(2004, 12, 30), date(2009, 3, 17)),  # JCI
    ("ACT", date(2004, 12, 30), date(2015, 3, 23)),  # AGN
    ("ACE", date(2010, 7, 15), date(2016, 1, 19)),  # CB
    ("TYC", date(2010, 8, 27), date(2016, 9, 6)),  # JCI
)
"""Members of the S&P 500 that pitindex has under a ticker they took later, and that another member had meanwhile."""


_RENAMED = re.compile(r"rename → (\S+):")

_Spell = tuple[str, date, date]
"""A symbol, the day it joined, the day it left: date.max where it has not."""
_Rename = tuple[date, str, str]
"""The day of it, the old ticker, the new one."""


def read_facts() -> dict[str, Any]:
    """Give all facts as JSON can hold them: the sources, the day, the stocks, and the spells of each index."""
    with warnings.catch_warnings():
        # that a newer release may exist is no news to someone who builds from a pinned one
        warnings.simplefilter("ignore", pitindex.StaleDataWarning)
        day = pitindex.PitIndex("sp1500").coverage_end
        table = pitindex.get_constituents(day, "sp1500")
    # A sub-industry lies in one sector. Where the source puts one of its firms into another (a bank into Health Care),
    # the sector of most of its firms is meant: the commonest comes last, and stays.
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
        "universes": {universe: _past(universe, day, renames) for universe in COMPLETE_SINCE},
    }


def _source(package: str) -> dict[str, str]:
    """Name a package, with the licence that whoever passes its data on has to pass on too."""
    installed = distribution(package)
    (licence,) = (file for file in installed.files or () if file.name == "LICENSE")
    return {
        "package": f"{installed.name} {installed.version}",
        "gathered_from": "Wikipedia, whose texts are licensed under CC BY-SA 4.0",
        "licence": licence.read_text(),
    }


def _past(universe: str, day: date, renames: Sequence[_Rename]) -> list[tuple[str, str, str | None]]:
    """Give the spells of a universe, by symbol and day; those that meet, such as around a change of ticker, are one."""
    found = [
        (_newest(symbol, joined, renames), joined, left)
        for symbol, joined, left in (_changes(universe) if universe in OF_PITINDEX else _history(universe, day))
    ]
    if universe == "sp500":
        found += SHADOWED
    spells: dict[str, list[list[date]]] = {}
    for symbol, joined, left in sorted(found):
        known = spells.setdefault(symbol, [])
        if known and joined <= known[-1][1]:
            known[-1][1] = max(left, known[-1][1])
        else:
            known.append([joined, left])
    first = COMPLETE_SINCE[universe]
    return [
        (symbol, str(max(joined, first)), str(left) if left <= day else None)
        for symbol, known in spells.items()
        for joined, left in known
        if left > first
    ]


def _changes(universe: str) -> Iterator[_Spell]:
    """Yield the spells that pitindex knows."""
    first, seed = _loader.load_seed(universe)
    since = dict.fromkeys(seed, first)
    for event in _loader.load_events(universe):
        if event.action == "added":
            since[event.ticker] = event.date
        else:
            yield event.ticker, since.pop(event.ticker), event.date
    for symbol, joined in since.items():
        yield symbol, joined, date.max


def _history(universe: str, day: date) -> Iterator[_Spell]:
    """Yield the spells that index-constitution knows; it goes on after the day."""
    midnight = datetime.combine(day, time())
    table = index_constitution.history(universe)[["symbol", "opt-in", "opt-out"]]
    for symbol, joined, left in table.itertuples(index=False, name=None):
        if joined <= midnight:
            yield symbol, joined.date(), left.date() if left <= midnight else date.max


def _renames(day: date) -> list[_Rename]:
    """Give the changes of tickers up to a day, in their order."""
    table = index_constitution.events(region="us")
    table = table.loc[table["event_type"] == "ticker_change", ["event_date", "old_symbol", "new_symbol"]]
    found = {(changed.date(), old, new) for changed, old, new in table.itertuples(index=False, name=None)}
    for universe in OF_PITINDEX:
        for event in _loader.load_events(universe):
            if renamed := _RENAMED.match(event.reason or ""):
                found.add((event.date, event.ticker, renamed[1]))
    return sorted(rename for rename in found if rename[0] <= day)


def _newest(symbol: str, joined: date, renames: Sequence[_Rename]) -> str:
    """Give the newest ticker of a company by the one that it had when it joined."""
    for changed, old, new in renames:
        if symbol == old and joined < changed:
            symbol = new
    return symbol
