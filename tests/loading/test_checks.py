from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest

from graph.loading.checks import Finding, check
from graph.postgres.database import Connection


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Connection]:
    opened = await asyncpg.connect(database_url)
    yield opened
    await opened.close()


async def add(
    connection: Connection, kind: str, name: str, members: Mapping[str, str | None], environment: str = "DEFAULT"
) -> None:
    group_id = await connection.fetchval(
        "INSERT INTO definition_groups (name, type, environment) VALUES ($1, $2, $3) RETURNING id",
        name,
        kind,
        environment,
    )
    await connection.execute(
        "INSERT INTO group_memberships (group_id, symbol, weight)"
        " SELECT $1, * FROM unnest($2::text[], $3::text[]::numeric[])",
        group_id,
        list(members),
        list(members.values()),
    )


async def test_an_empty_database_has_nothing_wrong(database: Connection) -> None:
    assert await check(database, "DEFAULT") == []


async def test_sound_groups_have_nothing_wrong(database: Connection) -> None:
    await add(database, "SECTOR", "energy", {"XOM": None, "CVX": None})
    await add(database, "SECTOR", "utilities", {"NEE": None})
    await add(database, "ETF", "LEAST", {"XOM": "0.65", "CVX": "0.3", "NEE": None})
    await add(database, "ETF", "MOST", {"XOM": "1", "CVX": "0.05", "NEE": "0"})
    await add(database, "THEME", "unweighted_and_in_no_sector", {"ASML": None})
    await add(database, "UNIVERSE", "weights_of_no_whole", {"XOM": "0.2"})
    assert await check(database, "DEFAULT") == []


async def test_every_kind_of_finding_faults_first(database: Connection) -> None:
    await add(database, "SECTOR", "utilities", {"NEE": None, "BEP": None})
    await add(database, "SECTOR", "energy", {"XOM": None, "BEP": None})
    await add(database, "CUSTOM", "nothing", {})
    await add(database, "ETF", "LIGHT", {"XOM": "0.5", "NEE": "0.44999999", "BEP": None})
    await add(database, "ETF", "SHORT", {"XOM": "1.01", "NEE": "-0.01"})
    await add(database, "ETF", "BROKEN", {"XOM": "1", "NEE": "NaN"})
    await add(database, "ETF", "PLAIN", {"XOM": None, "NEE": None})
    await add(database, "ETF", "WIDE", {"ASML": "0.4", "XOM": "0.6"})
    assert await check(database, "DEFAULT") == [
        Finding("fault", "empty_group", "CUSTOM nothing has no members."),
        Finding("fault", "negative_weight", "ETF SHORT has 1 negative weights (NEE)."),
        Finding("fault", "two_sectors", "The sectors energy, utilities share 1 stocks (BEP)."),
        Finding("fault", "weight_not_a_number", "ETF BROKEN has 1 NaN weights (NEE)."),
        Finding(
            "fault",
            "weight_sum",
            "ETF LIGHT has weights that sum to 0.94999999, outside 0.95-1.05; 1 of 3 members have none.",
        ),
        Finding("warning", "no_sector", "ETF WIDE has 1 of 2 members in no sector (ASML)."),
        Finding("warning", "unweighted", "ETF PLAIN has no weights (2 members)."),
    ]


async def test_weights_of_any_group_are_checked_for_sense_and_of_etfs_for_their_sum(database: Connection) -> None:
    await add(database, "SECTOR", "all", {"A": None, "B": None, "C": "-0.5"})
    await add(database, "ETF", "OVER", {"A": "0.55", "B": "0.50000001"})
    await add(database, "ETF", "ZEROS", {"A": "0", "B": "0"})
    await add(database, "ETF", "ONLY_NAN", {"A": "NaN", "B": "NaN"})
    await add(database, "THEME", "both", {"A": "NaN", "B": "-1", "C": "-9.99999999"})
    assert await check(database, "DEFAULT") == [
        Finding("fault", "negative_weight", "SECTOR all has 1 negative weights (C)."),
        Finding("fault", "negative_weight", "THEME both has 2 negative weights (C, B)."),
        Finding("fault", "weight_not_a_number", "ETF ONLY_NAN has 2 NaN weights (A, B)."),
        Finding("fault", "weight_not_a_number", "THEME both has 1 NaN weights (A)."),
        Finding("fault", "weight_sum", "ETF OVER has weights that sum to 1.05000001, outside 0.95-1.05."),
        Finding("fault", "weight_sum", "ETF ZEROS has weights that sum to 0.00000000, outside 0.95-1.05."),
        Finding("warning", "unweighted", "ETF ONLY_NAN has no weights (2 members)."),
    ]


