import asyncio
import json
import math
from collections.abc import AsyncIterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from conftest import DATA
from hypothesis import example, given
from hypothesis import strategies as st

from graph.errors import InputFileError, StockgraphError
from graph.loading.files import MAX_ERRORS
from graph.loading.group_writer import replace_group
from graph.loading.holdings import GroupHoldings, Holding
from graph.loading.migration import MigrationResult, migrate
from graph.loading.tickstock import (
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_QUOTES,
    MigrationPlan,
    PlannedGroup,
    SkippedEntry,
    group_label,
    plan_migration,
)
from graph.loading.tickstock_entries import GROUP_TYPES, MAX_ENTRIES, MAX_SOURCE, read_file, read_table
from graph.postgres.database import Connection

OLD = (DATA / "cache_entries.sql").read_text()
D = Decimal


def entry(type: str, key: str, value: object, **columns: object) -> dict[str, object]:
    return {"type": type, "key": key, "value": value, **columns}


def holdings(*symbols: str) -> tuple[Holding, ...]:
    return tuple(map(Holding, symbols))


def moved(*entries: object) -> PlannedGroup:
    """The only move of entries of which all move."""
    migration = plan_migration(entries)
    assert (migration.skipped, migration.other_types) == ((), {})
    (move,) = migration.groups
    return move


def reason(value: object, type: str = "theme_definition", **columns: object) -> str:
    """Why an entry stays behind."""
    migration = plan_migration([entry(type, "space", value, **columns)])
    assert (migration.groups, migration.other_types) == ((), {})
    (left,) = migration.skipped
    assert left.entry == f"{type} 'space' (entry 1)"
    return left.reason


WEIGHTED = (Holding("AAPL", D("0.6"), "Apple Inc."), Holding("MSFT", D("0.4"), industry="Software"))


@pytest.mark.parametrize(
    ("given_entry", "group"),
    [
        (
            entry(
                "etf_holdings",
                "SPY",
                {
                    "holdings": ["AAPL", " msft "],
                    "market_cap_threshold": 5_000_000_000,
                    "total_holdings": 2,
                    "data_source": {"file": "spy.csv"},
                    "last_updated": "2025-11-27T09:30:00.125",
                },
                name="SPDR S&P 500",
                updated_at="2025-11-28T00:00:00",
            ),
            GroupHoldings(
                "ETF",
                "SPY",
                holdings("AAPL", "MSFT"),
                "SPDR S&P 500",
                date(2025, 11, 27),
                metadata={
                    "total_holdings": 2,
                    "data_source": {"file": "spy.csv"},
                    "last_updated": "2025-11-27T09:30:00.125",
                },
                liquidity_filter={"market_cap_threshold": 5_000_000_000},
            ),
        ),
        (
            entry(
                "etf_holdings",
                "spy",
                {
                    "holdings": [
                        {"symbol": "AAPL", "weight": 60, "name": "Apple  Inc."},
                        {"ticker": "MSFT", "weight": "40", "industry": "Software", "name": "Unknown"},
                    ]
                },
                updated_at=None,
                created_at="2025-11-28 00:00:00+00",
            ),
            GroupHoldings("ETF", "SPY", WEIGHTED, as_of=date(2025, 11, 28)),
        ),
        (
            entry(
                "theme_definition",
                "Crypto Miners",
                {"symbols": ["MARA"], "description": "Who\nmines", "selection_criteria": "all", "related_themes": []},
                name="Miners",
            ),
            GroupHoldings(
                "THEME",
                "crypto_miners",
                holdings("MARA"),
                "Who mines",
                metadata={"selection_criteria": "all", "related_themes": [], "name": "Miners"},
            ),
        ),
        (entry("themes", "list", ["NVDA"], name="Ai"), GroupHoldings("THEME", "ai", holdings("NVDA"))),
        (
            entry(
                "sector_industry_map",
                "information_technology",
                {"industries": ["Software"], "representative_stocks": ["AAPL", "BRK-B"], "stock_count": 62},
                name="Information Technology",
            ),
            GroupHoldings(
                "SECTOR",
                "information_technology",
                holdings("AAPL", "BRK.B"),
                "Information Technology",
                metadata={"industries": ["Software"], "stock_count": 62},
            ),
        ),
        (
            entry("stock_universe", "dow30", ["AAPL", "BRK/B"], name="dow30"),
            GroupHoldings("UNIVERSE", "dow30", holdings("AAPL", "BRK.B")),
        ),
        (
            entry("stock_universe", "dow30", {"symbols": ["AAPL"], "count": 1}),
            GroupHoldings("UNIVERSE", "dow30", holdings("AAPL"), metadata={"count": 1}),
        ),
        (
            entry("stock_universe", "top", {"stocks": [{"ticker": "AAPL", "name": "Apple", "industry": "Hardware"}]}),
            GroupHoldings("UNIVERSE", "top", (Holding("AAPL", None, "Apple", "Hardware"),)),
        ),
        (
            entry("stock_universe", "top", [{"ticker": "AAPL", "name": "Apple", "industry": None}]),
            GroupHoldings("UNIVERSE", "top", (Holding("AAPL", None, "Apple"),)),
        ),
        (entry("etf_universe", "core", ["SPY", "QQQ"]), GroupHoldings("UNIVERSE", "core", holdings("SPY", "QQQ"))),
        (
            entry("etf_universe", "core", {"etfs": [{"ticker": "SPY", "name": "SPDR"}], "symbols": []}),
            GroupHoldings("UNIVERSE", "core", (Holding("SPY", None, "SPDR"),), metadata={"symbols": []}),
        ),
        (
            entry("theme_definition", "space", {"symbols": ["RKLB"], "stocks": "see symbols", "tickers": ["ASTS"]}),
            GroupHoldings("THEME", "space", holdings("RKLB"), metadata={"stocks": "see symbols", "tickers": ["ASTS"]}),
        ),
        (
            entry("stock_etf_combo", "mix", {"tickers": ["SPY", "AAPL"], "market_cap_threshold": None}),
            GroupHoldings("UNIVERSE", "mix", holdings("SPY", "AAPL")),
        ),
        (
            {"type": "stock_universe", "name": "Dow 30", "value": ["AAPL"]},
            GroupHoldings("UNIVERSE", "Dow 30", holdings("AAPL")),
        ),
    ],
)
def test_every_shape_becomes_a_group(given_entry: dict[str, Any], group: GroupHoldings) -> None:
    key = " ".join((given_entry.get("key") or given_entry["name"]).split())
    label = given_entry["name"] if given_entry["type"] == "themes" else key
    assert moved(given_entry) == PlannedGroup(f"{given_entry['type']} {label!r} (entry 1)", "DEFAULT", group, ())


