import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from itertools import pairwise

import asyncpg
import index_constitution
import pitindex
import pytest
from conftest import ROOT

from graph.loading.checks import Finding, check
from graph.loading.demo import FACTS, FUNDS, INDEX_NAMES, THEMES, TRACKERS, demo_groups
from graph.loading.group_writer import GroupRefused, load_groups, replace_group
from graph.loading.holdings import GroupHoldings, Holding, MembershipPeriod
from hatch_demo import COMPLETE_SINCE, SHADOWED, read_facts


@pytest.fixture(scope="module")
def groups() -> list[GroupHoldings]:
    return demo_groups()


@pytest.fixture(scope="module")
def members(groups: list[GroupHoldings]) -> dict[str, list[str]]:
    return {f"{group.type}/{group.name}": [holding.symbol for holding in group.holdings] for group in groups}


DAY = date(2026, 7, 13)
HISTORY = (ROOT / "docs" / "index-history.md").read_text()


@pytest.fixture(scope="module")
def past(groups: list[GroupHoldings]) -> dict[str, tuple[MembershipPeriod, ...]]:
    return {group.name: group.past for group in groups if group.past}


def at(spells: tuple[MembershipPeriod, ...], day: date) -> set[str]:
    return {symbol for symbol, start, end in spells if start <= day and (end is None or day < end)}


def change_days(*pasts: tuple[MembershipPeriod, ...]) -> list[date]:
    """Give each day on which a member joined or left, and the day after the last one that is known."""
    ends = {day for spells in pasts for _, start, end in spells for day in (start, end) if day}
    return sorted(ends | {DAY + timedelta(1)})


def test_the_facts_of_the_build_are_those_of_the_packages_with_their_licences() -> None:
    built = json.loads(FACTS.read_text())
    assert built.pop("made_from")
    assert built == json.loads(json.dumps(read_facts()))
    assert [source["package"] for source in built["sources"]] == ["pitindex 0.2.1", "index-constitution 1.0.1"]
    assert all(source["licence"].startswith("MIT License") for source in built["sources"])


def test_the_groups_and_their_sizes(members: dict[str, list[str]]) -> None:
    assert {name: len(symbols) for name, symbols in members.items()} == {
        "UNIVERSE/sp500": 503,
        "UNIVERSE/sp400": 400,
        "UNIVERSE/sp600": 602,
        "UNIVERSE/nasdaq100": 103,
        "UNIVERSE/dow30": 30,
        "SECTOR/communication_services": 50,
        "SECTOR/consumer_discretionary": 195,
        "SECTOR/consumer_staples": 75,
        "SECTOR/energy": 69,
        "SECTOR/financials": 263,
        "SECTOR/health_care": 165,
        "SECTOR/industrials": 258,
        "SECTOR/information_technology": 191,
        "SECTOR/materials": 77,
        "SECTOR/real_estate": 102,
        "SECTOR/utilities": 60,
        "ETF/RSP": 503,
        "ETF/EWMC": 400,
        "ETF/EWSC": 602,
        "ETF/QQQE": 103,
        "ETF/EDOW": 30,
        "ETF/RSPT": 74,
        "ETF/RSPF": 76,
        "ETF/RSPH": 59,
        "ETF/RSPD": 47,
        "ETF/RSPS": 34,
        "ETF/RSPG": 21,
        "ETF/RSPN": 81,
        "ETF/RSPM": 26,
        "ETF/RSPR": 31,
        "ETF/RSPU": 31,
        "ETF/RSPC": 23,
        "ETF/SPY": 503,
        "ETF/QQQ": 103,
        "ETF/DIA": 30,
        "THEME/aerospace_defense": 25,
        "THEME/airlines": 8,
        "THEME/automobiles": 20,
        "THEME/biotechnology": 30,
        "THEME/casinos": 10,
        "THEME/electric_utilities": 22,
        "THEME/homebuilders": 17,
        "THEME/hotels_cruises": 17,
        "THEME/insurance": 50,
        "THEME/managed_care": 6,
        "THEME/medical_devices": 47,
        "THEME/metals_mining": 19,
        "THEME/oil_exploration": 25,
        "THEME/oil_services": 21,
        "THEME/payments": 18,
        "THEME/pharmaceuticals": 26,
        "THEME/regional_banks": 91,
        "THEME/restaurants": 17,
        "THEME/semiconductors": 53,
        "THEME/software": 54,
    }