async def test_of_many_symbols_the_first_five_are_named(database: Connection) -> None:
    stocks = [f"S{number}" for number in range(7)]
    await add(database, "SECTOR", "one", dict.fromkeys([*stocks, "B", "a"]))
    await add(database, "SECTOR", "two", dict.fromkeys([*stocks, "X"]))
    await add(database, "SECTOR", "three", dict.fromkeys(["X", "a", "B"]))
    weights = {"L": "0.05", "H": "0.4", "N": None, "Z": "0.1", "Y": "0.1", "M": "0.2", "a": "0.1", "B": "0.05"}
    await add(database, "ETF", "MANY", weights)
    assert await check(database, "DEFAULT") == [
        Finding("fault", "two_sectors", "The sectors one, three share 2 stocks (B, a)."),
        Finding("fault", "two_sectors", "The sectors one, two share 7 stocks (S0, S1, S2, S3, S4 ...)."),
        Finding("fault", "two_sectors", "The sectors three, two share 1 stocks (X)."),
        Finding("warning", "no_sector", "ETF MANY has 6 of 8 members in no sector (H, M, Y, Z, L ...)."),
    ]


async def test_a_stock_of_three_sectors_is_one_finding(database: Connection) -> None:
    for sector in ("a", "b", "c"):
        await add(database, "SECTOR", sector, {"X": None})
    assert await check(database, "DEFAULT") == [
        Finding("fault", "two_sectors", "The sectors a, b, c share 1 stocks (X).")
    ]


async def test_environments_do_not_mix(database: Connection) -> None:
    await add(database, "SECTOR", "energy", {"XOM": None}, "PROD")
    await add(database, "SECTOR", "materials", {"XOM": None}, "TEST")
    await add(database, "ETF", "XLE", {"XOM": "1"}, "PROD")
    await add(database, "ETF", "XLE", {"XOM": "-0.1", "CVX": "NaN"}, "TEST")
    await add(database, "ETF", "XLE", {"XOM": "1"}, "UAT")
    await add(database, "THEME", "oil", {}, "UAT")
    found = {name: await check(database, name) for name in ("DEFAULT", "TEST", "UAT", "PROD")}
    assert found == {
        "DEFAULT": [],
        "PROD": [],
        "TEST": [
            Finding("fault", "negative_weight", "ETF XLE has 1 negative weights (XOM)."),
            Finding("fault", "weight_not_a_number", "ETF XLE has 1 NaN weights (CVX)."),
            Finding(
                "fault",
                "weight_sum",
                "ETF XLE has weights that sum to -0.10000000, outside 0.95-1.05; 1 of 2 members have none.",
            ),
            Finding("warning", "no_sector", "ETF XLE has 1 of 2 members in no sector (CVX)."),
        ],
        "UAT": [
            Finding("fault", "empty_group", "THEME oil has no members."),
            Finding("warning", "no_sector", "ETF XLE has 1 of 1 members in no sector (XOM)."),
        ],
    }


async def test_a_message_has_names_as_they_are(database: Connection) -> None:
    await add(database, "SEGMENT", "two\nlines\t{of} %s", {})
    assert await check(database, "DEFAULT") == [
        Finding("fault", "empty_group", "SEGMENT two\nlines\t{of} %s has no members.")
    ]


async def test_the_columns_of_tickstock_are_checked_alike(database: Connection) -> None:
    await database.execute("ALTER TABLE group_memberships ALTER weight TYPE numeric(5,4)")
    await add(database, "SECTOR", "energy", {"XOM": None, "CVX": None})
    await add(database, "ETF", "XLE", {"XOM": "0.9", "CVX": "0.00004"})
    assert await check(database, "DEFAULT") == [
        Finding("fault", "weight_sum", "ETF XLE has weights that sum to 0.9000, outside 0.95-1.05.")
    ]