def test_json_that_arrives_as_a_text_is_read_however_often_it_is_quoted() -> None:
    value: object = ["AAPL"]
    for _ in range(MAX_QUOTES - 1):
        value = json.dumps(value)
        assert moved(entry("stock_universe", "u", value)).group.holdings == holdings("AAPL")
    for _ in range(2):
        value = json.dumps(value)
    assert reason(value) == "is JSON quoted more than 8 times over"
    for wrapped in ({"value": ["AAPL"]}, {"value": '["AAPL"]'}, '{"value": ["AAPL"]}', {"symbols": '["AAPL"]'}):
        assert moved(entry("stock_universe", "u", wrapped)).group.holdings == holdings("AAPL")


def test_of_a_group_that_is_given_twice_what_was_updated_later_counts() -> None:
    migration = plan_migration(
        [
            entry("etf_holdings", "SPY", ["AAPL"], id=7, updated_at="2025-01-01T00:00:00"),
            entry("etf_holdings", "spy", ["MSFT"], id="8", created_at="2025-01-02T00:00:00"),
            entry("etf_holdings", " Spy", ["MSFT"], id=9, updated_at="2025-01-01T12:00:00"),
            entry("theme_definition", "ai-leaders", ["A"], id=10),
            entry("theme_definition", "AI leaders", ["B"], id=11),
            entry("theme_definition", "ai_leaders", ["C"], id=12, environment="TEST"),
            entry("stock_universe", "Top", ["A"], id=13),
            entry("stock_universe", "top", ["A"], id=14),
        ]
    )
    assert [(move.entry, move.environment, move.group.name, move.group.holdings) for move in migration.groups] == [
        ("etf_holdings 'spy' (id 8)", "DEFAULT", "SPY", holdings("MSFT")),
        ("theme_definition 'ai-leaders' (id 10)", "DEFAULT", "ai_leaders", holdings("A")),
        ("theme_definition 'ai_leaders' (id 12)", "TEST", "ai_leaders", holdings("C")),
        ("stock_universe 'Top' (id 13)", "DEFAULT", "Top", holdings("A")),
    ]
    spy = "gives ETF SPY as etf_holdings 'spy' (id 8) does, which was updated later and has"
    assert migration.skipped == (
        SkippedEntry("etf_holdings 'SPY' (id 7)", f"{spy} other members"),
        SkippedEntry("etf_holdings 'Spy' (id 9)", f"{spy} the same members"),
        SkippedEntry(
            "theme_definition 'AI leaders' (id 11)",
            "gives THEME ai_leaders as theme_definition 'ai-leaders' (id 10) does, which comes first and has other members",
        ),
        SkippedEntry(
            "stock_universe 'top' (id 14)",
            "gives UNIVERSE top as stock_universe 'Top' (id 13) does, which comes first and has the same members",
        ),
    )


def test_a_group_of_etfs_and_one_of_stocks_may_have_one_key() -> None:
    migration = plan_migration(
        [
            entry("etf_universe", "crypto", ["IBIT"]),
            entry("stock_universe", "Crypto", ["COIN"]),
            entry("etf_universe", "crypto", ["FBTC"], environment="TEST"),
        ]
    )
    assert migration.skipped == ()
    assert [(group_label(move), move.group.holdings, move.notes) for move in migration.groups] == [
        (
            "UNIVERSE etf_crypto",
            holdings("IBIT"),
            ("a stock_universe has the key crypto too, so its name is etf_crypto",),
        ),
        ("UNIVERSE Crypto", holdings("COIN"), ()),
        ("UNIVERSE crypto of TEST", holdings("FBTC"), ()),
    ]