def test_small_groups_whole(members: dict[str, list[str]]) -> None:
    names = ("UNIVERSE/dow30", "THEME/airlines", "THEME/managed_care", "ETF/RSPG")
    assert {name: " ".join(members[name]) for name in names} == {
        "UNIVERSE/dow30": "AAPL AMGN AMZN AXP BA CAT CRM CSCO CVX DIS GOOGL GS HD HON IBM JNJ JPM KO MCD MMM MRK MSFT"
        " NKE NVDA PG SHW TRV UNH V WMT",
        "THEME/airlines": "AAL ALGT ALK DAL JBLU LUV SKYW UAL",
        "THEME/managed_care": "CNC ELV HQY HUM MOH UNH",
        "ETF/RSPG": "APA BKR COP CVX DVN EOG EQT EXE FANG HAL KMI MPC OKE OXY PSX SLB TPL TRGP VLO WMB XOM",
    }


def test_symbols_are_well_formed_sorted_and_single(members: dict[str, list[str]]) -> None:
    symbols = {symbol for group in members.values() for symbol in group}
    assert len(symbols) == 1520
    assert [symbol for symbol in symbols if not re.fullmatch(r"[A-Z]{1,5}(\.[AB])?", symbol)] == []
    assert sorted(symbol for symbol in symbols if "." in symbol) == ["BF.B", "BRK.B", "CWEN.A", "MOG.A"]
    assert {name: group for name, group in members.items() if group != sorted(set(group))} == {}


def test_a_stock_is_the_same_in_every_group(groups: list[GroupHoldings]) -> None:
    facts = {(holding.symbol, holding.name, holding.industry) for group in groups for holding in group.holdings}
    assert len(facts) == 1520
    assert [fact for fact in facts if not isinstance(fact[1], str) or not fact[1].strip()] == []
    by_symbol = {symbol: (name, industry) for symbol, name, industry in facts}
    assert {symbol: by_symbol[symbol] for symbol in ("AAPL", "BRK.B", "ALK", "ASML", "HFWA")} == {
        "AAPL": ("Apple Inc.", "Technology Hardware, Storage & Peripherals"),
        "BRK.B": ("Berkshire Hathaway", "Multi-Sector Holdings"),
        "ALK": ("Alaska Air Group", "Passenger Airlines"),
        "ASML": ("ASML Holding N.V. New York Registry Shares", None),
        "HFWA": ("Heritage Financial Corporation", "Regional Banks"),
    }


def test_sectors_share_the_sp1500_out(members: dict[str, list[str]]) -> None:
    sectored = [symbol for name, group in members.items() if name.startswith("SECTOR/") for symbol in group]
    assert sorted(sectored) == sorted(members["UNIVERSE/sp500"] + members["UNIVERSE/sp400"] + members["UNIVERSE/sp600"])
    assert len(set(sectored)) == len(sectored) == 1505
    beyond = sorted(set(members["UNIVERSE/nasdaq100"]) - set(sectored))
    assert " ".join(beyond) == "ALAB ALNY ARM ASML CCEP CRWV FER MELI MSTR NBIS PDD RKLB SHOP SPCX TRI"
    assert sorted(set(members["UNIVERSE/dow30"]) - set(members["UNIVERSE/sp500"])) == []


