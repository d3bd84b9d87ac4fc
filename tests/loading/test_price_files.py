import csv
import gzip
import io
import os
import re
import tempfile
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.loading.discovery import read_paths
from graph.loading.files import FileErrors
from graph.loading.price_files import BarReader, BarRow

VENDOR_FILES = os.environ.get("TEST_VENDOR_FILES")
"""A folder of files as vendors publish them, which may not be passed on."""

HEADER = "symbol,date,open,high,low,close,volume\n"


def read(folder: Path, content: str | bytes, file: str = "ohlcv.csv") -> tuple[list[BarRow], int, list[str]]:
    """The bars of a file with this content, how many rows were left out, and the errors without the folder."""
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reading = read_paths([path])
    said = [str(error).replace(f"{folder}/", "") for error in reading.errors]
    if said:
        return [], 0, said
    (prices,) = reading.prices
    errors = FileErrors(path, prices.fingerprint)
    bars = BarReader(errors, prices)
    found = []
    try:
        found = list(bars)
    except type(errors.error("")) as error:
        errors.end(error)
    return found, bars.left_out, [str(error).replace(f"{folder}/", "") for error in errors.all()]


MARCH = date(2024, 3, 1)
APPLE = BarRow(2, "AAPL", MARCH, "179.55", "180.53", "177.38", "179.66", 73563080)


@pytest.mark.parametrize(
    ("content", "file"),
    [
        (HEADER + "AAPL,2024-03-01,179.55,180.53,177.38,179.66,73563080\n", "ohlcv.csv"),
        (HEADER + "aapl,2024-03-01,179.55,180.53,177.38,179.66,73563080.0", "x"),
        ("\ufeff" + HEADER.upper() + "AAPL,2024-03-01,179.55,180.53,177.38,179.66,7.356308e7,\r\n", "ohlcv.csv"),
        (
            "volume,Close,vwap,LOW,high,open,date,Ticker\n73563080,179.66,x,177.38,180.53,179.55,2024-03-01,AAPL\n",
            "prices.csv",
        ),
        (
            "Date,Open,High,Low,Close,Adj Close,Volume\n2024-03-01,179.55,180.53,177.38,179.66,178.1,73563080",
            "yahoo_AAPL.csv",
        ),
        (
            'Date,Close,Volume,Open,High,Low\n03/01/2024,$179.66,"73,563,080",$179.55,$180.53,$177.38\n',
            "nasdaq_AAPL.csv",
        ),
        ("Date,Close/Last,Volume,Open,High,Low\n3/1/2024,$179.66,73563080,$179.55,$180.53,$177.38\n", "AAPL.csv"),
    ],
)
def test_one_bar_however_it_is_written(tmp_path: Path, content: str, file: str) -> None:
    assert read(tmp_path, content, file) == ([APPLE], 0, [])
    assert read(tmp_path, gzip.compress(content.encode()), file) == ([APPLE], 0, [])


def test_what_a_file_does_not_tell_is_none(tmp_path: Path) -> None:
    assert read(tmp_path, "close,symbol,date\n1.5,A,2024-03-01\n") == (
        [BarRow(2, "A", MARCH, None, None, None, "1.5", None)],
        0,
        [],
    )
    assert read(tmp_path, HEADER + "A,2024-03-01,,null,N/A,1.5,\n") == (
        [BarRow(2, "A", MARCH, None, None, None, "1.5", None)],
        0,
        [],
    )


def test_rows_without_a_close_are_left_out_and_counted(tmp_path: Path) -> None:
    content = (
        "Date,Open,High,Low,Close,Adj Close,Volume\n2024-02-29,null,null,null,null,null,null\n2024-03-01,1,1,1,1,1,0\n"
    )
    assert read(tmp_path, content, "A.csv") == ([BarRow(3, "A", MARCH, "1", "1", "1", "1", 0)], 1, [])
    assert read(tmp_path, HEADER + "A,2024-03-01,1,1,1,,5\n") == ([], 1, [])