def test_an_entry_is_of_its_environment_else_of_the_one_that_is_meant() -> None:
    entries = [
        entry("theme_definition", "a", ["A"]),
        entry("theme_definition", "b", ["A"], environment=None),
        entry("theme_definition", "c", ["A"], environment=" prod "),
        entry("theme_definition", "d", ["A"], environment="production"),
        entry("theme_definition", "e", ["A"], environment=["PROD"]),
    ]
    migration = plan_migration(entries, environment="UAT")
    assert [move.environment for move in migration.groups] == ["UAT", "UAT", "PROD"]
    assert [left.reason for left in migration.skipped] == [
        "environment 'PRODUCTION' is none of DEFAULT, TEST, UAT, PROD",
        "environment '' is none of DEFAULT, TEST, UAT, PROD",
    ]


def deep(levels: int) -> Any:
    value: Any = "A"
    for _ in range(levels):
        value = [value]
    return value


UNHOLDABLE = "holds text that no database text can hold: a zero byte, or half of a surrogate pair"
NO_SYMBOLS = "has no members that are symbols"
NO_LIST = (
    "lists no members: its value is no list, and has none by the name "
    "holdings or symbols or stocks or etfs or tickers or representative_stocks"
)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "has no value"),
        ("null", "has no value"),
        ("", "is text that is not JSON ('': Expecting value)"),
        ("RKLB, ASTS", "is text that is not JSON ('RKLB, ASTS': Expecting value)"),
        ('["A"', "is text that is not JSON ('[\"A\"': Expecting ',' delimiter)"),
        ('{"symbols": ["A"], "symbols": ["B"]}', "has the key 'symbols' twice in one object"),
        ("[" * 100_000, "is nested too deep"),
        (deep(MAX_DEPTH + 2), "is nested deeper than 64 levels"),
        ({"symbols": ["A"], "x": {"y": deep(MAX_DEPTH)}}, "is nested deeper than 64 levels"),
        ({"symbols": json.dumps(deep(MAX_DEPTH + 2))}, "is nested deeper than 64 levels"),
        (5, NO_LIST),
        (True, NO_LIST),
        ({}, NO_LIST),
        ({"symbols": {"A": 0.5}}, NO_LIST),
        ({"description": "none"}, NO_LIST),
        ([], "has no members; an empty group is not made"),
        ({"symbols": [], "stocks": []}, "has no members; an empty group is not made"),
        (["A"] * (MAX_MEMBERS + 1), "lists more than 100,000 members"),
        (
            ["APPLE INC", None],
            f"{NO_SYMBOLS} (member 1 left out: symbol 'APPLE INC' is not 1 to 50 characters without white space)",
        ),
        ({"symbols": ["A"], "x": "\0"}, UNHOLDABLE),
        ({"symbols": ["A"], "x": {"\ud800": 1}}, UNHOLDABLE),
        ({"symbols": ["A"], "description": "a\\\0"}, UNHOLDABLE),
        ({"symbols": ["A"], "market_cap_threshold": "\udfff"}, UNHOLDABLE),
        ([7203], f"{NO_SYMBOLS} (member 1 left out: '7203' is no text, so no symbol)"),
        ([{"name": "Apple"}], f"{NO_SYMBOLS} (member 1 left out: 'None' is no text, so no symbol)"),
    ],
)
def test_what_holds_no_group_is_left_with_the_reason(value: object, why: str) -> None:
    assert reason(value) == why


def test_an_entry_that_is_none_is_left_and_other_types_are_counted() -> None:
    entries = [
        None,
        ["etf_holdings"],
        {},
        {"type": 5, "key": "a", "value": []},
        entry("theme_definition", "", ["A"]),
        entry("theme_definition", "--", ["A"]),
        entry("etf_holdings", "A\0B", ["A"]),
        entry("stock_universe", "x" * 101, ["A"]),
        entry("app_settings", "a", {"value": 1}),
        entry("app_settings", "b", None),
        entry("ETF_HOLDINGS", "SPY", ["A"]),
    ]
    name = "is not 1 to 100 printable characters"
    assert plan_migration(entries) == MigrationPlan(
        (),
        (
            SkippedEntry("entry 1", "is no object with type, key and value"),
            SkippedEntry("entry 2", "is no object with type, key and value"),
            SkippedEntry("entry 3", "has no type"),
            SkippedEntry("entry 4", "has no type"),
            SkippedEntry("theme_definition '' (entry 5)", f"name '' {name}"),
            SkippedEntry("theme_definition '--' (entry 6)", f"name '--' {name}"),
            SkippedEntry("etf_holdings 'A\\x00B' (entry 7)", f"name 'A\\x00B' {name}"),
            SkippedEntry(f"stock_universe '{'x' * 99}…' (entry 8)", f"name '{'x' * 99}…' {name}"),
        ),
        {"app_settings": 2, "ETF_HOLDINGS": 1},
    )


