import asyncio
import csv
import os
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph.errors import DatabaseUnavailable
from graph.loading.discovery import read_paths
from graph.loading.group_writer import Listed
from graph.loading.price_writer import PricesDiff, PricesRefused, load_bars
from graph.postgres.database import Connection

VENDOR_FILES = os.environ.get("TEST_VENDOR_FILES")
"""A folder of files as vendors publish them, which may not be passed on."""
Connect = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
HEADER = "symbol,date,open,high,low,close,volume\n"
MARCH = date(2024, 3, 1)
ROWS = HEADER + "A,2024-03-01,1.5,2,1,1.25,100\nB,2024-03-01,3,3,3,3,\nA,2024-03-04,1,1,1,1,1\n"
WRITTEN = [
    ("A", MARCH, 1.5, 2, 1, 1.25, 100),
    ("A", date(2024, 3, 4), 1, 1, 1, 1, 1),
    ("B", MARCH, 3, 3, 3, 3, None),
]


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Connect]:
    """Opens connections to a database of the test's own."""
    async with AsyncExitStack() as stack:

        async def opened() -> "asyncpg.Connection[asyncpg.Record]":
            connection = await asyncpg.connect(database_url)
            stack.push_async_callback(connection.close, timeout=5)
            return connection

        yield opened


@pytest.fixture
async def connection(connect: Connect) -> Connection:
    return await connect()


async def load(
    connection: Connection, folder: Path, files: Mapping[str, str], *, dry_run: bool = False
) -> tuple[PricesDiff, list[str]]:
    """Load files with these contents, in this order; what changed, and the errors without the folder."""
    for name, content in files.items():
        (folder / name).write_text(content)
    reading = read_paths([folder / name for name in files])
    assert (reading.groups, reading.errors) == ((), ())
    told, errors = await load_bars(connection, reading.prices, dry_run=dry_run)
    return told, [str(error).replace(f"{folder}/", "") for error in errors]


def diff(**changes: Any) -> PricesDiff:
    """The diff of ROWS that changes nothing, but for what is given."""
    nothing = {
        "files": 1, "rows": 3, "symbols": "A B", "first": MARCH, "last": date(2024, 3, 4),
        "added": 0, "changed": 0, "unchanged": 0, "left_out": 0,
    }  # fmt: skip
    told = nothing | changes
    symbols = tuple(told["symbols"].split())
    return PricesDiff(**(told | {"symbols": Listed(len(symbols), symbols)}))


async def prices(connection: Connection) -> list[tuple[Any, ...]]:
    rows = await connection.fetch("SELECT * FROM ohlcv_daily ORDER BY symbol, date")
    return [tuple(row) for row in rows]


async def everything(connection: Connection) -> list[list[asyncpg.Record]]:
    """All rows with the transactions that wrote them, and the record of changes."""
    return [
        await connection.fetch("SELECT xmin::text, xmax::text, * FROM ohlcv_daily ORDER BY symbol, date"),
        await connection.fetch("SELECT family, xid::text, weight FROM data_change ORDER BY family, xid"),
    ]


async def test_a_second_load_of_the_same_writes_nothing_and_tells_nobody(
    connection: Connection, connect: Connect, tmp_path: Path
) -> None:
    assert await load(connection, tmp_path, {"ohlcv.csv": ROWS}) == (diff(added=3), [])
    assert await prices(connection) == WRITTEN
    before = await everything(connection)
    assert [row["family"] for row in before[1]] == ["prices", "prices 2024-03"]
    listener, heard = await connect(), []
    await listener.add_listener("stockgraph", lambda *each: heard.append(each))
    assert await load(connection, tmp_path, {"ohlcv.csv": ROWS}) == (diff(unchanged=3), [])
    assert await everything(connection) == before
    await listener.fetchval("SELECT 1")
    assert heard == []