LATER = datetime.now(UTC).date() + timedelta(days=2)
NO_DAY = "is not a day such as 2024-03-01"
NO_PRICE = "is not a price above 0 such as 179.66"
NO_VOLUME = "is not a whole number from 0 to 9223372036854775807"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("A,2024-03-01,1,1,1,1", "has 6 fields where the header has 7; a field with a comma needs quotes"),
        ("A B,2024-03-01,1,1,1,1,1", "symbol 'A B' is not 1 to 50 characters without white space"),
        (",2024-03-01,1,1,1,1,1", "symbol '' is not 1 to 50 characters without white space"),
        ("A,2024-02-30,1,1,1,1,1", f"date '2024-02-30' {NO_DAY}"),
        ("A,03/01/2024,1,1,1,1,1", f"date '03/01/2024' {NO_DAY}"),
        ("A,2024-3-1,1,1,1,1,1", f"date '2024-3-1' {NO_DAY}"),
        ("A,20240301,1,1,1,1,1", f"date '20240301' {NO_DAY}"),
        ("A,\uff12\uff10\uff12\uff14-03-01,1,1,1,1,1", f"date '\uff12\uff10\uff12\uff14-03-01' {NO_DAY}"),
        ("A,,1,1,1,1,1", f"date '' {NO_DAY}"),
        ("A,0001-01-01,1,1,1,1,1", "date 0001-01-01 is not between 1900-01-01 and tomorrow"),
        ("A,1899-12-31,1,1,1,1,1", "date 1899-12-31 is not between 1900-01-01 and tomorrow"),
        (f"A,{LATER},1,1,1,1,1", f"date {LATER} is not between 1900-01-01 and tomorrow"),
        ("A,2024-03-01,x,1,1,1,1", f"open 'x' {NO_PRICE}"),
        ("A,2024-03-01,1,1e400,1,1,1", f"high '1e400' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1e-400,1,1", f"low '1e-400' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,NaN,1", f"close 'NaN' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,inf,1", f"close 'inf' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,0,1", f"close '0' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,-1,1", f"close '-1' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,\uff11,1", f"close '\uff11' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,1_0,1", f"close '1_0' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,$1,1", f"close '$1' {NO_PRICE}"),
        ('A,2024-03-01,1,1,1,"1,000",1', f"close '1,000' {NO_PRICE}"),
        ("A,2024-03-01,1,1,1,1,1.5", f"volume '1.5' {NO_VOLUME}"),
        ("A,2024-03-01,1,1,1,1,-1", f"volume '-1' {NO_VOLUME}"),
        ("A,2024-03-01,1,1,1,1,9223372036854775808", f"volume '9223372036854775808' {NO_VOLUME}"),
        ("A,2024-03-01,1,1,1,1,1e999", f"volume '1e999' {NO_VOLUME}"),
        ("A,2024-03-01,1,1,1,1,\u0661", f"volume '\u0661' {NO_VOLUME}"),
        ("A,2024-03-01,1,1,1.5,1,1", "high 1 is below low 1.5"),
    ],
)
def test_a_bad_row_is_named_by_line_and_reason(tmp_path: Path, row: str, reason: str) -> None:
    found, left_out, said = read(tmp_path, f"{HEADER}B,2024-03-01,1,1,1,1,1\n{row}\n")
    assert ([bar.symbol for bar in found], left_out, said) == (["B"], 0, [f"ohlcv.csv, line 3: {reason}."])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2024-02-30,1,1", f"date '2024-02-30' {NO_DAY}"),
        ("02/30/2024,1,1", f"date '02/30/2024' {NO_DAY}"),
        ("31/01/2024,1,1", f"date '31/01/2024' {NO_DAY}"),
        ('03/01/2024,"1,5",1', f"close '1,5' {NO_PRICE}"),
        ("03/01/2024,$,1", f"close '$' {NO_PRICE}"),
        ("03/01/2024,$-1,1", f"close '$-1' {NO_PRICE}"),
        ('03/01/2024,1,"73,56"', f"volume '73,56' {NO_VOLUME}"),
    ],
)
def test_a_bad_row_of_one_stock(tmp_path: Path, row: str, reason: str) -> None:
    found, left_out, said = read(tmp_path, f"Date,Close,Volume\n{row}\n", "A.csv")
    assert (found, left_out, said) == ([], 0, [f"A.csv, line 2: {reason}."])


