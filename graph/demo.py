"""The demo data: the American market of one day, out of the packages pitindex and index-constitution.

Both carry their data, gathered from Wikipedia, in their wheels: nothing is fetched. The day is the last that pitindex
covers. index-constitution calls a company by its newest ticker whatever the day (SKYD what was PSKY then), so the S&P
500 is taken from pitindex; in the Nasdaq-100 and the Dow the two write every stock of that day alike.

Neither has weights, so the weighted funds are those whose index is equally weighted by its rules. Every stock counts as
one, while S&P's indices divide a company's share among its share classes: nominal weights, and the descriptions say so.

Of the universes it is known who was a member on any day since `COMPLETE_SINCE`, under today's tickers as far as the
packages tell them. docs/index-history.md says which package is believed of what, and how the two differ.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import NamedTuple

import index_constitution
import pitindex

# what pitindex shows of the past is a table for each day, which takes seconds
from pitindex import _loader

from graph.holdings import GroupHoldings, Holding, Spell

INDEX_NAMES = {
    "sp500": "S&P 500",
    "sp400": "S&P MidCap 400",
    "sp600": "S&P SmallCap 600",
    "nasdaq100": "Nasdaq-100",
    "dow30": "Dow Jones Industrial Average",
}
"""The full names of the universes."""

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


class Fund(NamedTuple):
    """An equally weighted fund."""

    symbol: str
    name: str
    universe: str
    sector: str | None = None
    """The part of the universe that the fund holds; None is all of it."""
    remark: str = ""


_FILLED_UP = " To a sector of fewer than 22 companies its index adds some of the S&P MidCap 400; they are not here."
FUNDS = (
    Fund("RSP", "Invesco S&P 500 Equal Weight ETF", "sp500"),
    Fund(
        "EWMC",
        "Invesco S&P MidCap 400 Equal Weight ETF",
        "sp400",
        remark=" The fund left this index in August 2023 and has been GRPM since.",
    ),
    Fund(
        "EWSC",
        "Invesco S&P SmallCap 600 Equal Weight ETF",
        "sp600",
        remark=" The fund itself closed in March 2023.",
    ),
    Fund("QQQE", "Direxion NASDAQ-100 Equal Weighted Index Shares", "nasdaq100"),
    Fund("EDOW", "First Trust Dow 30 Equal Weight ETF", "dow30"),
    Fund("RSPT", "Invesco S&P 500 Equal Weight Technology ETF", "sp500", "Information Technology"),
    Fund("RSPF", "Invesco S&P 500 Equal Weight Financials ETF", "sp500", "Financials"),
    Fund("RSPH", "Invesco S&P 500 Equal Weight Health Care ETF", "sp500", "Health Care"),
    Fund("RSPD", "Invesco S&P 500 Equal Weight Consumer Discretionary ETF", "sp500", "Consumer Discretionary"),
    Fund("RSPS", "Invesco S&P 500 Equal Weight Consumer Staples ETF", "sp500", "Consumer Staples"),
    Fund("RSPG", "Invesco S&P 500 Equal Weight Energy ETF", "sp500", "Energy", _FILLED_UP),
    Fund("RSPN", "Invesco S&P 500 Equal Weight Industrials ETF", "sp500", "Industrials"),
    Fund("RSPM", "Invesco S&P 500 Equal Weight Materials ETF", "sp500", "Materials"),
    Fund("RSPR", "Invesco S&P 500 Equal Weight Real Estate ETF", "sp500", "Real Estate"),
    Fund("RSPU", "Invesco S&P 500 Equal Weight Utilities ETF", "sp500", "Utilities"),
    Fund(
        "RSPC",
        "Invesco S&P 500 Equal Weight Communication Services ETF",
        "sp500",
        "Communication Services",
        _FILLED_UP,
    ),
)

TRACKERS = {
    "SPY": ("SPDR S&P 500 ETF Trust", "sp500"),
    "QQQ": ("Invesco QQQ Trust", "nasdaq100"),
    "DIA": ("SPDR Dow Jones Industrial Average ETF Trust", "dow30"),
}
"""Funds that everybody asks for. They hold the stocks of an index, in weights that neither package knows."""

THEMES = {
    "aerospace_defense": ("Aerospace & Defense",),
    "airlines": ("Passenger Airlines",),
    "automobiles": ("Automobile Manufacturers", "Automotive Parts & Equipment"),
    "biotechnology": ("Biotechnology",),
    "casinos": ("Casinos & Gaming",),
    "electric_utilities": ("Electric Utilities",),
    "homebuilders": ("Homebuilding",),
    "hotels_cruises": ("Hotels, Resorts & Cruise Lines",),
    "insurance": (
        "Life & Health Insurance",
        "Multi-line Insurance",
        "Property & Casualty Insurance",
        "Reinsurance",
    ),
    "managed_care": ("Managed Health Care",),
    "medical_devices": ("Health Care Equipment", "Health Care Supplies"),
    "metals_mining": ("Aluminum", "Copper", "Diversified Metals & Mining", "Gold", "Silver", "Steel"),
    "oil_exploration": ("Oil & Gas Exploration & Production",),
    "oil_services": ("Oil & Gas Drilling", "Oil & Gas Equipment & Services"),
    "payments": ("Transaction & Payment Processing Services",),
    "pharmaceuticals": ("Pharmaceuticals",),
    "regional_banks": ("Regional Banks",),
    "restaurants": ("Restaurants",),
    "semiconductors": ("Semiconductor Materials & Equipment", "Semiconductors"),
    "software": ("Application Software", "Systems Software"),
}
"""The GICS sub-industries that each theme is drawn from."""

_RENAMED = re.compile(r"rename → (\S+):")

_Spell = tuple[str, date, date]
"""A symbol, the day it joined, the day it left: date.max where it has not."""
_Rename = tuple[date, str, str]
"""The day of it, the old ticker, the new one."""


def demo_groups() -> list[GroupHoldings]:
    """Give the universes, sectors, funds and themes of the demo, each member with its company's name and industry.

    The universes have their past.
    """
    with warnings.catch_warnings():
        # that a newer release may exist is no news to someone who asked for a demo
        warnings.simplefilter("ignore", pitindex.StaleDataWarning)
        day = pitindex.PitIndex("sp1500").coverage_end
        table = pitindex.get_constituents(day, "sp1500")
    # A sub-industry lies in one sector. Where the source puts one of its firms into another (a bank into Health Care),
    # the sector of most of its firms is meant: the commonest comes last, and stays.
    pairs = Counter(zip(table["gics_sub_industry"], table["gics_sector"], strict=True)).most_common()
    sectors = {industry: sector for (industry, sector), _ in reversed(pairs)}

    stocks: dict[str, Holding] = {}
    sector_of: dict[str, str] = {}
    universes: dict[str, list[str]] = {universe: [] for universe in INDEX_NAMES}
    columns = ["ticker", "name", "gics_sub_industry", "index"]
    for symbol, name, industry, universe in table[columns].itertuples(index=False, name=None):
        stocks[symbol] = Holding(symbol, name=name, industry=industry)
        sector_of[symbol] = sectors[industry]
        universes[universe].append(symbol)
    for universe in ("nasdaq100", "dow30"):
        table = index_constitution.constituents_at(universe, day)
        for symbol, name in table[["symbol", "name"]].itertuples(index=False, name=None):
            stocks.setdefault(symbol, Holding(symbol, name=name))
            universes[universe].append(symbol)

    def group(kind: str, name: str, symbols: Iterable[str], description: str) -> GroupHoldings:
        holdings = tuple(stocks[symbol] for symbol in sorted(symbols))
        # told as a demo, so that whatever is loaded takes its place
        return GroupHoldings(kind, name, holdings, description, day, metadata={"stockgraph": "demo"})

    renames = _renames(day)
    groups = []
    for universe, symbols in universes.items():
        today = f"The {INDEX_NAMES[universe]}: its {len(symbols)} stocks as of {day}."
        groups.append(replace(group("UNIVERSE", universe, symbols, today), past=_past(universe, day, renames)))
    groups += [
        group("SECTOR", sector.lower().replace(" ", "_"), (s for s in stocks if sector_of.get(s) == sector), sector)
        for sector in sorted(set(sectors.values()))
    ]
    for fund in FUNDS:
        symbols = [s for s in universes[fund.universe] if fund.sector in (None, sector_of.get(s))]
        among = f"{len(symbols)} {fund.sector} stocks" if fund.sector else f"{len(symbols)} stocks"
        unweighted = group(
            "ETF",
            fund.symbol,
            symbols,
            f"{fund.name}: its index weighs companies equally; the nominal weight here is 1/{len(symbols)} for each of "
            f"the {among} in the {INDEX_NAMES[fund.universe]} as of {day}, not the fund's published holdings."
            f"{fund.remark}",
        )
        weight = round(Decimal(1) / len(symbols), 8)
        groups.append(replace(unweighted, holdings=tuple(replace(h, weight=weight) for h in unweighted.holdings)))
    groups += [
        group(
            "ETF",
            symbol,
            universes[universe],
            f"{name}: the stocks of the index that it tracks, the {INDEX_NAMES[universe]}, as of {day}. Their weights "
            "are not known here; `stockgraph load` of the fund's own file brings them.",
        )
        for symbol, (name, universe) in TRACKERS.items()
    ]
    groups += [
        group(
            "THEME",
            theme,
            (s for s in stocks if stocks[s].industry in industries),
            f"S&P 1500 stocks by GICS sub-industry: {'; '.join(industries)}. As of {day}.",
        )
        for theme, industries in THEMES.items()
    ]
    return groups


def _past(universe: str, day: date, renames: Sequence[_Rename]) -> tuple[Spell, ...]:
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
    return tuple(
        Spell(symbol, max(joined, first), left if left <= day else None)
        for symbol, known in spells.items()
        for joined, left in known
        if left > first
    )


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