def test_where_the_source_contradicts_itself_the_sub_industry_decides(groups: list[GroupHoldings]) -> None:
    stated = {
        row.ticker: (row.gics_sector, row.gics_sub_industry)
        for row in pitindex.get_constituents("2026-07-13", "sp1500").itertuples()
    }
    moved = {
        holding.symbol: (group.description, holding.industry)
        for group in groups
        for holding in group.holdings
        if group.type == "SECTOR" and stated[holding.symbol] != (group.description, holding.industry)
    }
    assert moved == {
        "ADAM": ("Financials", "Mortgage REITs"),
        "ALRM": ("Information Technology", "Application Software"),
        "ARR": ("Financials", "Mortgage REITs"),
        "FBRT": ("Financials", "Mortgage REITs"),
        "HFWA": ("Financials", "Regional Banks"),
        "LNN": ("Industrials", "Agricultural & Farm Machinery"),
        "NSIT": ("Information Technology", "Technology Distributors"),
        "PMT": ("Financials", "Mortgage REITs"),
        "SCHL": ("Communication Services", "Publishing"),
    }
    pairs = {(holding.industry, group.name) for group in groups if group.type == "SECTOR" for holding in group.holdings}
    assert [industry for industry, sectors in Counter(i for i, _ in pairs).items() if sectors > 1] == []


def test_themes_hold_the_stocks_of_their_sub_industries(groups: list[GroupHoldings]) -> None:
    stocks = {holding for group in groups if group.type == "SECTOR" for holding in group.holdings}
    themes = {group.name: set(group.holdings) for group in groups if group.type == "THEME"}
    assert themes == {theme: {s for s in stocks if s.industry in industries} for theme, industries in THEMES.items()}
    known = {stock.industry for stock in stocks}
    assert [industry for industries in THEMES.values() for industry in industries if industry not in known] == []


def test_funds_hold_their_index_at_one_nth_each(groups: list[GroupHoldings], members: dict[str, list[str]]) -> None:
    funds = {group.name: group for group in groups if group.type == "ETF" and group.name not in TRACKERS}
    slugs = {fund.symbol: f"SECTOR/{fund.sector.lower().replace(' ', '_')}" for fund in FUNDS if fund.sector}
    for fund in FUNDS:
        index = set(members[f"UNIVERSE/{fund.universe}"])
        expected = index & set(members[slugs[fund.symbol]]) if fund.sector else index
        assert {holding.symbol for holding in funds[fund.symbol].holdings} == expected
    assert {name: {holding.weight for holding in fund.holdings} for name, fund in funds.items()} == {
        "RSP": {Decimal("0.00198807")},
        "EWMC": {Decimal("0.00250000")},
        "EWSC": {Decimal("0.00166113")},
        "QQQE": {Decimal("0.00970874")},
        "EDOW": {Decimal("0.03333333")},
        "RSPT": {Decimal("0.01351351")},
        "RSPF": {Decimal("0.01315789")},
        "RSPH": {Decimal("0.01694915")},
        "RSPD": {Decimal("0.02127660")},
        "RSPS": {Decimal("0.02941176")},
        "RSPG": {Decimal("0.04761905")},
        "RSPN": {Decimal("0.01234568")},
        "RSPM": {Decimal("0.03846154")},
        "RSPR": {Decimal("0.03225806")},
        "RSPU": {Decimal("0.03225806")},
        "RSPC": {Decimal("0.04347826")},
    }
    sums = {name: sum((h.weight or Decimal(0) for h in fund.holdings), Decimal(0)) for name, fund in funds.items()}
    assert {name: total for name, total in sums.items() if abs(total - 1) > Decimal("0.00001")} == {}
    sector_funds = [symbol for fund in FUNDS if fund.sector for symbol in members[f"ETF/{fund.symbol}"]]
    assert sorted(sector_funds) == members["UNIVERSE/sp500"]


def test_trackers_hold_their_index_without_weights(groups: list[GroupHoldings], members: dict[str, list[str]]) -> None:
    held = {group.name: group for group in groups if group.name in TRACKERS}
    assert {name: members[f"ETF/{name}"] for name in held} == {
        "SPY": members["UNIVERSE/sp500"],
        "QQQ": members["UNIVERSE/nasdaq100"],
        "DIA": members["UNIVERSE/dow30"],
    }
    assert {holding.weight for group in held.values() for holding in group.holdings} == {None}
    assert held["SPY"].description == (
        "SPDR S&P 500 ETF Trust: the stocks of the index that it tracks, the S&P 500, as of 2026-07-13. Their weights are"
        " not known here; `stockgraph load` of the fund's own file brings them."
    )


def test_only_funds_have_weights(groups: list[GroupHoldings]) -> None:
    assert {group.type for group in groups for holding in group.holdings if holding.weight is not None} == {"ETF"}