async def test_the_difference_is_told_and_written(connection: Connection, tmp_path: Path) -> None:
    await load(connection, tmp_path, {"ohlcv.csv": ROWS})
    news = ROWS.replace("1.25,100", "1.25,101").replace("A,2024-03-04", "C,2024-03-04") + "D,2024-03-04,1,1,1,,1\n"
    told = diff(symbols="A B C", added=1, changed=1, unchanged=1, left_out=1)
    assert await load(connection, tmp_path, {"ohlcv.csv": news}, dry_run=True) == (told, [])
    assert await prices(connection) == WRITTEN
    assert await load(connection, tmp_path, {"ohlcv.csv": news}) == (told, [])
    assert await prices(connection) == [
        ("A", MARCH, 1.5, 2, 1, 1.25, 101),
        *WRITTEN[1:],
        ("C", date(2024, 3, 4), 1, 1, 1, 1, 1),
    ]


async def test_a_column_that_a_file_lacks_leaves_what_is_there_and_an_empty_cell_does_not(
    connection: Connection, tmp_path: Path
) -> None:
    await load(connection, tmp_path, {"ohlcv.csv": ROWS})
    one: dict[str, Any] = {"rows": 1, "symbols": "A", "last": MARCH}
    close = "symbol,date,close\nA,2024-03-01,1.25\n"
    assert await load(connection, tmp_path, {"close.csv": close}) == (diff(**one, unchanged=1), [])
    assert await load(connection, tmp_path, {"close.csv": close.replace("1.25", "9")}) == (diff(**one, changed=1), [])
    assert (await prices(connection))[0] == ("A", MARCH, 1.5, 2, 1, 9, 100)
    empty = HEADER + "A,2024-03-01,,2,,9,\n"
    assert await load(connection, tmp_path, {"ohlcv.csv": empty}) == (diff(**one, changed=1), [])
    assert (await prices(connection))[0] == ("A", MARCH, None, 2, None, 9, None)


async def test_a_file_with_a_bad_row_changes_nothing_and_others_load(connection: Connection, tmp_path: Path) -> None:
    files = {
        "ohlcv_1.csv": HEADER + "X,2024-03-01,1,1,1,1,1\n" * 3_000 + "X,2024-03-01,1,1,1,0,1\n",
        "ohlcv_2.csv": ROWS,
        "ohlcv_3.csv": HEADER + "Y,2024-03-01,1,1,1,1,1\n\0",
        "ohlcv_4.csv": HEADER + "Z,2024-03-01,1,1,1,0,1\nZ,2024-03-01,1,1,1,1\nZ,2024-03-01,1,1,1,1,1\n",
    }
    assert await load(connection, tmp_path, files) == (
        diff(added=3),
        [
            "ohlcv_1.csv, line 3002: close '0' is not a price above 0 such as 179.66.",
            "ohlcv_3.csv, line 3: holds a zero byte; this is not a text file.",
            "ohlcv_4.csv, line 2: close '0' is not a price above 0 such as 179.66.",
            "ohlcv_4.csv, line 3: has 6 fields where the header has 7; a field with a comma needs quotes.",
        ],
    )
    assert await prices(connection) == WRITTEN


async def test_a_load_of_bad_files_alone_writes_nothing(connection: Connection, tmp_path: Path) -> None:
    told, errors = await load(connection, tmp_path, {"ohlcv.csv": HEADER + "A,2024-03-01,1,1,1,0,1\n"})
    assert told == diff(files=0, rows=0, symbols="", first=None, last=None)
    assert len(errors) == 1
    assert await everything(connection) == [[], []]


async def test_a_day_twice_in_a_file_names_both_lines(connection: Connection, tmp_path: Path) -> None:
    rows = "A,2024-03-01,1,1,1,1,1\nB,2024-03-01,1,1,1,1,1\na,2024-03-01,1,1,1,1,1\n"
    many = HEADER + "C,2024-03-01,1,1,1,1,1\n" * 30
    told, errors = await load(
        connection, tmp_path, {"ohlcv_1.csv": HEADER + rows, "ohlcv_2.csv": many, "ohlcv_3.csv": ROWS}
    )
    assert told == diff(added=3)
    assert errors[:2] == [
        "ohlcv_1.csv, line 4: A 2024-03-01 is on line 2 too.",
        "ohlcv_2.csv, line 3: C 2024-03-01 is on line 2 too.",
    ]
    assert (len(errors), errors[-1]) == (22, "ohlcv_2.csv: 9 more bad rows.")
    assert await prices(connection) == WRITTEN