def test_members_that_are_none_are_left_out_and_the_rest_moves() -> None:
    move = moved(
        entry(
            "etf_holdings",
            "SPY",
            [
                {"symbol": "AAPL", "weight": 0.3, "rank": 1},
                "BRK B",
                "BRK-B",
                "Apple Inc",
                {"symbol": "AAPL", "weight": 0.4, "sector": "Tech"},
                {"symbol": "AAPL", "weight": 0.1},
                {"symbol": "MSFT", "weight": "much"},
                {"symbol": "IBM", "weight": True},
                {"symbol": "GE", "weight": [0.1]},
                {"symbol": "F", "weight": "NaN"},
                {"symbol": "GM", "weight": "1" * 101},
                {"symbol": "T", "weight": 0.5, "name": "AT&T\0"},
                {"symbol": ["X"]},
                False,
            ],
        )
    )
    number = "is not a number such as 0.065, 6.5 or 6.5%"
    assert move.group.holdings == (
        Holding("AAPL", D("0.4")),
        Holding("BRK.B"),
        *holdings("MSFT", "IBM", "GE", "F", "GM"),
        Holding("T", D("0.5")),
    )
    assert move.notes == (
        "member 3 left out: BRK.B is member 2 too",
        "member 4 left out: symbol 'APPLE INC' is not 1 to 50 characters without white space",
        "member 1 left out: AAPL is member 5 too",
        "member 6 left out: AAPL is member 5 too",
        f"MSFT without its weight: weight 'much' {number}",
        f"IBM without its weight: weight 'True' {number}",
        f"GE without its weight: weight '[0.1]' {number}",
        f"F without its weight: weight 'NaN' {number}",
        "GM without its weight: weight '11111111111111111111111111111…' is longer than 100 characters",
        "member 13 left out: \"['X']\" is no text, so no symbol",
        "member 14 left out: 'False' is no text, so no symbol",
        "of members only symbol, weight, name and industry are kept, not 'rank', 'sector'",
    )


def test_of_many_bad_members_the_first_are_named_and_the_rest_counted() -> None:
    move = moved(entry("stock_universe", "u", ["A", *[None] * 5_000]))
    assert len(move.notes) == MAX_ERRORS + 1
    assert move.notes[-1] == f"{5_000 - MAX_ERRORS:,} more such notes"


@pytest.mark.parametrize(
    ("weights", "fractions", "notes"),
    [
        ([0.0783, 0.9], ["0.0783", "0.9"], ()),
        ([7.83, 90], ["0.0783", "0.90"], ()),
        (["7.83%", "0.5 %"], ["0.0783", "0.005"], ()),
        ([None, ""], [None, None], ()),
        ([1.2, -0.2], ["1.2", "-0.2"], ()),
        (
            [6.5, 3.1],
            [None, None],
            ("all without weights: whether they are fractions or percent is not to be told (sum 9.6)",),
        ),
        (
            ["6.5%", 93.5],
            [None, None],
            ("all without weights: whether they are fractions or percent is not to be told (sum 100.0)",),
        ),
        (
            [0, 0],
            [None, None],
            ("all without weights: whether they are fractions or percent is not to be told (sum 0)",),
        ),
        (
            [1_100, -1_000],
            [None, None],
            (
                "A without its weight: weight 1100 is not between -1000 and 1000 percent",
                "B without its weight: weight -1000 is not between -1000 and 1000 percent",
            ),
        ),
        (
            [10**30, 1e300],
            [None, None],
            ("all without weights: whether they are fractions or percent is not to be told (sum 1.00000e+300)",),
        ),
    ],
)
def test_weights_are_told_by_their_sum(
    weights: list[object], fractions: list[str | None], notes: tuple[str, ...]
) -> None:
    members = [{"symbol": symbol, "weight": weight} for symbol, weight in zip("AB", weights, strict=True)]
    move = moved(entry("etf_holdings", "SPY", {"holdings": members}))
    assert [holding.weight for holding in move.group.holdings] == [each and D(each) for each in fractions]
    assert move.notes == notes


def test_text_that_only_looks_like_a_zero_byte_moves() -> None:
    assert moved(entry("stock_universe", "u", {"symbols": ["A"], "x": "\\u0000"})).group.metadata == {"x": "\\u0000"}


def test_numbers_that_json_cannot_hold_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    metadata = '"a": 123456789012345678, "b": 1234567890123456789, "c": 1e999, "d": NaN, "e": 0.1, "f": -Infinity'
    path.write_text(f'[{{"type": "stock_universe", "key": "u", "value": {{"symbols": ["A"], {metadata}}}}}]')
    assert moved(*read_file(path)).group.metadata == {
        "a": 123_456_789_012_345_678,
        "b": "1234567890123456789",
        "c": "1e999",
        "d": "NaN",
        "e": 0.1,
        "f": "-Infinity",
    }