async def test_a_check_reads_one_state_and_writes_nothing(database: Connection, database_url: str) -> None:
    await add(database, "THEME", "empty", {})
    async with database.transaction(isolation="repeatable_read", readonly=True):
        before = await check(database, "DEFAULT")
        other = await asyncpg.connect(database_url)
        await other.execute("DELETE FROM definition_groups")
        await other.close()
        within = await check(database, "DEFAULT")
    expected = [Finding("fault", "empty_group", "THEME empty has no members.")]
    assert (before, within, await check(database, "DEFAULT")) == (expected, expected, [])


async def add_bars(connection: Connection, *rows: str) -> None:
    """Add bars: symbol, date, open, close."""
    await connection.execute(
        "INSERT INTO ohlcv_daily (symbol, date, open, close) SELECT s, d::date, nullif(o, '')::float8, nullif(c, '')::float8"
        " FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS t (s, d, o, c)",
        *zip(*(row.split(",") for row in rows), strict=True),
    )


async def test_closes_that_are_no_prices_and_days_to_come_are_faults(database: Connection) -> None:
    await add_bars(
        database,
        "A,2024-03-01,1,0",
        "B,2024-03-01,1,-1",
        "C,2024-03-01,1,NaN",
        "D,2024-03-01,1,Infinity",
        "E,2024-03-01,1,",
        "F,2024-03-01,1,-Infinity",
        "G,2024-03-01,,1",
        "H,9999-01-01,1,1",
    )
    await database.execute("INSERT INTO ohlcv_daily VALUES ('I', (now() AT TIME ZONE 'UTC')::date + 1, 1, 1, 1, 1, 1)")
    assert await check(database, "DEFAULT") == [
        Finding(
            "fault",
            "bad_close",
            "6 bars have no close that is a price (A 2024-03-01, B 2024-03-01, C 2024-03-01, D 2024-03-01, E 2024-03-01 ...).",
        ),
        Finding("fault", "future_bar", "1 bars are of days after tomorrow (H 9999-01-01)."),
    ]


@pytest.mark.parametrize("kind", ["double precision", "numeric(12,4)"])
async def test_a_close_as_by_a_split_is_a_warning(database: Connection, kind: str) -> None:
    moves = [
        ("25", "25", "4:1"),
        ("25.9", "23.5", "4:1"),
        ("66.2", "65.5", "3:2"),
        ("2", "2", "50:1"),
        ("150", "151", "2:3"),
        ("203", "190", "1:2"),
        ("1000", "1050", "1:10"),
        # 9:1 is no ratio, and the others are too far off at the open or the close
        ("11.1", "11.1", None),
        ("26.1", "25", None),
        ("25", "22", None),
        ("65", "66.6", None),
        ("90", "50", None),
        ("", "50", None),
        ("NaN", "50", None),
        ("-50", "50", None),
        ("200", "50", None),
        ("99", "101", None),
    ]
    await database.execute(f"ALTER TABLE ohlcv_daily ALTER open TYPE {kind}, ALTER close TYPE {kind}")
    for number, (opened, close, _) in enumerate(moves, 10):
        await add_bars(database, f"S{number},2024-02-28,100,100", f"S{number},2024-03-04,{opened},{close}")
    assert await check(database, "DEFAULT") == [
        Finding(
            "warning",
            "split",
            f"S{number} went from 100 to {close} on 2024-03-04, as by a split of {ratio} that the prices before are not adjusted for.",
        )
        for number, (_, close, ratio) in enumerate(moves, 10)
        if ratio
    ]


async def test_one_split_of_a_stock_is_named_and_twenty_stocks(database: Connection) -> None:
    stocks = [f"S{number:02}" for number in range(23)]
    days = [("2024-02-28", 100), ("2024-02-29", 50), ("2024-03-01", 10)]
    await add_bars(database, *(f"{stock},{day},{close},{close}" for stock in stocks for day, close in days))
    found = await check(database, "DEFAULT")
    assert found == [
        Finding("warning", "split", "3 more stocks have closes as by splits."),
        *(
            Finding(
                "warning",
                "split",
                f"{stock} went from 100 to 50 on 2024-02-29, as by a split of 2:1 that the prices before are not adjusted for.",
            )
            for stock in stocks[:20]
        ),
    ]


@pytest.mark.parametrize("statement", ["DROP TABLE ohlcv_daily", "ALTER TABLE ohlcv_daily DROP open"])
async def test_without_prices_of_ours_there_is_nothing_to_find_in_them(database: Connection, statement: str) -> None:
    await add_bars(database, "A,2024-03-01,1,0")
    await database.execute(statement)
    assert await check(database, "DEFAULT") == []