async def test_a_day_in_two_files_is_one_bar_where_they_agree(connection: Connection, tmp_path: Path) -> None:
    files = {
        "yahoo_A.csv": "date,close,open\n2024-03-01,1.25,1.5\n",
        "ohlcv.csv": ROWS,
        "A.csv": "date,close\n2024-03-01,1.250\n2024-03-05,7\n",
        "again.csv": ROWS,
    }
    assert await load(connection, tmp_path, files) == (
        diff(files=4, rows=9, last=date(2024, 3, 5), added=4, unchanged=5),
        [],
    )
    added = ("A", date(2024, 3, 5), None, None, None, 7, None)
    assert await prices(connection) == [*WRITTEN[:2], added, WRITTEN[2]]


async def test_of_two_files_that_differ_the_first_is_loaded(connection: Connection, tmp_path: Path) -> None:
    files = {
        "A.csv": "date,close,volume\n2024-03-01,1.25,100\n2024-03-05,7,\n",
        "nasdaq_A.csv": "date,close,volume\n2024-03-01,1.25,100\n2024-03-05,7,1\n",
        "ohlcv.csv": ROWS,
        "yahoo_A.csv": "date,close\n2024-03-01,1.26\n2024-03-05,7\n",
    }
    told, errors = await load(connection, tmp_path, files)
    assert errors == [
        "nasdaq_A.csv, line 3: A 2024-03-05 is in A.csv too, with other prices; keep one.",
        "yahoo_A.csv, line 2: A 2024-03-01 is in A.csv too, with other prices; keep one.",
    ]
    assert told == diff(files=2, rows=5, last=date(2024, 3, 5), added=4, unchanged=1)
    assert await prices(connection) == [
        *WRITTEN[:2],
        ("A", date(2024, 3, 5), None, None, None, 7, None),
        WRITTEN[2],
    ]


async def test_what_differs_from_a_file_that_is_refused_loads(connection: Connection, tmp_path: Path) -> None:
    files = {
        "1.csv": "symbol,date,close\nA,2024-03-01,1\n",
        "2.csv": "symbol,date,close\nA,2024-03-01,2\nB,2024-03-01,2\n",
        "3.csv": "symbol,date,close\nB,2024-03-01,3\n",
        "4.csv": "symbol,date,close\nA,2024-03-01,2\n",
    }
    told, errors = await load(connection, tmp_path, files)
    assert errors == [
        "2.csv, line 2: A 2024-03-01 is in 1.csv too, with other prices; keep one.",
        "4.csv, line 2: A 2024-03-01 is in 1.csv too, with other prices; keep one.",
    ]
    assert told == diff(files=2, rows=2, last=MARCH, added=2)
    assert [(row[0], row[5]) for row in await prices(connection)] == [("A", 1), ("B", 3)]


async def test_a_symbol_that_only_copy_would_trip_over_is_written(connection: Connection, tmp_path: Path) -> None:
    odd = ["\\N", "\\.", "A\\\\B", "É", "'A'", '"""B"""', "NULL"]
    content = "symbol,date,close\n" + "".join(f"{symbol},2024-03-01,1\n" for symbol in odd)
    told, errors = await load(connection, tmp_path, {"ohlcv.csv": content})
    assert (told.added, errors) == (7, [])
    assert {row[0] for row in await prices(connection)} == {*odd[:5], '"B"', "NULL"}


async def test_missing_tables_name_the_command_that_makes_them(connection: Connection, tmp_path: Path) -> None:
    await connection.execute("DROP TABLE ohlcv_daily")
    with pytest.raises(DatabaseUnavailable) as lacking:
        await load(connection, tmp_path, {"ohlcv.csv": ROWS})
    assert str(lacking.value) == "The database lacks tables (ohlcv_daily); `stockgraph init` makes what is missing."