def test_descriptions_say_what_and_as_of_when(groups: list[GroupHoldings]) -> None:
    described = {group.name: group.description for group in groups}
    names = ("sp500", "dow30", "energy", "RSP", "EWMC", "EWSC", "RSPC", "airlines", "semiconductors")
    assert {name: described[name] for name in names} == {
        "sp500": "The S&P 500: its 503 stocks as of 2026-07-13.",
        "dow30": "The Dow Jones Industrial Average: its 30 stocks as of 2026-07-13.",
        "energy": "Energy",
        "RSP": "Invesco S&P 500 Equal Weight ETF: its index weighs companies equally; the nominal weight here is 1/503"
        " for each of the 503 stocks in the S&P 500 as of 2026-07-13, not the fund's published holdings.",
        "EWMC": "Invesco S&P MidCap 400 Equal Weight ETF: its index weighs companies equally; the nominal weight here"
        " is 1/400 for each of the 400 stocks in the S&P MidCap 400 as of 2026-07-13, not the fund's published"
        " holdings. The fund left this index in August 2023 and has been GRPM since.",
        "EWSC": "Invesco S&P SmallCap 600 Equal Weight ETF: its index weighs companies equally; the nominal weight"
        " here is 1/602 for each of the 602 stocks in the S&P SmallCap 600 as of 2026-07-13, not the fund's published"
        " holdings. The fund itself closed in March 2023.",
        "RSPC": "Invesco S&P 500 Equal Weight Communication Services ETF: its index weighs companies equally; the"
        " nominal weight here is 1/23 for each of the 23 Communication Services stocks in the S&P 500 as of"
        " 2026-07-13, not the fund's published holdings. To a sector of fewer than 22 companies its index adds some of"
        " the S&P MidCap 400; they are not here.",
        "airlines": "S&P 1500 stocks by GICS sub-industry: Passenger Airlines. As of 2026-07-13.",
        "semiconductors": "S&P 1500 stocks by GICS sub-industry: Semiconductor Materials & Equipment; Semiconductors."
        " As of 2026-07-13.",
    }
    undated = [group.name for group in groups if group.type != "SECTOR" and "2026-07-13" not in str(group.description)]
    assert undated == []


def test_the_two_packages_name_the_stocks_of_the_day_alike(members: dict[str, list[str]]) -> None:
    sp500 = set(index_constitution.constituents_at("sp500", "2026-07-13")["symbol"])
    assert sorted(sp500 ^ set(members["UNIVERSE/sp500"])) == ["PSKY", "SKYD"]
    elsewhere = {*members["UNIVERSE/nasdaq100"], *members["UNIVERSE/dow30"]}
    # what is in no S&P 1500 index must not be there under an older ticker either
    renamed = index_constitution.events(region="us")
    older = dict(zip(renamed["new_symbol"], renamed["old_symbol"], strict=True))
    known = {*members["UNIVERSE/sp500"], *members["UNIVERSE/sp400"], *members["UNIVERSE/sp600"]}
    assert {symbol: older[symbol] for symbol in elsewhere - known if older.get(symbol) in known} == {}
    assert elsewhere & {"PSKY", "SKYD"} == set()


def test_groups_are_of_the_day_and_universes_have_a_past(groups: list[GroupHoldings]) -> None:
    assert {group.as_of for group in groups} == {DAY}
    past = {(group.type, group.name): len(group.past) for group in groups if group.past}
    assert past == {
        ("UNIVERSE", "sp500"): 983,
        ("UNIVERSE", "sp400"): 676,
        ("UNIVERSE", "sp600"): 1054,
        ("UNIVERSE", "nasdaq100"): 177,
        ("UNIVERSE", "dow30"): 54,
    }