ROWS = [
    {"id": 1, "type": "stock_universe", "key": "a", "value": ["A"]},
    {"id": 2, "type": "stock_universe", "key": "b", "value": {"symbols": ["B"]}},
]
ALIGNED = """\
                              json_agg                              
--------------------------------------------------------------------
 [{"id":1,"type":"stock_universe","key":"a","value":["A"]},        +
  {"id":2,"type":"stock_universe","key":"b","value":{"symbols": ["B"]}}]
(1 row)

"""  # noqa: W291 - as psql writes it
ALIGNED_ROWS = """\
                              row_to_json                              
-----------------------------------------------------------------------
 {"id":1,"type":"stock_universe","key":"a","value":["A"]}
 {"id":2,"type":"stock_universe","key":"b","value":{"symbols": ["B"]}}
(2 rows)

"""  # noqa: W291 - as psql writes it
LINES = "\n".join(map(json.dumps, ROWS)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=4),
        json.dumps(json.dumps(ROWS)),
        json.dumps({"cache_entries": ROWS}),
        LINES,
        "".join(json.dumps(row, indent=2) for row in ROWS),
        f"\n\n{LINES}\n\n",
        ALIGNED,
        ALIGNED_ROWS,
        f"row_to_json\n{LINES}(2 rows)\n",
        f"jsonb_pretty\n{json.dumps(ROWS, indent=4)}\n(1 row)\n",
    ],
)
def test_a_file_is_read_as_psql_or_a_person_writes_it(text: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    for newline, encoding in (("\n", "utf-8"), ("\r\n", "utf-8-sig"), ("\r\n", "utf-16")):
        path.write_text(text, encoding, newline=newline)
        assert read_file(path) == ROWS


def test_a_file_may_give_values_by_type_and_key(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(
        json.dumps(
            {
                "stock_universe": {"dow30": ["AAPL"], "empty": []},
                "etf_holdings": {"SPY": '{"holdings": ["AAPL"]}'},
                "theme_definition": "none",
                "app_settings": {"a": 1, "b": 2},
            }
        )
    )
    assert plan_migration(read_file(path)) == MigrationPlan(
        (
            PlannedGroup(
                "stock_universe 'dow30' (entry 1)",
                "DEFAULT",
                GroupHoldings("UNIVERSE", "dow30", holdings("AAPL")),
                (),
            ),
            PlannedGroup("etf_holdings 'SPY' (entry 3)", "DEFAULT", GroupHoldings("ETF", "SPY", holdings("AAPL")), ()),
        ),
        (
            SkippedEntry("stock_universe 'empty' (entry 2)", "has no members; an empty group is not made"),
            SkippedEntry("theme_definition '' (entry 4)", "name '' is not 1 to 100 printable characters"),
        ),
        {"app_settings": 2},
    )


EXPORT = "export it by psql -At -c 'SELECT json_agg(t) FROM cache_entries AS t'"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", ": holds no entries"),
        (b"[]", ": holds no entries"),
        (b" json_agg \n----------\n \n(1 row)\n\n", ": holds no entries"),
        (b"hello", f", line 1: is not JSON here (Expecting value); {EXPORT}"),
        (b"<html>\n<body>[1]</body>", f", line 1: is not JSON here (Expecting value); {EXPORT}"),
        (LINES[:-20].encode(), f", line 2: is not JSON here (Expecting value); {EXPORT}"),
        (
            ALIGNED.replace('["A"]', '["A"').encode(),
            f", line 3: is not JSON here (Expecting ',' delimiter); {EXPORT}",
        ),
        (b'{"etf_holdings": {"SPY": ["A"], "SPY": ["B"]}}', ": has the key 'SPY' twice in one object"),
        (b'"[1"', ": is text that is not JSON ('[1': Expecting ',' delimiter)"),
        (b"[" * 1_000_000, ": is nested too deep"),
        (b'{"a":' * 1_000_000, ": is nested too deep"),
        (b"[" + b"1," * MAX_ENTRIES + b"1]", f": holds more than {MAX_ENTRIES:,} entries"),
        (b"1 " * (MAX_ENTRIES + 1), f": holds more than {MAX_ENTRIES:,} entries"),
        (b'["caf\xe9"]', ": is no text in UTF-8"),
        (b"\x1f\x8b\x08\x00", ": is no text in UTF-8"),
        (b"[" + b" " * MAX_SOURCE + b"]", f": is larger than {MAX_SOURCE // 2**20} MB"),
        (b"\n" * MAX_SOURCE, ": holds no entries"),
    ],
    ids=range(17),
)
def test_a_file_that_cannot_be_read_is_one_error(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(data)
    with pytest.raises(InputFileError) as error:
        read_file(path)
    assert str(error.value) == f"{path}{why}."


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", Path("/dev/zero")):
        with pytest.raises(InputFileError) as error:
            read_file(path)
        assert str(error.value) == f"{path}: is not a file."


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    [*GROUP_TYPES, "AAPL", "brk-b", "A B", "holdings", "symbols", "0.5", "50%", '["A"]', '"[]"', "PROD"]
)
JSON = st.recursive(
    SCALARS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4)
        | st.dictionaries(st.sampled_from(["symbol", "ticker", "weight", "name"]), inner, max_size=4)
        | inner.map(json.dumps)
    ),
    max_leaves=12,
)
VALUES = st.dictionaries(
    st.sampled_from(["holdings", "symbols", "stocks", "description", "market_cap_threshold", "last_updated"]),
    JSON | st.lists(WORDS | st.dictionaries(st.sampled_from(["symbol", "weight"]), SCALARS | WORDS), max_size=4),
)
ENTRIES = st.lists(
    JSON
    | st.fixed_dictionaries(
        {"type": st.sampled_from([*GROUP_TYPES, "app_settings"]) | JSON, "key": WORDS | JSON, "value": VALUES | JSON},
        optional=dict.fromkeys(("id", "name", "environment", "updated_at", "created_at"), JSON),
    ),
    max_size=6,
)