FOREIGN = """
DROP TABLE ohlcv_daily;
CREATE TABLE ohlcv_daily (
    id serial, symbol varchar(5) NOT NULL, date date NOT NULL, open numeric(12,4), high numeric(12,4) NOT NULL,
    low numeric, close numeric(6,2) CHECK (close < 1000), volume integer, note text DEFAULT 'x', UNIQUE (symbol, date))"""


async def test_prices_are_rounded_and_compared_at_the_scale_of_the_column(
    connection: Connection, tmp_path: Path
) -> None:
    await connection.execute(FOREIGN)
    rows = HEADER + "A,2024-03-01,1.00005,2.00004999,0.123456789012345678901,1.005,100\n"
    one: dict[str, Any] = {"rows": 1, "symbols": "A", "last": MARCH}
    assert await load(connection, tmp_path, {"ohlcv.csv": rows}) == (diff(**one, added=1), [])
    assert await connection.fetchrow("SELECT open, high, low, close, volume, note FROM ohlcv_daily") == (
        Decimal("1.0001"), Decimal("2.0000"), Decimal("0.123456789012345678901"), Decimal("1.01"), 100, "x",
    )  # fmt: skip
    assert await load(connection, tmp_path, {"ohlcv.csv": rows}) == (diff(**one, unchanged=1), [])


async def test_what_the_table_cannot_hold_is_told_by_file(connection: Connection, tmp_path: Path) -> None:
    await connection.execute(FOREIGN)
    files = {
        "ohlcv_1.csv": HEADER + "A,2024-03-01,1,1,1,123456,1\n",
        "ohlcv_2.csv": HEADER + "A,2024-03-01,1,1,1,1,3000000000\n",
        "ohlcv_3.csv": HEADER + "ABCDEF,2024-03-01,1,1,1,1,1\n",
        "ohlcv_4.csv": ROWS,
    }
    told, errors = await load(connection, tmp_path, files)
    assert (told.files, told.added) == (1, 3)
    assert errors == [
        'ohlcv_1.csv: the database cannot hold it (numeric field overflow; column close: "123456").',
        'ohlcv_2.csv: the database cannot hold it (value "3000000000" is out of range for type integer; column volume: "3000000000").',
        'ohlcv_3.csv: the database cannot hold it (value too long for type character varying(5); column symbol: "ABCDEF").',
    ]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE ROLE {0}; SET ROLE {0}", "the database does not let this user write it (permission denied for table ohlcv_daily)"),
        (
            "CREATE ROLE {0}; GRANT SELECT ON ohlcv_daily TO {0}; SET ROLE {0}",
            "the database does not let this user write it (permission denied for table ohlcv_daily)",
        ),
        (
            f"{FOREIGN}; INSERT INTO ohlcv_daily VALUES (1, 'B', '2024-03-01', 1, 1, 1, 3); ALTER TABLE ohlcv_daily ADD CHECK (close <> 1)",
            "the constraint ohlcv_daily_close_check1 of ohlcv_daily refuses it: Failing row contains",
        ),
        ("ALTER TABLE ohlcv_daily DROP volume", 'the table ohlcv_daily is another than ours (column "volume" does not exist)'),
    ],
)  # fmt: skip
async def test_what_the_database_refuses_is_one_line_and_changes_nothing(
    connection: Connection, tmp_path: Path, statement: str, reason: str
) -> None:
    role = f"stockgraph_test_{os.getpid()}"
    await connection.execute(statement.format(role))
    try:
        with pytest.raises(PricesRefused) as refused:
            await load(connection, tmp_path, {"ohlcv.csv": ROWS})
    finally:
        await connection.execute("RESET ROLE")
        if role in statement.format(role):
            await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    assert str(refused.value).startswith(f"Prices: {reason}")
    assert "\n" not in str(refused.value)
    assert await connection.fetchval("SELECT count(*) FROM ohlcv_daily WHERE symbol = 'A'") == 0
    assert await connection.fetchval("SELECT to_regclass('pg_temp.stockgraph_bars') IS NULL")