@pytest.mark.parametrize("universe", COMPLETE_SINCE)
def test_spells_are_in_order_and_apart(universe: str, past: dict[str, tuple[MembershipPeriod, ...]]) -> None:
    spells = past[universe]
    assert list(spells) == sorted(spells, key=lambda spell: (spell.symbol, spell.valid_from))
    assert min(spell.valid_from for spell in spells) == COMPLETE_SINCE[universe]
    assert [spell for spell in spells if not spell.valid_from < (spell.valid_to or DAY + timedelta(1))] == []
    assert [spell for spell in spells if (spell.valid_to or DAY) > DAY] == []
    met = [
        (spell, then)
        for spell, then in pairwise(spells)
        if spell.symbol == then.symbol and (spell.valid_to is None or spell.valid_to >= then.valid_from)
    ]
    assert met == []
    symbols = {spell.symbol for spell in spells}
    assert [symbol for symbol in symbols if not re.fullmatch(r"[A-Z]{1,5}(\.[AB])?", symbol)] == []


@pytest.mark.parametrize("universe", COMPLETE_SINCE)
def test_spells_without_an_end_are_the_holdings(
    universe: str, past: dict[str, tuple[MembershipPeriod, ...]], members: dict[str, list[str]]
) -> None:
    assert [spell.symbol for spell in past[universe] if spell.valid_to is None] == members[f"UNIVERSE/{universe}"]


@pytest.fixture(scope="module")
def renamed() -> dict[str, tuple[date, str]]:
    events = index_constitution.events(region="us")
    events = events[(events["event_type"] == "ticker_change") & (events["event_date"] <= str(DAY))]
    later = {event.old_symbol: (event.event_date.date(), event.new_symbol) for event in events.itertuples()}
    for universe in ("sp500", "sp400", "sp600"):
        for event in pitindex._api._index(universe).events:  # noqa: SLF001  no table of it has the changes of tickers
            if told := re.match(r"rename → (\S+):", event.reason or ""):
                later[event.ticker] = (event.date, told[1])
    return later


@pytest.mark.parametrize("universe", COMPLETE_SINCE)
def test_on_any_day_the_members_are_those_of_the_package(
    universe: str, past: dict[str, tuple[MembershipPeriod, ...]], renamed: dict[str, tuple[date, str]]
) -> None:
    def newest(symbol: str) -> str:
        changed, new = renamed.get(symbol, (date.min, ""))
        # the MidCap 400 has PSTG for some weeks after the change
        return newest(new) if day < changed or symbol == "PSTG" else symbol

    first = COMPLETE_SINCE[universe]
    drawn = random.Random(universe).sample(range((DAY - first).days), 100)
    for day in [DAY, *(first + timedelta(passed) for passed in [0, *drawn])]:
        if universe in ("nasdaq100", "dow30"):
            stated = index_constitution.constituents_at(universe, day)["symbol"]
        else:
            stated = pitindex.get_constituents(day, universe)["ticker"]
        added = {symbol for symbol, start, end in SHADOWED if universe == "sp500" and start <= day < end}
        assert added & set(stated) == {"IR"} & added
        assert at(past[universe], day) == {newest(symbol) for symbol in stated} | added


def test_the_past_begins_where_the_package_does_or_later() -> None:
    covered = {universe: pitindex.PitIndex(universe).coverage_start for universe in ("sp500", "sp400", "sp600")}
    late = {universe: COMPLETE_SINCE[universe] for universe in covered if covered[universe] != COMPLETE_SINCE[universe]}
    assert late == {"sp400": date(2020, 12, 29)}
    # the day before, the MidCap 400 has four stocks that had moved up, and the Nasdaq-100 one under three tickers
    both = [set(pitindex.get_constituents("2020-12-28", universe)["ticker"]) for universe in ("sp500", "sp400")]
    assert both[0] & both[1] == {"ATO", "BIO", "ROL", "TYL"}
    before = set(index_constitution.constituents_at("nasdaq100", "2019-03-18")["symbol"])
    assert before & {"FOX", "FOXA", "TCFCA", "TCFCB"} == {"FOX", "TCFCA", "TCFCB"}
    before = set(index_constitution.constituents_at("dow30", "2003-01-26")["symbol"])
    assert before & {"ALD", "HON", "MO", "PM", "XOM", "XON"} == {"ALD", "PM", "XON"}


