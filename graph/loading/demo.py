"""Demo data: the American market of one day, from the facts that the build read (hatch_demo.py).

The facts contain no weights, so the only weighted funds are those whose index is equally weighted by its rules. Every
stock counts as one, whereas S&P divides a company's weight among its share classes: the weights are nominal, and the
descriptions say so.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import orjson

from graph.errors import StockgraphError
from graph.loading.holdings import GroupHoldings, Holding, MembershipPeriod
from graph.model import GroupType

INDEX_NAMES = {
    "sp500": "S&P 500",
    "sp400": "S&P MidCap 400",
    "sp600": "S&P SmallCap 600",
    "nasdaq100": "Nasdaq-100",
    "dow30": "Dow Jones Industrial Average",
}
"""Full names of the universes."""


class Fund(NamedTuple):
    """An equally weighted fund."""

    symbol: str
    name: str
    universe: str
    sector: str | None = None
    """Sector of the universe that the fund holds; None means all of it."""
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
"""Popular funds that hold the stocks of an index, in weights that neither package has."""

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
"""GICS sub-industries of each theme."""

FACTS = Path(__file__).with_name("demo.json")
"""File that the build makes: sources with licences, day, stocks, and the membership periods of each index."""


def demo_groups() -> list[GroupHoldings]:
    """Return the universes, sectors, funds and themes of the demo; members have names and industries.

    The universes have their membership periods.
    """
    if not FACTS.exists():
        raise StockgraphError("The demo's facts are not built; `pip install -e .` in the source folder makes them.")
    facts = orjson.loads(FACTS.read_bytes())
    day = date.fromisoformat(facts["day"])
    stocks = {
        symbol: Holding(symbol, name=name, industry=industry) for symbol, (name, industry, _) in facts["stocks"].items()
    }
    sector_of = {symbol: sector for symbol, (_, _, sector) in facts["stocks"].items()}
    past = {
        universe: tuple(
            MembershipPeriod(symbol, *(each and date.fromisoformat(each) for each in days)) for symbol, *days in periods
        )
        for universe, periods in facts["universes"].items()
    }
    universes = {
        universe: [period.symbol for period in periods if period.valid_to is None] for universe, periods in past.items()
    }

    def group(group_type: GroupType, name: str, symbols: Iterable[str], description: str) -> GroupHoldings:
        holdings = tuple(stocks[symbol] for symbol in sorted(symbols))
        # marked as demo, so that a load of the same group replaces it
        return GroupHoldings(group_type, name, holdings, description, day, metadata={"stockgraph": "demo"})

    groups = []
    for universe, symbols in universes.items():
        today = f"The {INDEX_NAMES[universe]}: its {len(symbols)} stocks as of {day}."
        groups.append(replace(group(GroupType.UNIVERSE, universe, symbols, today), past=past[universe]))
    groups += [
        group(GroupType.SECTOR, sector.lower().replace(" ", "_"), (s for s in stocks if sector_of[s] == sector), sector)
        for sector in sorted(filter(None, set(sector_of.values())))
    ]
    for fund in FUNDS:
        symbols = [s for s in universes[fund.universe] if fund.sector in (None, sector_of[s])]
        among = f"{len(symbols)} {fund.sector} stocks" if fund.sector else f"{len(symbols)} stocks"
        unweighted = group(
            GroupType.ETF,
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
            GroupType.ETF,
            symbol,
            universes[universe],
            f"{name}: the stocks of the index that it tracks, the {INDEX_NAMES[universe]}, as of {day}. Their weights "
            "are not known here; `stockgraph load` of the fund's own file brings them.",
        )
        for symbol, (name, universe) in TRACKERS.items()
    ]
    groups += [
        group(
            GroupType.THEME,
            theme,
            (s for s in stocks if stocks[s].industry in industries),
            f"S&P 1500 stocks by GICS sub-industry: {'; '.join(industries)}. As of {day}.",
        )
        for theme, industries in THEMES.items()
    ]
    return groups