async def blocked(observer: Connection, *connections: Connection) -> None:
    """Wait until all of these wait for a lock."""
    pids = [each.get_server_pid() for each in connections]
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1) AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        while await observer.fetchval(query, pids) < len(pids):
            await asyncio.sleep(0.01)


async def test_loads_at_once_and_a_writer_of_another_order_end_whole(connect: Connect, tmp_path: Path) -> None:
    writer, first, second, observer = [await connect() for _ in range(4)]
    days = [MARCH - timedelta(days=n) for n in range(200)]

    def content(symbols: Sequence[str], close: int) -> str:
        return "symbol,date,close\n" + "".join(f"{s},{day},{close}\n" for s in symbols for day in days)

    async with writer.transaction():
        await writer.execute(
            "INSERT INTO ohlcv_daily (symbol, date, close) VALUES ('B', $1, 5)".replace("$1", f"'{MARCH}'")
        )
        loads = [
            asyncio.create_task(load(first, tmp_path, {"1.csv": content("AB", 1)})),
            asyncio.create_task(load(second, tmp_path, {"2.csv": content("BA", 2)})),
        ]
        await blocked(observer, first, second)
        # what the loads write first
        await writer.execute(
            "INSERT INTO ohlcv_daily (symbol, date, close) VALUES ('A', $1, 5)".replace("$1", f"'{MARCH}'")
        )
    one, two = await asyncio.gather(*loads)
    assert sorted([(one[0].added, one[0].changed), (two[0].added, two[0].changed)]) == [(0, 400), (398, 2)]
    assert (one[1], two[1]) == ([], [])
    closes = {row[5] for row in await prices(observer)}
    assert closes in ({1}, {2})


@pytest.mark.parametrize("ending", ["terminate", "cancel"])
@pytest.mark.parametrize("when", ["copying", "merging"])
async def test_a_load_that_is_cut_off_changes_nothing_and_does_not_hang(
    connect: Connect, tmp_path: Path, ending: str, when: str
) -> None:
    loader, writer, observer = await connect(), await connect(), await connect()
    await load(observer, tmp_path, {"ohlcv.csv": ROWS})
    before = await everything(observer)
    content = "symbol,date,close\n" + "".join(
        f"S{n},2024-03-01,1\n" for n in range(200_000 if when == "copying" else 3)
    )
    async with writer.transaction():
        await writer.execute("LOCK TABLE ohlcv_daily IN ROW EXCLUSIVE MODE")
        loading = asyncio.create_task(load(loader, tmp_path, {"new.csv": content}))
        if when == "merging":
            await blocked(observer, loader)
        else:
            await asyncio.sleep(0.05)
        if ending == "terminate":
            await observer.execute("SELECT pg_terminate_backend($1)", loader.get_server_pid())
            with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
                async with asyncio.timeout(10):
                    await loading
        else:
            loading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await loading
            assert await loader.fetchval("SELECT to_regclass('pg_temp.stockgraph_bars') IS NULL")
    assert await everything(observer) == before