def test_each_day_has_as_many_members_as_its_index(past: dict[str, tuple[MembershipPeriod, ...]]) -> None:
    counts: dict[str, Counter[int]] = {}
    for universe, spells in past.items():
        counts[universe] = Counter()
        for day, following in pairwise(change_days(spells)):
            counts[universe][len(at(spells, day))] += (following - day).days
    assert [
        f"| {INDEX_NAMES[universe]} | {package} | {COMPLETE_SINCE[universe]} |"
        f" {min(counts[universe])} to {max(counts[universe])} |"
        for universe, package in zip(COMPLETE_SINCE, 3 * ["pitindex"] + 2 * ["index-constitution"], strict=True)
    ] == re.findall(r"^\| [^|]+ \| [a-z-]+ \| [0-9-]{10} \| \d+ to \d+ \|$", HISTORY, re.MULTILINE)
    usual = {count: held for count, held in counts["sp500"].items() if held > 150}
    assert usual == {499: 1255, 500: 2029, 502: 404, 503: 1476, 504: 157, 505: 2248}


def test_the_indices_agree_with_each_other(past: dict[str, tuple[MembershipPeriod, ...]]) -> None:
    odd: dict[str, list[str]] = {}
    for day in change_days(past["sp500"], past["sp400"], past["sp600"]):
        sp500, sp400, sp600, dow30 = (at(past[name], day) for name in ("sp500", "sp400", "sp600", "dow30"))
        for symbol in (dow30 - sp500) | (sp500 & sp400) | (sp500 & sp600) | (sp400 & sp600):
            odd.setdefault(symbol, []).append(str(day))
    assert {symbol: (found[0], found[-1]) for symbol, found in odd.items()} == {
        # ARNC and MTLQQ in the S&P 500
        "AA": ("2004-12-30", "2013-09-11"),
        "GM": ("2004-12-30", "2009-06-05"),
        # other companies than those that have the ticker today
        "COR": ("2020-12-29", "2021-12-22"),
        "DOC": ("2020-12-29", "2024-01-23"),
        # of two changes the package dates one too late or too early
        "DISH": ("2023-06-19", "2023-06-19"),
        "AAON": ("2024-05-03", "2024-05-07"),
        "UA": ("2025-12-23", "2026-01-30"),
        "UAA": ("2025-12-23", "2026-01-30"),
    }


@pytest.mark.parametrize(
    ("universe", "day", "joined", "left"),
    [
        ("dow30", "2004-04-08", "AIG PFE VZ", "EK IP T"),
        ("dow30", "2008-09-22", "MDLZ", "AIG"),
        ("dow30", "2013-09-23", "GS NKE V", "AA BAC HPQ"),
        ("dow30", "2015-03-19", "AAPL", "T"),
        ("dow30", "2020-08-31", "AMGN CRM HON", "PFE RTX XOM"),
        ("dow30", "2024-11-08", "NVDA SHW", "DOW INTC"),
        ("sp500", "2008-09-15", "CRM FAST", "LEH"),
        ("sp500", "2013-12-23", "ADS META MHK", "ANF TER VIAV"),
        ("sp500", "2020-12-21", "TSLA", "AIV"),
        ("sp500", "2022-06-09", "", ""),  # the day on which FB became META
        ("nasdaq100", "2020-04-20", "DXCM", "AAL"),
        ("nasdaq100", "2022-12-19", "BKR CSGP FANG GFS RIVN WBD", "BIDU DOCU MTCH NTES SPLK SWKS VRSN"),
        # three indices, of which each gives and takes
        ("sp500", "2024-03-18", "DECK SMCI", "WHR ZION"),
        ("sp400", "2024-03-18", "AIT CYTK WHR ZION", "CALX DECK MPW SMCI"),
        ("sp600", "2024-03-18", "AL ARCH BGC BL BOX CALX MGEE MGY MPW", "AIT APPS CCSI CRMT CYTK FORR IRBT OIS TBI"),
    ],
)
def test_changes_that_everybody_knows(
    universe: str, day: str, joined: str, left: str, past: dict[str, tuple[MembershipPeriod, ...]]
) -> None:
    of_day = date.fromisoformat(day)
    before, after = (at(past[universe], each) for each in (of_day - timedelta(1), of_day))
    assert (" ".join(sorted(after - before)), " ".join(sorted(before - after))) == (joined, left)