@given(ENTRIES)
@example([entry("etf_holdings", "A", [{"symbol": "B", "weight": math.inf}], id=True)])
@example([entry("etf_universe", "\ud800", ["\ud800"]), entry("stock_universe", "\u2028", {"symbols": ["A"]})])
def test_whatever_an_entry_holds_it_is_moved_or_left_or_counted_once(entries: list[object]) -> None:
    migration = plan_migration(entries)
    assert len(migration.groups) + len(migration.skipped) + sum(migration.other_types.values()) == len(entries)
    groups = [(move.environment, move.group.type, move.group.name.lower()) for move in migration.groups]
    assert len(set(groups)) == len(groups)
    for move in migration.groups:
        symbols = [holding.symbol for holding in move.group.holdings]
        assert len(set(symbols)) == len(symbols) > 0
        assert all(symbol.isprintable() and " " not in symbol and 0 < len(symbol) <= 50 for symbol in symbols)
        weights = [holding.weight for holding in move.group.holdings if holding.weight is not None]
        assert all(abs(weight) < 10 for weight in weights)
        json.dumps(move.group.metadata), json.dumps(move.group.liquidity_filter)
        lines = [move.entry, group_label(move), *move.notes]
        assert all(line.isprintable() and line.encode() for line in lines)
    for left in migration.skipped:
        assert all(line.isprintable() and line.encode() for line in left)