async def test_a_file_that_changes_while_it_is_loaded_changes_nothing(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "ohlcv.csv"
    file.write_text("symbol,date,close\n" + "".join(f"S{n},2024-03-01,1\n" for n in range(20_000)))
    reading = read_paths([file])

    def heard(what: str, done: int, of: int | None) -> None:
        if what.startswith("Reading") and of and done > of / 2:
            os.utime(file)

    told, errors = await load_bars(connection, reading.prices, progress=heard)
    assert (told.files, [str(error) for error in errors]) == (
        0,
        [f"{file}: changed while it was read; load it again."],
    )
    assert await prices(connection) == []


async def test_how_far_the_load_is_is_told(connection: Connection, tmp_path: Path) -> None:
    file = tmp_path / "ohlcv.csv"
    file.write_text("symbol,date,close\n" + "".join(f"S{n},2024-03-01,1\n" for n in range(12_000)))
    heard: list[tuple[str, int, int | None]] = []
    await load_bars(connection, read_paths([file]).prices, progress=lambda *each: heard.append(each))
    size = file.stat().st_size
    assert [(what, of) for what, _, of in heard] == [
        *[(f"Reading {file}", size)] * 3,
        ("Sorting prices", None),
        ("Merging prices", None),
    ]
    assert [done for _, done, _ in heard] == [*sorted(done for _, done, _ in heard[:3]), 0, 0]


async def test_the_memory_that_a_load_takes_does_not_grow_with_the_file(connection: Connection, tmp_path: Path) -> None:
    peaks = {}
    for count in (5_000, 5_001, 40_000):
        file = tmp_path / f"ohlcv_{count}.csv"
        days = [MARCH - timedelta(days=n) for n in range(count // 10 + 1)]
        file.write_text("symbol,date,close\n" + "".join(f"S{n % 10},{days[n // 10]},1\n" for n in range(count)))
        tracemalloc.start()
        told, _ = await load_bars(connection, read_paths([file]).prices, dry_run=True)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert told.added == count
    # 35,000 bars take 14 MB
    assert peaks[40_000] < peaks[5_001] + 2_000_000


COLUMNS = ("open", "high", "low", "volume")
DAYS = [MARCH, date(2024, 2, 29), date(1999, 12, 31)]
CELLS = st.one_of(st.none(), st.integers(1, 3))
FILES = st.tuples(
    st.sets(st.sampled_from(COLUMNS)),
    st.lists(
        st.tuples(
            st.sampled_from("AB"),
            st.sampled_from(DAYS),
            st.fixed_dictionaries({"close": CELLS, "open": CELLS, "high": st.none(), "low": CELLS, "volume": CELLS}),
        ),
        min_size=1,
        max_size=4,
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(FILES, st.booleans()), min_size=1, max_size=6))
async def test_any_sequence_of_loads_ends_as_the_model(
    connection: Connection, tmp_path: Path, sequence: list[tuple[tuple[set[str], list[Any]], bool]]
) -> None:
    await connection.execute("TRUNCATE ohlcv_daily")
    model: dict[tuple[str, date], dict[str, int | None]] = {}
    generation = "SELECT coalesce(sum(weight), 0) FROM data_change WHERE family = 'prices'"
    for (columns, bars), dry_run in sequence:
        has = ["close", *sorted(columns)]
        with (tmp_path / "ohlcv.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["symbol", "date", *has])
            writer.writerows([symbol, day, *(cells[each] for each in has)] for symbol, day, cells in bars)
        told = [(symbol, day) for symbol, day, cells in bars if cells["close"]]
        before = await connection.fetchval(generation)
        seen, errors = await load_bars(connection, read_paths([tmp_path / "ohlcv.csv"]).prices, dry_run=dry_run)
        after = await connection.fetchval(generation)
        if len(set(told)) < len(told):
            assert (seen.files, after, len(errors)) == (0, before, len(told) - len(set(told)))
            continue
        new = {
            (symbol, day): {
                **dict.fromkeys(COLUMNS),
                **model.get((symbol, day), {}),
                **{each: cells[each] for each in has},
            }
            for symbol, day, cells in bars
            if cells["close"]
        }
        added, changed = len(new.keys() - model.keys()), sum(model.get(key, row) != row for key, row in new.items())
        assert seen == PricesDiff(
            files=1,
            rows=len(told),
            symbols=Listed(len({symbol for symbol, _ in told}), tuple(sorted({symbol for symbol, _ in told}))),
            first=min((day for _, day in told), default=None),
            last=max((day for _, day in told), default=None),
            added=added,
            changed=changed,
            unchanged=len(told) - added - changed,
            left_out=len(bars) - len(told),
        )
        assert (errors, after - before) == ((), 0 if dry_run else bool(added or changed))
        if not dry_run:
            model |= new
        rows = await connection.fetch("SELECT * FROM ohlcv_daily")
        assert {
            (row["symbol"], row["date"]): {each: row[each] for each in ("close", *COLUMNS)} for row in rows
        } == model


BOOKS = st.lists(
    st.tuples(
        st.sets(st.sampled_from(COLUMNS)),
        st.dictionaries(
            st.sampled_from("ABC"),
            st.fixed_dictionaries({name: st.sampled_from([1, 1, 1, 2, None]) for name in ("close", *COLUMNS)}),
            min_size=1,
        ).map(lambda book: [(symbol, {**cells, "close": cells["close"] or 1, "high": 2}) for symbol, cells in book.items()]),
    ),
    min_size=2,
    max_size=6,
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BOOKS, st.integers(0, 9))
async def test_of_any_files_each_is_loaded_that_differs_from_none_before(
    connection: Connection,
    tmp_path: Path,
    books: list[tuple[set[str], list[tuple[str, dict[str, int | None]]]]],
    twice: int,
) -> None:
    await connection.execute("TRUNCATE ohlcv_daily")
    known: dict[tuple[str, str], dict[str, int | None]] = {}
    refused: dict[str, list[str]] = {}
    rows = 0
    for number, (columns, book) in enumerate(books):
        has = ["close", *sorted(columns)]
        lines = [*book, book[0]] if number == twice else book
        with (tmp_path / f"{number}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["symbol", "date", *has])
            writer.writerows([symbol, MARCH, *(cells[each] for each in has)] for symbol, cells in lines)
        told = {(symbol, each): cells[each] for symbol, cells in book for each in has}
        others = [name for key, cell in told.items() for name, before in known.get(key, {}).items() if before != cell]
        if number == twice:
            refused[f"{number}.csv"] = ["is on line 2 too"]
        elif others:
            refused[f"{number}.csv"] = [f"/{other} too, with other prices" for other in others]
        else:
            rows += len(book)
            for key, cell in told.items():
                known.setdefault(key, {})[f"{number}.csv"] = cell
    paths = [tmp_path / f"{number}.csv" for number in range(len(books))]
    diff, errors = await load_bars(connection, read_paths(paths).prices)
    assert (diff.files, diff.rows, len(errors)) == (len(books) - len(refused), rows, len(refused))
    written = {
        (row["symbol"], each): row[each]
        for row in await connection.fetch("SELECT * FROM ohlcv_daily")
        for each in ("close", *COLUMNS)
    }
    assert {key: cell for key, cell in written.items() if cell is not None} == {
        key: cell for key, cells in known.items() for cell in cells.values() if cell is not None
    }
    for error, (name, reasons) in zip(errors, refused.items(), strict=True):
        assert str(error).startswith(f"{tmp_path}/{name}, line ")
        assert any(reason in str(error) for reason in reasons)


def published(path: Path) -> list[dict[str, str]]:
    """The rows of a file, in the plainest way to read them."""
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.skipif(not VENDOR_FILES, reason="TEST_VENDOR_FILES names no folder")
@pytest.mark.parametrize("name", ["nasdaq_AAPL.csv", "yahoo_AAPL.csv"])
async def test_files_that_vendors_did_publish_end_in_the_database(connection: Connection, name: str) -> None:
    path = Path(VENDOR_FILES or "", name)
    rows = published(path)
    told, errors = await load_bars(connection, read_paths([path]).prices)
    assert (told.rows, told.added, told.symbols.total, errors) == (len(rows), len(rows), 1, ())
    closes = sum(Decimal(row["Close"].strip("$")) for row in rows).quantize(Decimal("0.01"), ROUND_HALF_UP)
    shares = sum(int(row["Volume"].replace(",", "")) for row in rows)
    assert await connection.fetchrow(
        "SELECT round(sum(close::numeric), 2), sum(volume), count(DISTINCT date) FROM ohlcv_daily WHERE symbol = 'AAPL'"
    ) == (closes, shares, len(rows))