def test_the_packages_differ_as_documented(past: dict[str, tuple[MembershipPeriod, ...]]) -> None:
    rows = re.findall(r"^\| ([0-9-]{10}) \| (\d+) \| (\d+) \| (.+) \| (.+) \|$", HISTORY, re.MULTILINE)
    assert len(rows) == 10
    assert ("2015-06-30", "501", "497", "D FOXA MWV SRE TROW", "TEG") in rows
    pairs = re.findall(r"([A-Z]+)\s=\s([A-Z]+)", HISTORY)
    met = set()
    for day, count, other_count, only, other_only in rows:
        ours = at(past["sp500"], date.fromisoformat(day))
        theirs = set(index_constitution.constituents_at("sp500", day)["symbol"])
        same = {(a, b) for a, b in pairs if a in ours - theirs and b in theirs - ours}
        met |= same
        assert (len(ours), len(theirs)) == (int(count), int(other_count)), day
        assert sorted(ours - theirs - {a for a, _ in same}) == re.findall("[A-Z]+", only), day
        assert sorted(theirs - ours - {b for _, b in same}) == re.findall("[A-Z]+", other_only), day
    assert met == set(pairs)


async def test_the_demo_passes_its_own_checks(groups: list[GroupHoldings], database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    outcomes = [each async for each in load_groups(connection, groups, environment="DEFAULT")]
    assert [each for each in outcomes if isinstance(each, GroupRefused)] == []
    found = await check(connection, "DEFAULT")
    await connection.close()
    assert found == [
        Finding(
            "warning", "no_sector", f"ETF {fund} has 15 of 103 members in no sector (ALAB, ALNY, ARM, ASML, CCEP ...)."
        )
        for fund in ("QQQ", "QQQE")
    ] + [
        Finding("warning", "unweighted", f"ETF {fund} has no weights ({count} members).")
        for fund, count in (("DIA", 30), ("QQQ", 103), ("SPY", 503))
    ]


GUARD = """
import sys

def refuse(event, arguments):
    if event.startswith(("socket.", "subprocess.", "urllib.", "os.system", "os.exec", "os.posix_spawn", "os.fork")):
        raise RuntimeError(event)

sys.addaudithook(refuse)
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("from graph.loading.demo import demo_groups; print(len(demo_groups()))", "55\n"),
        ("import socket; print(socket.socket())", "RuntimeError: socket.__new__\n"),
        ("import pitindex; print(pitindex.get_constituents('2026-07-13').shape)", "StaleDataWarning"),
    ],
)
def test_nothing_is_fetched_started_or_warned_of(program: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", GUARD + program],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PITINDEX_STALE_DAYS"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said in done.stdout + done.stderr


async def test_what_is_loaded_takes_the_place_of_the_demo_whatever_its_day(
    groups: list[GroupHoldings], database_url: str
) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        for each in groups:
            await replace_group(connection, each, environment="DEFAULT")
        real = GroupHoldings("ETF", "SPY", (Holding("AAPL", Decimal(1)),), as_of=date(2025, 11, 18))
        diff = await replace_group(connection, real, environment="DEFAULT")
        assert (diff.created, diff.added.first, diff.removed.total) == (True, ("AAPL",), 0)
        assert await connection.fetchval("SELECT metadata::text FROM definition_groups WHERE name = 'SPY'") == (
            '{"as_of": "2025-11-18"}'
        )
        held = "SELECT array_agg(m.symbol) FROM groups_on($1) AS g JOIN memberships_on($1) AS m ON m.group_id = g.id WHERE g.name = 'SPY'"
        assert await connection.fetchval(held, date(2025, 11, 18)) == ["AAPL"]
        assert await connection.fetchval(held, date(2025, 11, 17)) is None
        assert await connection.fetchval(held, date(2026, 7, 13)) == ["AAPL"]
        assert [finding for finding in await check(connection, "DEFAULT") if finding.code == "history_gap"] == []
        older = replace(real, as_of=date(2025, 11, 17))
        with pytest.raises(GroupRefused, match="older than what is here"):
            await replace_group(connection, older, environment="DEFAULT")
    finally:
        await connection.close()