@given(ENTRIES)
def test_a_file_holds_what_was_written_to_it(tmp_path_factory: pytest.TempPathFactory, entries: list[object]) -> None:
    path = tmp_path_factory.getbasetemp() / "old.json"
    path.write_text(json.dumps(entries))
    try:
        found = read_file(path)
    except InputFileError as error:
        assert entries == [] and "holds no entries" in str(error)  # noqa: PT018 - one condition
    else:
        assert len(found) == len(entries)
        plan_migration(found)


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Connects to the new database."""
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def old_url(bare_url: str) -> str:
    """A database as TickStock left it."""
    old = await asyncpg.connect(bare_url)
    await old.execute(OLD)
    await old.close()
    return bare_url


async def groups(connection: Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch(
        "SELECT g.environment, g.type, g.name, g.description, string_agg(concat_ws(' ', m.symbol, m.weight::float), ', '"
        " ORDER BY m.symbol) FROM definition_groups AS g LEFT JOIN group_memberships AS m ON m.group_id = g.id"
        " GROUP BY g.id ORDER BY g.id"
    )
    return [tuple(row) for row in rows]


async def everything(connection: Connection) -> list[list[tuple[Any, ...]]]:
    """All rows of all tables, with the transactions that wrote them."""
    tables = ("definition_groups", "group_memberships", "symbols", "group_history", "membership_history", "data_change")
    return [
        [tuple(row) for row in await connection.fetch(f"SELECT t.xmin::text, t::text FROM {table} AS t ORDER BY 2")]
        for table in tables
    ]


MOVED = [
    ("DEFAULT", "ETF", "DIA", "SPDR Dow Jones Industrial Average ETF", "AAPL, BRK.B, IBM"),
    ("DEFAULT", "ETF", "QQQ", "Invesco QQQ Trust", "AAPL 0.394, NVDA 0.605"),
    ("DEFAULT", "THEME", "crypto_miners", "Companies that mine cryptocurrency", "MARA, RIOT"),
    ("TEST", "THEME", "crypto_miners", "Crypto Miners", "MARA"),
    ("DEFAULT", "SECTOR", "information_technology", "Hardware and software", "AAPL, NVDA"),
    ("DEFAULT", "UNIVERSE", "dow30", "Dow 30", "AAPL, IBM"),
    ("DEFAULT", "UNIVERSE", "theme_crypto", "Crypto Stocks", "COIN, MARA"),
    ("DEFAULT", "UNIVERSE", "top_2", "market_leaders", "AAPL, NVDA"),
    ("DEFAULT", "UNIVERSE", "top_1", "complete", "SPY"),
    ("DEFAULT", "UNIVERSE", "etf_theme_crypto", "Crypto ETFs", "FBTC, IBIT"),
    ("DEFAULT", "THEME", "ai", None, "MSFT, NVDA"),
    ("DEFAULT", "UNIVERSE", "ai", "themes", "MSFT, NVDA"),
    ("DEFAULT", "UNIVERSE", "mixed", "Mixed", "AAPL, SPY"),
]


async def test_the_old_table_moves_and_again_changes_nothing(old_url: str, connection: Connection) -> None:
    migration = plan_migration(await read_table(old_url))

    assert migration.skipped == (
        SkippedEntry("etf_holdings 'IWM' (id 3)", "has no members; an empty group is not made"),
        SkippedEntry("theme_definition 'space' (id 16)", "is text that is not JSON ('RKLB, ASTS': Expecting value)"),
        SkippedEntry(
            "theme_definition 'space' (id 17)", "environment 'PRODUCTION' is none of DEFAULT, TEST, UAT, PROD"
        ),
        SkippedEntry(
            "etf_holdings 'dia' (id 15)",
            "gives ETF DIA as etf_holdings 'DIA' (id 1) does, which was updated later and has other members",
        ),
    )
    assert migration.other_types == {"app_settings": 2, "stock_metadata": 1}
    assert {move.entry: move.notes for move in migration.groups if move.notes} == {
        "stock_universe 'dow30' (id 7)": ("member 3 left out: AAPL is member 1 too",),
        "stock_universe 'top_2' (id 9)": (
            "of members only symbol, weight, name and industry are kept, not 'exchange', 'rank', 'sector'",
        ),
        "etf_universe 'top_1' (id 10)": (
            "of members only symbol, weight, name and industry are kept, not 'issuer', 'rank'",
        ),
        "etf_universe 'theme_crypto' (id 11)": (
            "a stock_universe has the key theme_crypto too, so its name is etf_theme_crypto",
        ),
    }

    assert await migrate(connection, migration.groups) == MigrationResult(migration.groups, (), ())
    assert await groups(connection) == MOVED
    assert [
        tuple(row)
        for row in await connection.fetch(
            "SELECT * FROM symbols WHERE name IS NOT NULL OR industry IS NOT NULL ORDER BY symbol"
        )
    ] == [
        ("AAPL", "Apple Inc.", "Hardware"),
        ("NVDA", "NVIDIA Corp", None),
        ("SPY", "SPDR S&P 500 ETF Trust", None),
    ]

    written = await everything(connection)
    assert plan_migration(await read_table(old_url)) == migration
    assert await migrate(connection, migration.groups) == MigrationResult((), migration.groups, ())
    assert await everything(connection) == written


async def test_what_is_said_of_a_group_and_its_day_move_too(old_url: str, connection: Connection) -> None:
    await migrate(connection, plan_migration(await read_table(old_url)).groups)
    rows = await connection.fetch(
        "SELECT g.name, nullif(g.metadata - 'as_of', '{}'), g.liquidity_filter, h.valid_from FROM definition_groups AS g"
        " JOIN group_history AS h ON h.group_id = g.id"
        " WHERE g.environment = 'DEFAULT' AND g.type IN ('ETF', 'SECTOR') ORDER BY g.id"
    )
    assert [
        (name, metadata and json.loads(metadata), liquidity and json.loads(liquidity), day)
        for name, metadata, liquidity, day in rows
    ] == [
        (
            "DIA",
            {"data_source": "inline", "last_updated": "2025-11-27T09:30:00.125000", "total_holdings": 3},
            {"market_cap_threshold": 5_000_000_000},
            date(2025, 11, 27),
        ),
        ("QQQ", None, None, date(2025, 11, 20)),
        (
            "information_technology",
            {"industries": ["Software", "Semiconductors"], "name": "Information Technology", "stock_count": 72},
            None,
            date(2025, 11, 26),
        ),
    ]


async def test_the_tables_of_one_database_may_be_old_and_new(database_url: str, connection: Connection) -> None:
    await connection.execute(OLD)
    migration = plan_migration(await read_table(database_url))
    assert await migrate(connection, migration.groups) == MigrationResult(migration.groups, (), ())
    assert await groups(connection) == MOVED


async def load(connection: Connection, name: str, weights: Mapping[str, str | None], kind: str = "ETF") -> None:
    members = tuple(
        Holding(symbol, weight and D(weight), f"The {symbol} Company") for symbol, weight in weights.items()
    )
    loaded = GroupHoldings(kind, name, members, "loaded")
    await replace_group(connection, loaded, environment="DEFAULT")


async def test_what_was_loaded_since_stays(connection: Connection) -> None:
    await load(connection, "SAME", {"A": "0.5", "B": None})
    await load(connection, "OTHER", {"A": "0.5", "B": "0.5"})
    await load(connection, "WEIGHTS", {"A": "0.6", "B": "0.4"})
    await load(connection, "EMPTY", {})
    await load(connection, "SAME", {"X": None}, "UNIVERSE")
    await connection.execute("UPDATE symbols SET name = NULL, industry = 'Known' WHERE symbol = 'B'")
    named_members = [
        {"symbol": "A", "name": "Old A", "industry": "Old"},
        {"symbol": "B", "name": "Old B", "industry": "Old"},
    ]
    before = await groups(connection)
    migration = plan_migration(
        [
            entry("etf_holdings", "SAME", {"holdings": named_members, "description": "old", "x": 1}),
            entry("etf_holdings", "OTHER", ["A", "C", "D"]),
            entry("etf_holdings", "WEIGHTS", [{"symbol": "A", "weight": 50}, {"symbol": "B", "weight": 40}]),
            entry("etf_holdings", "EMPTY", {"holdings": named_members}),
            entry("etf_holdings", "NEW", [{"symbol": "A", "name": "Older A"}, {"symbol": "B", "name": "Older B"}]),
        ]
    )
    same, _, _, empty, new = migration.groups

    assert await migrate(connection, migration.groups) == MigrationResult(
        (empty, new),
        (same,),
        (
            SkippedEntry(
                "etf_holdings 'OTHER' (entry 2)",
                "ETF OTHER is in the database already and differs (2 members that it lacks, 1 that the entry lacks);"
                " what is there stays",
            ),
            SkippedEntry(
                "etf_holdings 'WEIGHTS' (entry 3)",
                "ETF WEIGHTS is in the database already and differs (1 other weights); what is there stays",
            ),
        ),
    )
    filled = [("DEFAULT", "ETF", "EMPTY", "loaded", "A, B") if row[2] == "EMPTY" else row for row in before]
    assert await groups(connection) == [*filled, ("DEFAULT", "ETF", "NEW", None, "A, B")]
    assert [tuple(row) for row in await connection.fetch("SELECT * FROM symbols ORDER BY symbol")] == [
        ("A", "The A Company", "Old"),
        ("B", "Old B", "Known"),
        ("X", "The X Company", None),
    ]


async def test_a_group_that_the_database_refuses_is_left_and_the_rest_moves(connection: Connection) -> None:
    await connection.execute("ALTER TABLE definition_groups DROP CONSTRAINT definition_groups_type_check")
    await connection.execute("ALTER TABLE definition_groups ADD CHECK (type <> 'UNIVERSE')")
    migration = plan_migration(
        [
            entry("stock_universe", "u", ["A"]),
            entry("etf_universe", "x" * 97, ["A"]),
            entry("stock_universe", "x" * 97, ["A"]),
            entry("etf_holdings", "SPY", ["A"]),
        ]
    )
    outcome = await migrate(connection, migration.groups)
    assert outcome.migrated == (migration.groups[-1],)
    assert outcome.present == ()
    assert [left.entry for left in outcome.skipped] == [move.entry for move in migration.groups[:-1]]
    assert outcome.skipped[0].reason == (
        "UNIVERSE u: the constraint definition_groups_type_check of definition_groups refuses it"
        " (type UNIVERSE in environment DEFAULT); widen that constraint, or load the group as another type"
    )
    assert await groups(connection) == [("DEFAULT", "ETF", "SPY", None, "A")]


async def test_migrations_at_the_same_time_move_each_group_once(database_url: str, old_url: str) -> None:
    moves = plan_migration(await read_table(old_url)).groups

    async def run() -> MigrationResult:
        own = await asyncpg.connect(database_url)
        try:
            return await migrate(own, moves)
        finally:
            await own.close()

    outcomes = await asyncio.gather(*(run() for _ in range(4)))
    assert sorted(move.entry for outcome in outcomes for move in outcome.migrated) == sorted(
        move.entry for move in moves
    )
    assert all(len(outcome.migrated) + len(outcome.present) == len(moves) for outcome in outcomes)
    reader = await asyncpg.connect(database_url)
    assert sorted(await groups(reader), key=str) == sorted(MOVED, key=str)
    await reader.close()


async def test_a_migration_that_is_cut_off_goes_on_where_it_ended(
    database_url: str, old_url: str, connection: Connection
) -> None:
    moves = plan_migration(await read_table(old_url)).groups
    own = await asyncpg.connect(database_url)
    await migrate(own, moves[:5])
    own.terminate()
    assert await migrate(connection, moves) == MigrationResult(moves[5:], moves[:5], ())
    assert await groups(connection) == MOVED


async def test_a_table_with_other_columns_is_read_by_those_it_has(bare_url: str) -> None:
    old = await asyncpg.connect(bare_url)
    await old.execute("CREATE TABLE cache_entries (type text, name text, value text)")
    await old.execute(
        """INSERT INTO cache_entries VALUES ('stock_universe', 'b', '["B"]'), ('stock_universe', 'a', '["A"]'),
           ('stock_universe', 'c', NULL), (NULL, 'd', '["D"]'), ('other', 'e', repeat('x', 1000))"""
    )
    await old.close()
    migration = plan_migration(await read_table(bare_url), environment="PROD")
    assert [(group_label(move), move.group.holdings) for move in migration.groups] == [
        ("UNIVERSE a of PROD", holdings("A")),
        ("UNIVERSE b of PROD", holdings("B")),
    ]
    assert sorted(left.reason for left in migration.skipped) == ["has no type", "has no value"]
    assert migration.other_types == {"other": 1}


async def test_values_of_other_types_are_not_read_and_too_many_of_groups_are_refused(
    bare_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.loading.tickstock_entries.MAX_SOURCE", 2**20)
    old = await asyncpg.connect(bare_url)
    await old.execute("CREATE TABLE cache_entries (type text, key text, value jsonb)")
    await old.execute("INSERT INTO cache_entries VALUES ('stock_universe', 'a', '[\"A\"]')")
    insert = "INSERT INTO cache_entries VALUES ($1, 'x', to_jsonb(repeat('x', $2)))"
    await old.execute(insert, "other", 2**20)
    assert [row["value"] for row in await read_table(bare_url)] == ['["A"]', None]
    await old.execute(insert, "stock_universe", 2**20)
    with pytest.raises(StockgraphError) as error:
        await read_table(bare_url)
    assert str(error.value) == "The groups in cache_entries are 1,048,583 bytes of JSON, over 1 MB."
    await old.close()


async def test_why_the_old_table_cannot_be_read_is_said_without_its_password(bare_url: str) -> None:
    for url, why in (
        (bare_url, "The database has no table cache_entries; name the address of another database, or a JSON file."),
        (
            "postgresql://me:secret@127.0.0.1:1/old",
            "The old database: The database does not answer; try again when it is back.",
        ),
        (
            "mysql://me:secret@host/old",
            "The old database: its address is not of the form postgresql://user:password@host/database.",
        ),
    ):
        with pytest.raises(StockgraphError) as error:
            await read_table(url)
        assert str(error.value) == why