def test_the_ends_of_what_is_taken(tmp_path: Path) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    rows = (
        f"A,1900-01-01,1e-320,1.7e308,1,.5,0\nB\\,{tomorrow},+1.,1,1,1,9223372036854775807\nC,2024-02-29,1,1,1,1,5.00\n"
    )
    assert read(tmp_path, HEADER + rows) == (
        [
            BarRow(2, "A", date(1900, 1, 1), "1e-320", "1.7e308", "1", ".5", 0),
            BarRow(3, "B\\", tomorrow, "+1.", "1", "1", "1", 2**63 - 1),
            BarRow(4, "C", date(2024, 2, 29), "1", "1", "1", "1", 5),
        ],
        0,
        [],
    )


def test_twenty_bad_rows_are_named_and_the_others_counted(tmp_path: Path) -> None:
    found, _, said = read(tmp_path, HEADER + "A,2024-03-01,1,1,1,0,1\n" * 10_000)
    assert (found, len(said), said[-1]) == ([], 21, "ohlcv.csv: 9,980 more bad rows.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty."),
        (HEADER.encode(), ": has a header and no rows."),
        (b"\0" * 1_000_000, ", line 1: holds a zero byte; this is not a text file."),
        (HEADER.encode() + b"A,2024-03-01,1,1,1,1,\0\n", ", line 2: holds a zero byte; this is not a text file."),
        (HEADER.encode() + b"A,\xff,1,1,1,1,1\n", ", line 2: character 3 is not UTF-8 (byte 0xff); save the file as UTF-8."),
        (HEADER.encode() + b"9" * 1_000_000, ", line 2: is longer than 131,072 characters."),
        (b"symbol,date,close,Close/Last\nA,2024-03-01,1,1\n", ", line 1: the column 'close' is there twice."),
        (
            gzip.compress(HEADER.encode() + os.urandom(30_000).hex().encode())[:-8],
            ", line 2: is not whole as a gzip file: Compressed file ended before the end-of-stream marker was reached.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(tmp_path: Path, content: bytes, message: str) -> None:
    found, _, said = read(tmp_path, content)
    assert (found, said[0]) == ([], f"ohlcv.csv{message}")


def test_a_file_that_changed_since_it_was_told_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "A.csv"
    path.write_text("date,close\n2024-03-01,1\n")
    (prices,) = read_paths([path]).prices
    path.write_text("date,close\n2024-03-01,20\n")
    with pytest.raises(Exception, match=re.escape("A.csv: changed while it was read; load it again.")):
        list(BarReader(FileErrors(path, prices.fingerprint), prices))


def test_the_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        path = tmp_path / f"ohlcv_{rows}.csv"
        path.write_text(HEADER + "".join(f"A{n % 7},2024-03-01,{n}.5,{n}.5,{n}.5,{n}.5,{n}\n" for n in range(rows)))
        (prices,) = read_paths([path]).prices
        tracemalloc.start()
        count = sum(1 for _ in BarReader(FileErrors(path, prices.fingerprint), prices))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == rows
        return size

    peak(1_000)
    assert peak(30_000) < 1.2 * peak(3_000)


PRICES = st.decimals(Decimal("0.0001"), Decimal("99999.9999"), places=4)
BARS = st.lists(
    st.tuples(
        st.from_regex(r"[A-Z]{1,5}(\.[A-Z])?", fullmatch=True),
        st.dates(date(1900, 1, 1), date(2024, 3, 8)),
        st.one_of(st.none(), PRICES),
        st.one_of(st.none(), st.tuples(PRICES, PRICES)),
        PRICES,
        st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    ),
    min_size=1,
    max_size=20,
)


@given(bars=BARS, form=st.sampled_from(["plain", "yahoo", "nasdaq"]), packed=st.booleans(), data=st.data())
@settings(deadline=None, max_examples=150)
def test_bars_written_in_any_form_are_read_back(
    bars: Sequence[tuple[str, date, Decimal | None, tuple[Decimal, Decimal] | None, Decimal, int | None]],
    form: str,
    packed: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    columns = {
        "plain": data.draw(st.permutations(HEADER.strip().split(","))),
        "yahoo": ["Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"],
        "nasdaq": ["Date", "Close/Last", "Volume", "Open", "High", "Low"],
    }[form]
    sign, empty = ("$", "N/A") if form == "nasdaq" else ("", "null" if form == "yahoo" else "")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    expected = []
    for line, (symbol, day, opened, ends, close, volume) in enumerate(bars, 2):
        low, high = sorted(ends) if ends else (None, None)
        row = {
            "symbol": symbol.lower(),
            "date": f"{day:%m/%d/}{day.year}" if form == "nasdaq" else f"{day}",
            **{
                name: empty if price is None else f"{sign}{price:,}" if sign else f"{price}"
                for name, price in (
                    ("open", opened),
                    ("high", high),
                    ("low", low),
                    ("close", close),
                    ("adj close", close),
                )
            },
            "volume": empty if volume is None else f"{volume:,}" if sign else f"{volume}",
        }
        writer.writerow([row[column.lower().removesuffix("/last")] for column in columns])
        told = (None if price is None else f"{price}" for price in (opened, high, low, close))
        expected.append((line, symbol if form == "plain" else "BRK.B", day, *told, volume))
    content = text.getvalue().encode()
    with tempfile.TemporaryDirectory() as folder:
        file = "ohlcv.csv" if form == "plain" else f"{form}_BRK-B.csv"
        assert read(Path(folder), gzip.compress(content) if packed else content, file) == (expected, 0, [])


@pytest.mark.skipif(not VENDOR_FILES, reason="TEST_VENDOR_FILES names no folder")
def test_files_of_prices_that_vendors_did_publish() -> None:
    folder = Path(VENDOR_FILES or "")

    def bars(name: str) -> list[BarRow]:
        (prices,) = read_paths([folder / name]).prices
        errors = FileErrors(prices.path)
        found = list(BarReader(errors, prices))
        assert not errors
        return found

    yahoo, nasdaq = bars("yahoo_AAPL.csv"), bars("nasdaq_AAPL.csv")
    lines = [line.split(",") for line in (folder / "yahoo_AAPL.csv").read_text().splitlines()[1:]]
    assert [(str(bar.day), bar.open, bar.high, bar.low, bar.close, str(bar.volume)) for bar in yahoo] == [
        (day, opened, high, low, close, volume) for day, opened, high, low, close, _, volume in lines
    ]
    cells = re.findall(
        r'^(\d\d)/(\d\d)/(\d{4}),\$([\d.]+),"([\d,]+)",\$([\d.]+),\$([\d.]+),\$([\d.]+)$',
        (folder / "nasdaq_AAPL.csv").read_text(),
        re.MULTILINE,
    )
    assert [(str(bar.day), bar.close, str(bar.volume), bar.open, bar.high, bar.low) for bar in nasdaq] == [
        (f"{year}-{month}-{day}", close, volume.replace(",", ""), *others)
        for month, day, year, close, volume, *others in cells
    ]
    assert {bar.symbol for bar in (*yahoo, *nasdaq)} == {"AAPL"}
    # the file of Yahoo ends without a newline
    ends = [(folder / name).read_bytes().count(b"\n") for name in ("yahoo_AAPL.csv", "nasdaq_AAPL.csv")]
    assert [len(yahoo), len(nasdaq) + 1] == ends
